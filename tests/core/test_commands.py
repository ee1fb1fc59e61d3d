"""What people order: a pause, an unload, a resume, and a job that goes to another lane."""

from __future__ import annotations

import pytest

from llm_queue.core.events import Outcome, Resolved
from llm_queue.core.jobs import Lane, State
from llm_queue.core.rules import OrderRules
from llm_queue.errors import Draining, LoadFailed, WaitExpired
from tests.core.driver import FLOOR, Driver, key
from tests.core.test_order import looping


def ready(**how: OrderRules) -> Driver:
    return Driver(resident=(key("a"),), **how)  # type: ignore[arg-type]


# --- a pause ---


def test_in_a_pause_what_runs_ends_and_nothing_starts_until_it_is_over() -> None:
    driver = ready()
    first, second = driver.submit(), driver.submit()
    driver.pause()
    driver.run(1.0)
    driver.wait(50.0)
    assert (first.state, second.state) == (State.SUCCEEDED, State.QUEUED)
    assert driver.free
    assert driver.scheduler.wake_at() is None
    driver.resume()
    assert driver.running is not None
    assert driver.running.job is second


def test_what_breaks_in_a_pause_waits_for_its_end_and_keeps_its_place() -> None:
    driver = ready()
    first = driver.submit()
    driver.submit()
    driver.pause()
    driver.run(1.0, Outcome.BROKEN)
    assert first.state is State.QUEUED
    driver.resume()
    assert driver.running is not None
    assert driver.running.job is first


def test_a_max_wait_runs_out_in_a_pause_at_its_time() -> None:
    driver = ready()
    driver.pause()
    job = driver.submit(max_wait=30.0)
    assert driver.scheduler.wake_at() == driver.now + 30.0
    driver.wait(30.0)
    assert isinstance(driver.error(job), WaitExpired)


def test_who_will_not_wait_at_all_is_told_so_in_a_pause() -> None:
    driver = ready()
    driver.pause()
    assert isinstance(driver.error(driver.submit(max_wait=0.0)), WaitExpired)


def test_a_hold_ends_with_a_pause_and_is_billed_for_no_longer() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("other", "b")
    assert driver.holding
    used = driver.turn.used
    driver.wait(0.25)
    driver.pause()
    assert driver.turn.hold is None
    assert driver.turn.used == pytest.approx(used + 0.25)
    driver.wait(100.0)
    driver.resume()
    driver.answer()
    assert driver.loads[-1] == key("b")
    assert driver.turn.held_seconds == pytest.approx(0.25)


def test_a_second_pause_changes_nothing_but_may_ask_for_the_memory() -> None:
    driver = ready()
    driver.pause()
    since = driver.now
    driver.wait(5.0)
    driver.pause()
    assert not driver.unloading
    driver.pause(unload=True)
    assert driver.unloading
    driver.unload()
    driver.pause()
    pause = driver.seat.pause
    assert pause is not None
    assert (pause.since, pause.unloaded) == (since, True)


def test_a_drain_ends_a_pause_and_there_is_none_in_a_drain() -> None:
    driver = ready()
    driver.pause()
    job = driver.submit()
    driver.drain()
    driver.pause(unload=True)
    assert driver.seat.pause is None
    driver.run(1.0)
    assert job.state is State.SUCCEEDED
    assert driver.scheduler.idle


def test_a_stop_ends_a_paused_line() -> None:
    driver = ready()
    driver.pause()
    job = driver.submit()
    driver.stop(Draining())
    assert isinstance(driver.error(job), Draining)
    assert driver.seat.pause is None


def test_a_resume_without_a_pause_changes_nothing() -> None:
    driver = ready()
    driver.resume()
    assert driver.free
    assert driver.loads == []


# --- an outage in it ---


def test_an_outage_goes_on_in_a_pause_and_ends_those_who_wait_at_its_usual_time() -> None:
    driver = ready()
    driver.pause()
    known, unknown = driver.submit(), driver.submit(model=None)
    driver.probe(up=False)
    for _ in range(100):
        if driver.probing:
            driver.probe(up=False)
        driver.wait(1.0)
    assert known.state is unknown.state is State.FAILED
    while not driver.probing:
        driver.wait(0.1)
    driver.probe(up=True)
    assert driver.free
    assert driver.seat.pause is not None


def test_the_end_of_an_outage_starts_nothing_in_a_pause() -> None:
    driver = ready()
    driver.submit(model=None)
    driver.pause()
    job = driver.submit()
    driver.probe(resolved={"x1": Resolved("a", FLOOR)})
    driver.wait(5.0)
    assert driver.free
    assert job.state is State.QUEUED


