"""What a waiting job is told of what bounds its wait: the words, and that the core keeps to them."""

from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import given

from llm_queue.core.jobs import Job, Lane
from llm_queue.core.prompts import PromptWork
from llm_queue.dispatch.bounds import bound_of
from tests.core.driver import Driver, key
from tests.core.prompting import two


def told(driver: Driver, job: Job) -> str | None:
    return bound_of(job, driver.seat, driver.line, driver.now)


def tried(*models: str) -> Driver:
    """Each was loaded in 3 s and ran for 1 s; the last one is loaded."""
    driver = Driver()
    for model in models:
        driver.submit("before", model)
        driver.work()
    return driver


# --- turns of keys ---


def test_a_program_that_asks_again_and_again_may_have_the_rest_of_the_turn_though_nothing_of_it_waits() -> None:
    driver = tried("b", "a")
    for _ in range(3):
        driver.submit("loop", "a")
        driver.run(2.0)
        driver.wait(0.5)
    driver.submit("loop", "a")
    job, asked = driver.submit("other", "b"), driver.now
    driver.wait(1.0)
    assert told(driver, job) == (
        "At most the rest of this turn (12 s of 20 s), the job that runs then, and one load of 3.0 s."
    )
    driver.run(1.0)
    while driver.loading is None:
        assert told(driver, job) != "It is next."
        if driver.holding:
            driver.wait(0.5)
            driver.submit("loop", "a")
        else:
            driver.run(2.0)
    assert 1.0 + 2.0 < driver.now - asked <= 1.0 + 12.0 + 2.0


@given(think=st.floats(0.125, 3.0), run=st.floats(0.25, 6.0), asks=st.integers(0, 4), part=st.floats(0.0, 0.9))
def test_whatever_the_loop_it_waits_no_longer_than_it_was_told(
    think: float, run: float, asks: int, part: float
) -> None:
    driver = tried("b", "a")
    for _ in range(asks):
        driver.submit("loop", "a")
        driver.run(run)
        driver.wait(think)
    driver.submit("loop", "a")
    job = driver.submit("other", "b")
    driver.wait(run * part)
    found, asked = re.search(r"rest of this turn \(([0-9.]+) s", told(driver, job) or ""), driver.now
    driver.run(run * (1 - part))
    while driver.loading is None:
        if driver.holding:
            driver.wait(think)
            driver.submit("loop", "a")
        else:
            driver.run(run)
    rounding = 0.5
    assert driver.now - asked <= (float(found[1]) if found else 0.0) + rounding + run


def test_a_model_that_was_not_loaded_before_waits_for_the_length_of_a_load() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("loop", "a")
    job = driver.submit("other", "b")
    driver.wait(1.0)
    assert told(driver, job) == (
        "Its model was not loaded before, so at most 2.0 s more of this turn, the job that runs then, and one load of "
        "3.0 s."
    )
    driver.wait(3.0)
    assert told(driver, job) == (
        "Its model was not loaded before, so at most the job that runs, and one load of 3.0 s."
    )


def test_each_other_model_that_is_not_loaded_may_have_a_turn_before_it() -> None:
    driver = tried("b", "c", "a")
    driver.submit("loop", "a")
    driver.submit("second", "b")
    job = driver.submit("third", "c")
    assert told(driver, job) == (
        "At most the rest of this turn (19 s of 20 s), the job that runs then, 1 more turn of 20 s with a load and a "
        "job each, and one load of 3.0 s."
    )


def test_a_load_that_goes_on_begins_a_turn_of_its_model() -> None:
    driver = tried("a", "b")
    driver.submit("first", "a")
    same = driver.submit("second", "a")
    assert driver.loading is not None
    assert told(driver, same) == (
        "The load that goes on and the job that it is for come first; it takes turns with 1 other program, by slot "
        "time."
    )
    job = driver.submit("third", "b")
    assert told(driver, job) == (
        "At most the load that goes on, the turn after it (20 s), the job that runs then, and one load of 3.0 s."
    )


def test_models_that_are_loaded_together_take_turns_job_by_job() -> None:
    driver = Driver(resident=(key("a"), key("b")), room=2)
    driver.submit("first", "a")
    driver.submit("second", "a")
    job = driver.submit("third", "b")
    assert told(driver, job) == "It takes turns with 1 other loaded model, job by job."
    driver.run()
    assert driver.running is not None
    assert driver.running.job is job


