"""The log of picks: what got the slot, by which rule, and what that cost."""

from __future__ import annotations

import pytest

from llm_queue.core.events import AttemptEnded, Outcome
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.picks import Pick, Picks
from llm_queue.core.prompts import PromptWork
from llm_queue.core.reasons import Rule
from llm_queue.core.rules import OrderRules
from llm_queue.core.turn import Turn
from tests.core.driver import Driver, key, made_job


def picks(driver: Driver) -> list[Pick]:
    """The earliest first."""
    return list(driver.scheduler.picks.latest_first())[::-1]


def rules(driver: Driver) -> list[tuple[str, Rule]]:
    return [(pick.job, pick.rule) for pick in picks(driver)]


@pytest.fixture
def driver() -> Driver:
    return Driver(resident=(key("a"),))


def test_the_only_job_is_picked_because_it_is_the_only_one(driver: Driver) -> None:
    job = driver.submit()
    (pick,) = picks(driver)
    assert (pick.job, pick.client, pick.lane, pick.key) == (job.id, "x", Lane.NORMAL, key("a"))
    assert (pick.rule, pick.at, pick.started, pick.load) == (Rule.ONLY_ONE, driver.now, driver.now, None)
    driver.run(2.0)
    assert pick.ended == driver.now
    assert pick.over == driver.now


def test_one_client_s_jobs_go_by_arrival_and_those_of_several_by_fair_share(driver: Driver) -> None:
    for client in "xxxy":
        driver.submit(client)
    driver.work()
    assert [rule for _, rule in rules(driver)] == [Rule.ONLY_ONE, Rule.FAIR_SHARE, Rule.FIRST_COME, Rule.ONLY_ONE]


def test_a_job_of_a_higher_lane_goes_first(driver: Driver) -> None:
    driver.submit("x")
    driver.submit("slow", lane=Lane.BACKGROUND)
    driver.submit("click", lane=Lane.INTERACTIVE)
    driver.work()
    assert rules(driver)[1] == ("click3", Rule.HIGHER_LANE)


def test_a_lane_that_was_passed_over_long_enough_goes_first(driver: Driver) -> None:
    driver.submit("x")
    driver.submit("slow", lane=Lane.BACKGROUND)
    for _ in range(10):
        driver.submit("x")
    driver.work()
    assert ("slow2", Rule.LANE_BURST) in rules(driver)


def test_a_late_lane_that_must_wait_for_the_turn_s_end_leaves_the_rule_as_it_was() -> None:
    driver = Driver(rules=OrderRules(lane_burst=1), resident=(key("a"),))
    driver.submit("slow", "b")
    driver.submit("x", "a")
    driver.work()
    driver.submit("x", "a")
    driver.submit("slow", "b", lane=Lane.BACKGROUND)
    for client in "xyxy":
        driver.submit(client, "a")
    driver.run(1.0)
    driver.run(1.0)
    driver.run(1.0)
    assert [rule for _, rule in rules(driver)][-3:] == [Rule.FAIR_SHARE] * 3


def test_the_turn_of_a_loaded_model_goes_on_until_it_is_over(driver: Driver) -> None:
    driver.submit("x", "a")
    driver.submit("y", "b")
    driver.submit("x", "a")
    driver.run(1.0)
    driver.run(30.0)
    driver.load(2.0)
    assert rules(driver)[1:] == [("x3", Rule.TURN_GOES_ON), ("y2", Rule.ONLY_ONE)]
    driver.submit("x", "a")
    driver.submit("y", "b")
    driver.run(40.0)
    assert rules(driver)[-1] == ("x4", Rule.TURN_OVER)


def test_a_model_that_was_never_loaded_goes_early(driver: Driver) -> None:
    for _ in range(2):
        driver.submit("x", "a")
    driver.submit("y", "b")
    driver.run(5.0)
    assert rules(driver)[-1] == ("y3", Rule.NEW_MODEL)


def test_a_load_belongs_to_the_pick_that_caused_it(driver: Driver) -> None:
    job = driver.submit("y", "b")
    (pick,) = picks(driver)
    assert (pick.loading, pick.load, pick.started, pick.over) == (True, None, None, None)
    driver.load(4.0)
    assert picks(driver) == [pick]
    assert (pick.job, pick.loading, pick.load, pick.load_failed) == (job.id, False, 4.0, False)
    assert pick.started == pick.at + 4.0


def test_an_interactive_job_that_uses_the_load_of_another_says_so(driver: Driver) -> None:
    driver.submit("y", "b", lane=Lane.BACKGROUND)
    driver.submit("click", "b", lane=Lane.INTERACTIVE)
    driver.load(4.0)
    driver.run(1.0)
    assert rules(driver) == [("y1", Rule.ONLY_ONE), ("click2", Rule.SHARES_LOAD)]
    first, second = picks(driver)
    assert second.started is not None
    assert first.started == second.started + 1.0
    assert first.load == 4.0