# --- the memory ---


def test_what_is_loaded_is_unloaded_once_what_runs_has_ended() -> None:
    driver = ready()
    driver.submit()
    driver.pause(unload=True)
    assert not driver.unloading
    driver.run(1.0)
    assert driver.unloading
    driver.unload()
    assert driver.seat.resident == frozenset()
    assert driver.seat.pause is not None
    assert driver.seat.pause.unloaded


def test_what_is_being_loaded_is_unloaded_after_that_and_loaded_again_for_who_still_waits() -> None:
    driver = ready()
    job = driver.submit(model="b")
    driver.pause(unload=True)
    driver.load(3.0)
    assert driver.unloading
    assert job.state is State.QUEUED
    driver.unload()
    driver.wait(5.0)
    assert driver.loads == [key("b")]
    driver.resume()
    assert driver.loads == [key("b"), key("b")]
    driver.work()
    assert job.state is State.SUCCEEDED


def test_a_resume_loads_nothing_by_itself() -> None:
    driver = ready()
    driver.pause(unload=True)
    driver.unload()
    driver.resume()
    driver.wait(5.0)
    assert driver.free
    assert driver.loads == []


def test_a_resume_before_the_unload_has_ended_waits_for_that() -> None:
    driver = ready()
    driver.pause(unload=True)
    job = driver.submit()
    driver.resume()
    assert driver.loading is driver.running is None
    driver.unload()
    assert driver.loading is not None
    driver.work()
    assert job.state is State.SUCCEEDED


def test_a_resume_before_the_unload_has_begun_leaves_all_loaded() -> None:
    driver = ready()
    driver.submit()
    driver.pause(unload=True)
    driver.resume()
    driver.run(1.0)
    assert not driver.unloading
    assert driver.seat.resident == {key("a")}


def test_what_the_upstream_keeps_stays_known_and_is_not_tried_again() -> None:
    driver = ready()
    driver.pause(unload=True)
    driver.unload(error=LoadFailed("no"), left=(key("a"),))
    driver.wait(5.0)
    assert not driver.unloading
    pause = driver.seat.pause
    assert pause is not None
    assert (pause.unloaded, pause.kept) == (False, "no")
    assert driver.seat.resident == {key("a")}


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.REFUSED, Outcome.TIMED_OUT])
def test_an_unload_that_failed_is_tried_again_only_when_asked(outcome: Outcome) -> None:
    driver = ready()
    driver.pause(unload=True)
    driver.unload(outcome, error=LoadFailed("no"))
    driver.wait(5.0)
    assert not driver.unloading
    driver.pause(unload=True)
    assert driver.unloading


def test_an_unload_is_tried_again_after_an_outage_and_when_a_busy_upstream_is_free() -> None:
    driver = ready()
    driver.pause(unload=True)
    driver.unload(Outcome.UNREACHABLE)
    assert not driver.unloading
    driver.probe()
    assert driver.unloading
    driver.unload(Outcome.BUSY)
    assert not driver.unloading
    driver.wait(2.0)
    assert driver.unloading


def test_while_it_is_asked_what_is_loaded_nothing_is_unloaded() -> None:
    driver = ready()
    driver.submit()
    driver.run(1.0, surprise=True)
    assert driver.asking
    driver.pause(unload=True)
    assert not driver.unloading
    driver.answer()
    assert driver.unloading


# --- another lane ---


def test_a_job_that_is_moved_goes_with_its_new_lane() -> None:
    driver = ready()
    driver.submit("w")
    slow, other = driver.submit("x", lane=Lane.BACKGROUND), driver.submit("y")
    driver.move(slow, Lane.INTERACTIVE)
    assert driver.line.waiting_in(Lane.BACKGROUND) == 0
    assert driver.line.waiting_in(Lane.INTERACTIVE) == 1
    driver.work()
    assert driver.ran[1:] == [slow.id, other.id]


def test_a_moved_job_keeps_its_place_among_those_of_its_client() -> None:
    driver = ready()
    driver.submit("w")
    early = driver.submit("x", lane=Lane.BACKGROUND)
    late = driver.submit("x")
    driver.move(early, Lane.NORMAL)
    driver.work()
    assert driver.ran[1:] == [early.id, late.id]


