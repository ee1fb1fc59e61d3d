"""Holds for strands: the rules of docs/scheduling.md, as sentences."""

from __future__ import annotations

import pytest

from llm_queue.core.jobs import Lane
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.rules import OrderRules
from tests.core.driver import key
from tests.core.prompting import COLD, lost, two


def test_the_slot_is_kept_for_a_strand_that_is_about_to_ask_again() -> None:
    driver = two()
    driver.submit("b")
    assert driver.holding
    driver.wait(0.5)
    driver.submit("a")
    assert driver.client() == "a"
    assert driver.turn.holds == 1


def test_a_strand_is_held_for_until_three_quarters_of_the_loss_after_its_answer() -> None:
    driver = two()
    answered = driver.now
    driver.submit("b")
    hold = driver.turn.hold
    assert hold is not None
    assert hold.until == pytest.approx(answered + 0.75 * COLD)
    driver.wait(hold.until - driver.now + 0.01)
    assert driver.client() == "b"


def test_holds_and_answers_together_are_within_the_turn() -> None:
    driver = two()
    driver.submit("b")
    used = 0.0
    while driver.turn.hold is not None and driver.turn.hold.client == "a":
        driver.wait(0.5)
        driver.submit("a")
        used = max(used, driver.turn.strands["a"].used)
        driver.answer_one()
    # 9 s before, then three times a hold of half a second and an answer, and another half of a second.
    assert used == pytest.approx(9.0 + 2 * 3.5 + 0.5)
    assert driver.ran[-1] == "b16"
    assert driver.turn.held_seconds >= 2.0


def test_nobody_is_held_for_whose_pause_is_longer_than_half_of_the_loss() -> None:
    driver = two(think=5.1)
    driver.submit("b")
    assert driver.client() == "b"
    driver = two(think=4.9)
    driver.submit("b")
    assert driver.holding


def test_nobody_is_held_for_whose_prompt_was_thrown_out_meanwhile() -> None:
    driver = two()
    driver.submit("new")
    driver.run(1.0, prompt=PromptWork(100, 0, 0.04))
    driver.submit("b")
    assert driver.turn.strands["a"].cached == [("new", "")]
    assert driver.client() == "b"


def test_a_backlog_does_not_wait_for_who_pauses_longer_than_it_runs() -> None:
    driver = two(think=4.0)
    driver.submit("b")
    assert driver.holding
    driver.submit("b")
    assert driver.client() == "b"


def test_a_strand_is_held_for_only_after_an_ending_that_it_soon_asks_after() -> None:
    for ending, held in ((None, True), (Ending.STOP, False)):
        driver = two()
        driver.wait(0.5)
        driver.submit("a")
        driver.answer_one(ending=ending)
        driver.submit("b")
        assert driver.holding is held


def test_there_is_no_hold_for_a_strand_in_a_drain_or_where_holds_are_off() -> None:
    driver = two()
    driver.submit("b")
    driver.drain()
    assert driver.client() == "b"
    driver = two(rules=OrderRules(hold=False))
    driver.submit("b")
    assert driver.client() == "b"


def test_a_higher_lane_is_not_held_back_for_a_strand_of_a_lower_one() -> None:
    driver = two()
    driver.submit("b", lane=Lane.INTERACTIVE)
    assert driver.client() == "b"


def test_a_hold_for_a_strand_does_not_outlast_the_turn_of_its_key() -> None:
    driver = two()
    driver.turn.costs.load_ended("other")
    driver.turn.used = driver.turn_length() - 5.0
    driver.submit("b")
    hold = driver.turn.hold
    assert hold is not None
    assert hold.until == pytest.approx(driver.now + 0.75 * COLD)
    driver.submit("w", "other")
    hold = driver.turn.hold
    assert hold is not None
    assert hold.until == pytest.approx(driver.now + 5.0)


def test_nor_the_time_after_which_a_new_model_may_go() -> None:
    driver = two()
    driver.turn.used = 2.0
    driver.submit("b")
    driver.submit("w", "new")
    hold = driver.turn.hold
    assert hold is not None
    assert hold.until == pytest.approx(driver.now + 1.0)


def test_while_the_slot_would_be_kept_another_resident_model_may_go_on() -> None:
    driver = two(room=2)
    driver.turn.resident |= {key("c")}
    driver.submit("b")
    assert driver.holding
    driver.submit("other", "c")
    assert driver.client() == "other"
    driver.run(1.0)
    assert driver.holding


def test_but_not_if_it_would_lose_something_too() -> None:
    driver = two(room=2)
    driver.turn.resident |= {key("c")}
    driver.turn.strands["c"] = lost("nobody")
    driver.submit("b")
    assert driver.holding
    driver.submit("b", "c")
    assert driver.holding
