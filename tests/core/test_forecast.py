"""The order that people are shown is the one in which jobs are picked."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llm_queue.core.costs import FIRST_GUESS
from llm_queue.core.events import Outcome
from llm_queue.core.forecast import UNKNOWN_RUN
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.rules import OrderRules
from llm_queue.core.strands import strand_of
from tests.core.driver import FLOOR, Driver, key

Step = Callable[[Driver], object]


PACE = 0.005
"""Seconds per token. All prompts have a thousand tokens, of which one that is still there spares nine hundred."""


def submit(client: str, model: str, lane: Lane, wanted_ctx: int, label: str = "") -> Step:
    return lambda driver: driver.submit(client, model, lane=lane, wanted_ctx=wanted_ctx, label=label)


def work(seconds: float, reported: bool = False, ending: Ending | None = None) -> Step:
    """End what has the slot; what its prompt took is ``reported``, if it is, by an engine that keeps one of them."""

    def step(driver: Driver) -> None:
        if driver.loading:
            driver.load(seconds)
        elif driver.running:
            last = [job for job in driver.ran[:-1] if job in driver.settled][-1:]
            found = 900 if last and last[0].rstrip("0123456789") == driver.running.job.client else 0
            prompt = PromptWork(1000, found, (1000 - found) * PACE) if reported else None
            driver.run(seconds + (prompt.seconds if prompt else 0.0), prompt=prompt, ending=ending)

    return step


def loop(client: str, model: str, lane: Lane, seconds: float) -> Step:
    """Ask one job after the other, so that it is known to come back."""

    def step(driver: Driver) -> None:
        if driver.seat.slot is None:
            for _ in range(3):
                driver.submit(client, model, lane=lane)
                driver.work(load=2.0, run=seconds)
                driver.wait(0.125)

    return step


def losing(model: str, lane: Lane, last: int) -> Step:
    """Let two programs throw out each other's prompts, and the second ask again and again."""

    def step(driver: Driver) -> None:
        if driver.seat.slot is not None or driver.scheduler.waiting:
            return
        before = ""
        for client in "wwxx" * 2 + "w" * last:
            driver.wait(0.125 if client == before else 15.0)
            if driver.asking:
                driver.answer()
            driver.submit(client, model, lane=lane)
            if driver.loading:
                driver.load(2.0)
            found = 900 if client == before else 0
            prompt = PromptWork(1000, found, (1000 - found) * PACE)
            if driver.running:
                driver.run(1.0 + prompt.seconds, prompt=prompt, ending=Ending.TOOLS)
            before = client

    return step


def wait(seconds: float) -> Step:
    return lambda driver: driver.wait(seconds)


clients, models, lanes = st.sampled_from("wxyz"), st.sampled_from("abc"), st.sampled_from(Lane)
seconds = st.sampled_from([0.125, 0.25, 0.5, 1.0, 3.0, 8.0])
sizes = st.sampled_from([FLOOR, FLOOR, FLOOR, 2 * FLOOR])
submits = st.builds(submit, clients, models, lanes, sizes, st.sampled_from(["", "", "other"]))
works = st.builds(work, seconds, st.sampled_from([True, True, False]), st.sampled_from([None, Ending.TOOLS]))
loops = st.builds(loop, clients, models, lanes, seconds)
losses = st.builds(losing, models, lanes, st.integers(0, 3))
steps = st.lists(st.one_of(submits, submits, works, loops, losses), max_size=60)
endings = st.builds(wait, st.sampled_from([0.0, 0.125, 0.5, 1.0]))
rules = st.builds(OrderRules, st.integers(1, 4), st.sampled_from([9.0, 1.0]), st.sampled_from([20.0, 4.0]))


def played(how: OrderRules, done: list[Step], *, looking_ahead: bool) -> Driver:
    driver = Driver(rules=how, resident=(key("a"),))
    for step in done:
        step(driver)
        if looking_ahead:
            driver.scheduler.forecast(driver.now, 1000)
    return driver