def test_a_load_that_failed_stays_in_the_log(driver: Driver) -> None:
    driver.submit("y", "b")
    driver.load(4.0, Outcome.REFUSED)
    (pick,) = picks(driver)
    assert (pick.load_failed, pick.load, pick.started) == (True, 4.0, None)
    assert pick.over == pick.at + 4.0


def test_a_repeated_job_has_a_pick_for_each_attempt(driver: Driver) -> None:
    job = driver.submit()
    driver.run(1.0, Outcome.BROKEN)
    driver.run(1.0)
    assert [pick.job for pick in picks(driver)] == [job.id, job.id]


def test_a_hold_counts_for_the_pick_after_it_and_names_its_client(driver: Driver) -> None:
    driver.submit("other", "b")
    driver.work()
    for _ in range(4):
        driver.submit("loop", "a")
        driver.work(run=2.0)
        driver.wait(0.125)
    driver.submit("loop", "a")
    driver.submit("other", "b")
    driver.run(2.0)
    assert driver.holding
    driver.wait(0.25)
    driver.submit("loop", "a")
    last = picks(driver)[-1]
    assert (last.hold, last.held_for) == (0.25, "loop")
    driver.run(2.0)
    driver.work()
    assert (picks(driver)[-1].client, picks(driver)[-1].held_for) == ("other", "loop")


def held() -> tuple[Driver, Job]:
    """The slot has been kept for a loop for a quarter of a second, while the other one waits."""
    driver = Driver(resident=(key("a"),))
    driver.submit("other", "b")
    driver.work()
    for _ in range(4):
        driver.submit("loop", "a")
        driver.work(run=2.0)
        driver.wait(0.125)
    driver.submit("loop", "a")
    other = driver.submit("other", "b")
    driver.run(2.0)
    driver.wait(0.25)
    assert driver.holding
    return driver, other


def test_a_hold_that_ends_because_nobody_waits_any_more_belongs_to_no_pick() -> None:
    driver, other = held()
    driver.cancel(other)
    driver.wait(0.25)
    driver.submit("loop", "a")
    assert driver.turn.held_seconds == 0.25
    assert (picks(driver)[-1].hold, picks(driver)[-1].held_for) == (0.0, None)


def test_nor_does_one_that_a_pause_has_ended() -> None:
    driver, other = held()
    driver.pause()
    driver.wait(30.0)
    driver.resume()
    assert driver.turn.held_seconds == 0.25
    assert (picks(driver)[-1].job, picks(driver)[-1].hold, picks(driver)[-1].held_for) == (other.id, 0.0, None)


@pytest.mark.parametrize(("cached", "cold"), [(0, 3.0), (499, 3.0), (500, None), (1000, None)])
def test_a_prompt_is_cold_if_less_than_half_of_it_was_in_memory(
    driver: Driver, cached: int, cold: float | None
) -> None:
    job = driver.submit()
    ended = AttemptEnded(job, Outcome.SUCCEEDED, prompt=PromptWork(1000, cached, 3.0))
    driver.running = None
    driver.act(driver.scheduler.handle(ended, driver.now))
    assert picks(driver)[0].cold_prompt == cold


def test_the_log_is_bounded_and_knows_since_when_it_forgets() -> None:
    log, turn = Picks(most=3), Turn(resident=frozenset({key("a")}))
    assert log.forgotten_until is None
    for number in range(5):
        log.picked(made_job(f"j{number}"), key("a"), Rule.ONLY_ONE, turn, float(number))
    assert [pick.job for pick in log.latest_first()] == ["j4", "j3", "j2"]
    assert (len(log), log.forgotten_until) == (3, 1.0)
    gone = made_job("j0")
    log.load_ended(gone, 1.0, succeeded=True)
    log.attempt_ended(gone, None, 9.0)
    assert log.last_of("j0") is None


def test_a_bound_job_whose_first_pick_is_forgotten_gets_one_anew() -> None:
    log, turn = Picks(most=1), Turn(resident=frozenset({key("a")}))
    log.picked(made_job("other"), key("a"), Rule.ONLY_ONE, turn, 0.0)
    log.picked(made_job("j"), key("a"), Rule.BOUND, turn, 1.0)
    assert [(pick.job, pick.rule) for pick in log.latest_first()] == [("j", Rule.BOUND)]


def test_looking_ahead_leaves_no_trace_in_the_log(driver: Driver) -> None:
    for client in "xyz":
        driver.submit(client)
    before = rules(driver)
    driver.scheduler.forecast(driver.now, 10)
    driver.scheduler.estimates(driver.now, 10)
    assert rules(driver) == before