def test_while_memory_is_freed_nothing_counts_as_loaded() -> None:
    driver = tried("a")
    driver.pause(unload=True)
    job = driver.submit("x", "a")
    driver.resume()
    assert told(driver, job) == "At most the job that runs, and one load of 3.0 s."


def test_the_one_for_which_its_model_was_loaded_is_told_who_may_go_first() -> None:
    driver = Driver(resident=(key("a"),))
    job = driver.submit("slow", "b", lane=Lane.BACKGROUND)
    driver.submit("click", "b", lane=Lane.INTERACTIVE)
    driver.load(4.0)
    assert told(driver, job) == "Its model was loaded for it, so at most 7 interactive jobs of that model may go first."


def test_nothing_bounds_a_wait_in_a_pause_or_an_outage_or_for_an_own_load() -> None:
    driver = Driver(resident=(key("a"),))
    driver.pause()
    job = driver.submit("x", "a")
    assert told(driver, job) is None
    driver.resume()
    other = driver.submit("x", "b")
    driver.run()
    assert driver.loading is not None
    assert told(driver, other) is None
    away = Driver(up=False)
    assert told(away, away.submit("x", "a")) is None
    assert told(away, away.submit("x", None)) is None


# --- turns of conversations ---


def rest(left: str) -> str:
    return (
        f"The engine has not kept its prompt, so at most the rest of the turn of conversations ({left} of 20 s) and "
        "the job that runs then; after that, slot time decides."
    )


def test_a_conversation_whose_prompt_was_thrown_out_waits_for_the_turn_of_those_that_are_kept() -> None:
    driver = two()
    job, asked = driver.submit("b"), driver.now
    assert driver.holding
    assert told(driver, job) == rest("11 s")
    driver.wait(0.5)
    driver.submit("a")
    driver.wait(1.5)
    assert told(driver, job) == rest("9.0 s")
    driver.answer_one(1.5)
    while driver.holding:
        assert told(driver, job) != "It is next."
        driver.wait(0.5)
        if driver.holding:
            driver.submit("a")
            driver.answer_one()
    assert driver.client() == "b"
    assert 3.5 < driver.now - asked <= 11.0 + 3.0


def test_whoever_is_kept_only_until_what_runs_has_thrown_it_out_is_told_so() -> None:
    driver = two()
    driver.submit("b")
    driver.wait(8.0)
    assert driver.client() == "b"
    job = driver.submit("a")
    assert driver.turn.strands["a"].cached == [("a", "")]
    assert told(driver, job) == rest("20 s")
    driver.wait(5.0)
    assert told(driver, job) == rest("20 s"), "how much of it is the prompt that begins the turn is not known yet"


def test_a_guest_waits_for_no_such_turn() -> None:
    driver = two()
    driver.submit("a")
    assert told(driver, driver.submit("person")) == "It is next."


def test_a_prompt_that_a_load_has_lost_does_not_count_to_the_turn_while_it_may_be_computed() -> None:
    driver = two()
    driver.wait(30.0)
    driver.submit("z", "m")
    driver.load(3.0)
    driver.run(1.0)
    driver.submit("a")
    driver.load(3.0)
    job = driver.submit("z", "m")
    driver.wait(5.0)
    assert told(driver, job) == (
        "At most the rest of this turn (20 s of 20 s), the job that runs then, and one load of 13 s."
    )


def test_the_job_to_which_a_load_is_bound_begins_a_turn_of_conversations() -> None:
    driver = two()
    driver.wait(30.0)
    driver.submit("z", "m")
    driver.load(3.0)
    driver.run(1.0)
    driver.submit("a")
    job = driver.submit("b")
    assert driver.loading is not None
    found = told(driver, job)
    assert found is not None
    assert "the rest of the turn of conversations (20 s of 20 s)" in found


def test_with_room_for_all_nothing_is_said_of_conversations() -> None:
    driver = Driver(resident=(key("a"),))
    for client, cached in (("a", 0), ("b", 0), ("a", 1000), ("b", 1000)):
        driver.submit(client)
        driver.run(1.0, prompt=PromptWork(1000, cached, 0.5))
    driver.submit("a")
    assert told(driver, driver.submit("b")) == "It is next."