def usual_prompt(driver: Driver, job: Job) -> PromptWork | None:
    """What the line expects of a prompt: all that is found of a cached one, of any other what was left of it."""
    strands = driver.turn.strands.get(job.model or "")
    if strands is None:
        return None
    known, strand = strands._known.get(strand_of(job)), strand_of(job)
    if known is None:
        return PromptWork(0, 0, 0.0)
    found = round(known.kept) if strand in strands.cached else 0
    return PromptWork(known.tokens, found, (known.tokens - found) * PACE)


def work_as_usual(driver: Driver) -> dict[str, float]:
    """Finish everything, each run and load taking as long as expected. Returns when each job started."""
    starts: dict[str, float] = {}
    while driver.loading or driver.running or driver.holding:
        slot = driver.seat.slot
        if slot is None:
            assert driver.seat.hold is not None
            driver.wait_until(driver.seat.hold.until)
        elif slot.loading:
            driver.wait_until(max(driver.now, slot.since + driver.turn.costs.load(slot.key.model)))
            driver.load(0.0)
        else:
            starts.setdefault(slot.job.id, slot.since)
            expected = driver.line.expected_run(slot.job, driver.turn)
            usual = UNKNOWN_RUN if expected is None else expected
            driver.wait_until(max(driver.now, slot.since + usual))
            habit = driver.line.habits.of((slot.job.client, slot.job.model or "", slot.job.label))
            driver.run(0.0, prompt=usual_prompt(driver, slot.job), ending=None if habit is None else habit.ending)
    return starts


@given(rules=rules, steps=steps, ending=endings)
def test_if_nothing_else_comes_the_forecast_is_what_happens(rules: OrderRules, steps: list[Step], ending: Step) -> None:
    driver = played(rules, [*steps, ending], looking_ahead=False)
    found, now = driver.scheduler.forecast(driver.now, 1000), driver.now
    loads = len(driver.loads) - (driver.loading is not None)
    starts = work_as_usual(driver)
    first = found[:1] if found and found[0].load else []  # it has the slot for its load; an interactive job may pass it
    in_order = sorted(found, key=lambda each: starts[each.job.id]) if first else found
    assert [each.job.id for each in in_order] == list(starts)
    for each in found:
        if each.start_in is not None:
            assert each.start_in == pytest.approx(max(0.0, starts[each.job.id] - now))
    assert sum(each.load for each in found) == len(driver.loads) - loads


@given(rules=rules, steps=steps)
def test_looking_ahead_changes_nothing(rules: OrderRules, steps: list[Step]) -> None:
    looked, plain = (played(rules, steps, looking_ahead=looking) for looking in (True, False))
    for driver in (looked, plain):
        work_as_usual(driver)
    assert looked.ran == plain.ran
    assert looked.loads == plain.loads
    assert looked.turn.holds == plain.turn.holds


@given(rules=rules, steps=steps, limit=st.integers(0, 5))
def test_the_first_few_are_those_of_the_whole(rules: OrderRules, steps: list[Step], limit: int) -> None:
    scheduler = played(rules, steps, looking_ahead=False).scheduler
    now = 5000.0
    few, whole = scheduler.forecast(now, limit), scheduler.forecast(now, 1000)
    assert [each.job for each in few] == [each.job for each in whole[:limit]]


def shown(driver: Driver, limit: int = 100) -> list[tuple[str, float | None, bool]]:
    return [(each.job.id, each.start_in, each.load) for each in driver.scheduler.forecast(driver.now, limit)]


def test_what_runs_is_first_and_the_rest_waits_for_its_usual_time() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.run(4.0)
    for _ in range(3):
        driver.submit("x")
    driver.wait(1.0)
    assert shown(driver) == [("x2", 0.0, False), ("x3", 3.0, False), ("x4", 7.0, False)]


def test_a_run_that_lasts_longer_than_usual_is_expected_to_end_now() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.run(4.0)
    driver.submit("x")
    driver.submit("x")
    driver.wait(9.0)
    assert shown(driver) == [("x2", 0.0, False), ("x3", 0.0, False)]