def test_what_runs_or_has_ended_stays_in_its_lane() -> None:
    driver = ready()
    job = driver.submit()
    driver.move(job, Lane.BACKGROUND)
    assert job.lane is Lane.NORMAL
    driver.run(1.0)
    driver.move(job, Lane.BACKGROUND)
    assert job.lane is Lane.NORMAL
    assert driver.line.idle


def test_a_job_that_is_tried_again_can_be_moved() -> None:
    driver = ready()
    job, other = driver.submit("x"), driver.submit("y")
    driver.pause()
    driver.run(1.0, Outcome.BROKEN)
    driver.move(job, Lane.BACKGROUND)
    driver.resume()
    driver.work()
    assert driver.ran == [job.id, other.id, job.id]


def test_a_job_whose_model_is_not_known_yet_can_be_moved() -> None:
    driver = ready()
    job = driver.submit(model=None)
    driver.move(job, Lane.INTERACTIVE)
    assert driver.scheduler.waiting_by_lane()[Lane.INTERACTIVE] == 1
    driver.probe(resolved={job.id: Resolved("a", FLOOR)})
    assert driver.running is not None


def test_a_job_that_is_moved_during_its_load_still_runs_after_it() -> None:
    driver = ready()
    job = driver.submit("x", "b", lane=Lane.INTERACTIVE)
    other = driver.submit("y", "b", lane=Lane.NORMAL)
    driver.move(job, Lane.BACKGROUND)
    driver.load(3.0)
    assert driver.running is not None
    assert driver.running.job is job
    driver.run(1.0)
    assert driver.ran == [job.id, other.id]


def test_a_job_that_is_bound_to_its_load_stays_so_wherever_it_goes() -> None:
    driver = ready()
    job = driver.submit("x", "b")
    other = driver.submit("y", "b")
    driver.pause()
    driver.load(3.0)
    driver.move(job, Lane.BACKGROUND)
    driver.resume()
    driver.work()
    assert driver.ran == [job.id, other.id]


def test_a_load_is_billed_to_the_lane_to_which_its_job_was_moved() -> None:
    driver = ready()
    job = driver.submit("x", "b")
    driver.submit("x", "b", lane=Lane.BACKGROUND)
    driver.submit("y", "b", lane=Lane.BACKGROUND)
    driver.move(job, Lane.BACKGROUND)
    driver.load(3.0)
    driver.run(1.0)
    driver.work()
    assert [name[0] for name in driver.ran] == ["x", "y", "x"]


def test_a_lane_to_which_a_job_comes_has_not_been_passed_over_before() -> None:
    driver = ready(rules=OrderRules(lane_burst=2))
    driver.submit("w")
    moved = driver.submit("x", lane=Lane.NORMAL)
    for _ in range(5):
        driver.submit("y", lane=Lane.INTERACTIVE)
    driver.run(1.0)
    driver.run(1.0)
    driver.move(moved, Lane.BACKGROUND)
    driver.move(moved, Lane.NORMAL)
    driver.work()
    assert driver.ran.index(moved.id) == 5


def test_a_move_to_the_same_lane_changes_nothing_and_a_hold_follows_a_move() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    loads = len(driver.loads)
    job = driver.submit("other", "b")
    driver.move(job, Lane.NORMAL)
    assert driver.holding
    driver.move(job, Lane.INTERACTIVE)
    assert not driver.holding, "nobody of a lower lane is waited for"
    assert driver.loads[loads:] == [key("b")]


# --- what is shown ---


def test_in_a_pause_no_start_is_known_but_of_what_runs() -> None:
    driver = ready()
    driver.submit()
    driver.run(1.0)
    running, waiting = driver.submit(), driver.submit()
    driver.pause()
    shown = driver.scheduler.forecast(driver.now, 10)
    assert [(one.job, one.start_in) for one in shown] == [(running, 0.0), (waiting, None)]
    driver.resume()
    assert driver.scheduler.forecast(driver.now, 10)[1].start_in == pytest.approx(1.0)


def test_what_will_be_unloaded_is_shown_as_loaded_again() -> None:
    driver = ready()
    driver.submit()
    waiting = driver.submit()
    driver.pause(unload=True)
    assert [(one.job, one.load) for one in driver.scheduler.forecast(driver.now, 10)][1:] == [(waiting, True)]


def test_a_moved_job_is_shown_where_it_goes() -> None:
    driver = ready()
    driver.submit("w")
    other, moved = driver.submit("x"), driver.submit("y", lane=Lane.BACKGROUND)
    driver.move(moved, Lane.INTERACTIVE)
    assert [one.job for one in driver.scheduler.forecast(driver.now, 10)][1:] == [moved, other]
