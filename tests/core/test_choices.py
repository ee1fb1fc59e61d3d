"""Turns of strands, and guests: the rules of docs/scheduling.md below the key, as sentences."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from llm_queue.core.choices import choice_among
from llm_queue.core.events import Outcome
from llm_queue.core.fairness import FairQueue
from llm_queue.core.reasons import Rule
from llm_queue.core.rules import OrderRules
from llm_queue.simulate.engine import Prompts
from tests.core.driver import key, made_job
from tests.core.prompting import COLD, OnAnEngine, lost, two


def elsewhere(driver: OnAnEngine) -> None:
    """Another model is loaded and asked once, in place of the first."""
    driver.wait(30.0)
    driver.submit("x", "other")
    driver.load(1.0)
    driver.run(1.0)
    driver.cache.clear()
    driver.wait(30.0)


# --- the turn ---


def test_while_nothing_was_lost_fair_share_decides_alone() -> None:
    driver = OnAnEngine(keeps=2)
    driver.loop("a")
    driver.loop("b")
    for _ in range(4):
        driver.submit("a")
        driver.submit("b")
    ran = [driver.answer_one() for _ in range(8)]
    assert ran == ["a", "b"] * 4


def test_whose_prompt_is_cached_goes_on_for_a_turn_and_then_it_is_who_had_least() -> None:
    driver = two()
    for _ in range(20):
        driver.submit("a")
        driver.submit("b")
    ran = "".join(driver.answer_one() for _ in range(32))
    # A turn is 20 s without the cold prompt that begins it: seven answers of 3 s. Of the first, nine seconds are used.
    assert ran == "aaaa" + "bbbbbbb" + "aaaaaaa" + "bbbbbbb" + "aaaaaaa"


def test_who_waits_is_told_of_turns_and_of_prompts_that_are_computed_again() -> None:
    driver = two()
    for _ in range(20):
        driver.submit("a")
        driver.submit("b")
    found = driver.scheduler.forecast(driver.now, 32)
    starts = []
    for _ in found:
        assert driver.running is not None
        starts.append((driver.running.job.id, driver.now - 1180.0))
        driver.answer_one()
    assert [(each.job.id, each.start_in) for each in found] == [(name, pytest.approx(at)) for name, at in starts]


def test_a_turn_is_as_long_as_what_it_saves_where_the_rules_say_so() -> None:
    driver = two(rules=OrderRules(turn_factor=1.0))
    for _ in range(9):
        driver.submit("a")
        driver.submit("b")
    assert "".join(driver.answer_one() for _ in range(9)) == "abbbbaaaa"


def test_the_job_that_a_load_is_bound_to_begins_the_turn_of_its_strand() -> None:
    driver = two()
    elsewhere(driver)
    driver.submit("b")
    driver.submit("a")
    driver.load(1.0)
    driver.submit("b")
    assert driver.answer_one() == "b"
    assert driver.turn.strands["a"].used == pytest.approx(3.0)
    assert driver.client() == "b"


def test_a_surprise_load_has_thrown_all_prompts_out() -> None:
    driver = two()
    strands = driver.turn.strands["a"]
    strands.room = None
    driver.submit("b")
    driver.run(3.0, surprise=True)
    assert strands.cached == [("b", "")]


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.REFUSED, Outcome.UNREACHABLE])
def test_an_attempt_that_was_not_answered_says_nothing_of_prompts(outcome: Outcome) -> None:
    driver = OnAnEngine()
    driver.loop("a")
    before = driver.turn.strands["a"].copy()
    driver.submit("b")
    assert driver.running is not None
    driver.run(1.0, outcome, prompt=driver.cache.run(("b", ""), Prompts(COLD)))
    assert len(driver.turn.strands["a"]) == len(before) == 1


# --- between keys ---


def test_what_a_load_throws_out_belongs_to_the_cost_of_the_switch() -> None:
    driver = two()
    elsewhere(driver)
    assert driver.switch_cost() == 1.0
    driver.submit("a")
    driver.load(2.0)
    driver.answer_one()
    driver.submit("x", "other")
    assert driver.switch_cost() == pytest.approx(2.0 + COLD)


def test_the_first_prompt_after_a_load_does_not_count_to_the_keys_turn() -> None:
    driver = two()
    elsewhere(driver)
    driver.submit("a")
    driver.load(1.0)
    driver.answer_one()
    assert driver.turn.used == pytest.approx(3.0)


# --- guests ---


def test_who_is_new_need_not_wait_for_a_turn_and_begins_none() -> None:
    driver = two(rules=OrderRules(switch_wait=60.0))
    for client in ("a", "b", "a", "new", "new"):
        driver.submit(client)
    assert driver.answer_one() == "a"
    assert driver.answer_one() == "new"
    assert driver.client() == "new"
    assert driver.turn.strands["a"].used == pytest.approx(9.0 + 3.0 + COLD + 3.0)


def test_who_usually_pauses_for_a_turn_is_a_guest_and_who_does_so_now_and_then_is_not() -> None:
    driver = OnAnEngine()
    for pause in (0.0, 30.0, 30.0, 1.0, 30.0):
        driver.wait(pause)
        driver.submit("person")
        driver.answer_one()
    for pause in (0.0, 1.0, 1.0, 30.0):
        driver.wait(pause)
        driver.submit("agent")
        driver.answer_one()
    assert driver.submit("agent").pause == 1.0
    driver.answer_one()
    driver.wait(5.0)
    assert driver.submit("person").pause == 30.0


def test_guests_have_fair_share_among_themselves_and_with_those_who_are_cached() -> None:
    queue, strands = FairQueue(0), lost("a")
    jobs = [
        made_job("cold", client="b", arrival=1),
        made_job("guest 1", client="guest", arrival=2),
        made_job("guest 2", client="guest", arrival=3),
        made_job("other", client="other guest", arrival=4),
        made_job("warm", client="a", arrival=5),
    ]
    for job in jobs:
        job.pause = 25.0 if "guest" in job.client else 0.0
        queue.add(job)
    order = []
    while queue:
        chosen = choice_among(queue, strands, OrderRules(), 1.0, Rule.FAIR_SHARE)
        order.append(chosen.job.id)
        assert chosen.begins is (chosen.job.id == "cold")
        queue.serve(chosen.job)
        queue.bill(chosen.job.client, 1.0)
    assert order == ["guest 1", "other", "warm", "guest 2", "cold"]


@pytest.mark.parametrize(("pause", "goes"), [(19.9, False), (20.0, True), (1e9, True), (float("inf"), True)])
def test_a_guest_pauses_for_as_long_as_the_turn_at_least(pause: float, goes: bool) -> None:
    queue = FairQueue(0)
    for number, client in enumerate(["b", "maybe", "a"]):
        job = made_job(client, client=client, arrival=number)
        job.pause = pause if client == "maybe" else 0.0
        queue.add(job)
    assert choice_among(queue, lost("a"), OrderRules(), 1.0, Rule.FAIR_SHARE).job.id == ("maybe" if goes else "a")


@pytest.mark.parametrize(("pause", "begins"), [(25.0, False), (1.0, True)])
def test_after_a_turn_a_guest_begins_none_either(pause: float, begins: bool) -> None:
    queue, job = FairQueue(0), made_job("comes", client="b")
    job.pause = pause
    queue.add(job)
    assert choice_among(queue, lost("a"), OrderRules(), 20.0, Rule.FAIR_SHARE).begins is begins


@pytest.mark.parametrize(("switch_wait", "pause"), [(10.0, 10.0), (20.0, 20.0), (80.0, 20.0)])
def test_longer_turns_make_nobody_less_of_a_guest(switch_wait: float, pause: float) -> None:
    rules = OrderRules(switch_wait=switch_wait)
    assert rules.guest_pause(9.0) == pause
    assert rules.guest_pause(30.0) == 30.0, "a turn is never shorter than what it saves"
    assert rules.guest_pause(0.5) == 4.5


def crowd(size: int) -> FairQueue:
    queue = FairQueue(0)
    for number in range(size):
        job = made_job(str(number), client=f"client {number // 2}", arrival=number)
        job.pause = 21.0 + number if number % 4 > 1 else 0.0
        queue.add(job)
    return queue


def calls_of_a_pick(size: int) -> int:
    """How many functions are called until somebody is picked, served and billed, with so many jobs that wait."""
    queue, strands, calls = crowd(size), lost("client 0"), 0
    queue.first()

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(20):
            chosen = choice_among(queue, strands, OrderRules(), 1.0, Rule.FAIR_SHARE).job
            queue.serve(chosen)
            queue.bill(chosen.client, 1.0)
    finally:
        sys.setprofile(None)
    return calls


def test_guests_are_found_without_looking_at_all_who_wait() -> None:
    small, large = calls_of_a_pick(200), calls_of_a_pick(20_000)
    assert large <= 2 * small


# --- labels ---


def test_two_conversations_of_one_client_are_two_strands() -> None:
    driver = OnAnEngine()
    for label in ("one", "two", "one", "two"):
        driver.submit("x", label=label)
        driver.answer_one()
    jobs = [driver.submit("x", label=label) for label in ("one", "two", "one", "two")]
    for _ in jobs:
        driver.answer_one()
    labels = {job.id: job.label for job in jobs}
    assert [labels[name] for name in driver.ran[-4:]] == ["one", "one", "two", "two"]
    assert len(driver.turn.strands["a"]) == 2


# --- what was loaded by others, or went ---


@pytest.mark.parametrize("how", ["unloaded", "an outage"])
def test_a_model_that_was_away_has_lost_its_prompts_whoever_loads_it_again(how: str) -> None:
    driver = two()
    strands = driver.turn.strands["a"]
    assert strands.cached
    if how == "unloaded":
        driver.seat.know_resident([], driver.now)
        driver.seat.know_resident([key("a")], driver.now)
    else:
        driver.seat.begin_outage(driver.now, "gone")
        driver.seat.probe_succeeded([key("a")], driver.now)
    assert key("a") in driver.turn.resident
    assert strands.cached == []


def test_an_attempt_that_is_broken_off_tells_nothing_of_the_next_prompts() -> None:
    driver = OnAnEngine(keeps=1)
    driver.loop("agent", 4)
    for _ in range(3):
        job = driver.submit("editor")
        driver.run(1.0, Outcome.CANCELLED)
        assert job.state.ended
        driver.cache.clear()  # it had computed a prompt of its own
        driver.loop("agent", 1)
    assert not driver.turn.strands["a"].lost