def test_a_load_counts_what_it_took_last_and_before_that_the_first_guess() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.run(1.0)
    driver.submit("x", "b")
    driver.wait(0.75)
    assert shown(driver) == [("x2", FIRST_GUESS - 0.75, True)]
    driver.load(0.5)
    driver.submit("x", "a")
    driver.run(1.0)
    driver.load(2.0)
    driver.submit("y", "b")
    assert shown(driver) == [("x3", 0.0, False), ("y4", 1.0 + 1.25, True)]


def test_a_client_that_never_asked_is_taken_to_run_as_long_as_the_others() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.run(4.0)
    driver.submit("new")
    driver.submit("x")
    assert shown(driver) == [("new2", 0.0, False), ("x3", 4.0, False)]


def test_no_time_is_told_that_depends_on_runs_of_which_none_has_ended() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.submit("y")
    assert shown(driver) == [("x1", 0.0, False), ("y2", None, False)]


def test_a_job_whose_caller_left_while_its_model_is_loading_is_not_shown() -> None:
    driver = Driver()
    gone = driver.submit("x")
    driver.submit("y")
    driver.cancel(gone)
    assert [job for job, _, _ in shown(driver)] == ["y2"]


def test_jobs_whose_model_is_not_known_come_last_and_count_to_the_limit() -> None:
    driver = Driver(up=False)
    driver.submit("x", None)
    driver.submit("y")
    driver.submit("z", None)
    assert [job for job, _, _ in shown(driver)] == ["y2", "x1", "z3"]
    assert [job for job, _, _ in shown(driver, limit=2)] == ["y2", "x1"]


def test_a_busy_upstream_starts_nothing_before_it_is_tried_again() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.run(0.0, Outcome.BUSY)
    assert shown(driver) == [("x1", pytest.approx(0.1), False)]


def test_a_hold_is_time_that_passes() -> None:
    driver = Driver()
    driver.submit("y", "b")
    driver.work()
    for _ in range(4):
        driver.wait(0.125)
        driver.submit("x")
        driver.work()
    driver.submit("y", "b")
    assert driver.holding
    assert shown(driver) == [("y6", 2.25 + 3.0, True)]


def test_fifty_of_ten_thousand_are_picked_without_looking_at_the_rest() -> None:
    driver = Driver(resident=(key("a"),))
    for number in range(10_000):
        driver.submit(f"c{number % 100} ", "ab"[number // 100 % 2], lane=Lane(number % 3))
    touched: set[str] = set()

    class Spy(Job):
        __slots__ = ()

        def __getattribute__(self, name: str) -> object:
            touched.add(object.__getattribute__(self, "id"))
            return object.__getattribute__(self, name)

    for job in driver.scheduler.waiting_jobs():
        job.__class__ = Spy
    found = driver.scheduler.forecast(driver.now, 50)
    assert len(found) == 50
    assert len(touched) <= 500


def test_a_raise_that_is_foreseen_changes_no_key_yet() -> None:
    driver = Driver(resident=(key("a"),))
    running, waiting = driver.submit("x"), driver.submit("z")
    urgent = driver.submit("y", wanted_ctx=2 * FLOOR, lane=Lane.INTERACTIVE)
    assert [one.job for one in driver.scheduler.forecast(driver.now, 10)] == [running, urgent, waiting]
    assert (urgent.key, waiting.key) == (key("a", 2 * FLOOR), key("a"))
    driver.work()
    assert driver.ran == [running.id, urgent.id, waiting.id]
    assert waiting.key == key("a", 2 * FLOOR)


def test_nobody_knows_when_a_job_starts_while_the_upstream_is_away() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    driver.run(1.0)
    driver.submit("x")
    driver.submit("y")
    assert driver.scheduler.forecast(driver.now, 5)[1].start_in is not None
    driver.run(0.0, Outcome.UNREACHABLE)
    assert [one.start_in for one in driver.scheduler.forecast(driver.now, 5)] == [None, None]
    assert driver.scheduler.estimates(driver.now, 5) == {}
