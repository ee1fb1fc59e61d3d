"""Events in, actions out: attempts, loads, outages, waits and ends."""

from __future__ import annotations

import itertools

import pytest

from llm_queue.core.actions import Abort, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad
from llm_queue.core.events import AttemptEnded, Outcome, ResidentReported, Resolved
from llm_queue.core.jobs import Lane, State
from llm_queue.core.verdict import RetryLimits
from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    ConnectionLost,
    Draining,
    LoadFailed,
    LoadTimedOut,
    LoopDetected,
    ModelNotFound,
    PromptTooLong,
    QueueError,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
    WaitExpired,
)
from tests.core.driver import FLOOR, Driver, key


def ready() -> Driver:
    return Driver(resident=(key("a"),))


# --- attempts ---


def test_a_job_runs_and_succeeds() -> None:
    driver = ready()
    job = driver.submit()
    driver.run(2.0)
    assert job.state is State.SUCCEEDED
    assert driver.error(job) is None
    assert (job.attempts, job.run_seconds) == (1, 2.0)
    assert driver.scheduler.idle
    assert driver.scheduler.counts.ended == {State.SUCCEEDED: 1}


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.TIMED_OUT])
def test_a_failed_attempt_is_repeated_once(outcome: Outcome) -> None:
    driver = ready()
    job = driver.submit()
    driver.run(1.0, outcome)
    assert driver.running is not None
    assert driver.running.job is job
    assert any(isinstance(action, Requeued) and action.job is job for action in driver.log)
    driver.run()
    assert job.state is State.SUCCEEDED
    assert (job.attempts, driver.scheduler.counts.retries) == (2, 1)


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [(Outcome.BROKEN, State.FAILED, UpstreamBroke), (Outcome.TIMED_OUT, State.TIMED_OUT, AttemptTimedOut)],
)
def test_the_last_attempt_decides(outcome: Outcome, state: State, error: type[Exception]) -> None:
    driver = ready()
    job = driver.submit()
    driver.run(1.0, Outcome.BROKEN)
    driver.run(1.0, outcome)
    assert job.state is state
    assert isinstance(driver.error(job), error)
    assert driver.scheduler.idle


def test_the_number_of_attempts_is_a_setting() -> None:
    driver = Driver(resident=(key("a"),), limits=RetryLimits(max_attempts=4))
    job = driver.submit()
    for _ in range(4):
        assert job.state is State.RUNNING
        driver.run(1.0, Outcome.BROKEN)
    assert job.state is State.FAILED


def test_a_repeated_job_keeps_its_place() -> None:
    driver = ready()
    first, second = driver.submit(), driver.submit()
    driver.run(1.0, Outcome.BROKEN)
    driver.run()
    driver.run()
    assert driver.ran == [first.id, first.id, second.id]


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.TIMED_OUT])
def test_nothing_is_repeated_of_which_the_caller_has_seen_a_part(outcome: Outcome) -> None:
    driver = ready()
    job = driver.submit()
    driver.run(1.0, outcome, commit=True, error=UpstreamBroke())
    assert job.state is (State.TIMED_OUT if outcome is Outcome.TIMED_OUT else State.FAILED)
    assert job.attempts == 1


def test_what_the_upstream_refuses_is_not_repeated() -> None:
    driver = ready()
    job = driver.submit()
    refused = UpstreamRefused("no such option", status=422)
    driver.run(1.0, Outcome.REFUSED, error=refused)
    assert job.state is State.FAILED
    assert driver.error(job) is refused


def test_the_next_job_starts_only_when_the_attempt_has_really_ended() -> None:
    driver = ready()
    first = driver.submit()
    driver.submit()
    driver.cancel(first)
    driver.wait(100.0)
    assert driver.ran == [first.id]
    driver.run(0.0, Outcome.CANCELLED)
    assert len(driver.ran) == 2


# --- cancellation ---


def test_a_cancelled_job_in_the_line_is_gone_at_once() -> None:
    driver = ready()
    driver.submit()
    job = driver.submit()
    driver.cancel(job)
    assert job.state is State.CANCELLED
    assert isinstance(driver.error(job), Cancelled)
    driver.run()
    assert job.id not in driver.ran


def test_a_cancelled_attempt_is_aborted_once_and_its_job_ends_with_it() -> None:
    driver = ready()
    job = driver.submit()
    driver.cancel(job)
    driver.cancel(job)
    assert sum(isinstance(action, Abort) for action in driver.log) == 1
    assert job.state is State.RUNNING
    driver.run(0.1, Outcome.CANCELLED)
    assert job.state is State.CANCELLED


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.TIMED_OUT, Outcome.UNREACHABLE, Outcome.BUSY])
def test_a_cancelled_job_is_not_repeated(outcome: Outcome) -> None:
    driver = ready()
    job = driver.submit()
    driver.cancel(job)
    driver.run(0.1, outcome)
    assert job.state is State.CANCELLED
    assert not driver.scheduler.waiting


def test_an_answer_that_came_before_the_abort_did_is_an_answer() -> None:
    driver = ready()
    job = driver.submit()
    driver.cancel(job)
    driver.run(0.1)
    assert job.state is State.SUCCEEDED


def test_cancelling_what_has_ended_does_nothing() -> None:
    driver = ready()
    job = driver.submit()
    driver.run()
    driver.cancel(job)
    assert job.state is State.SUCCEEDED
    assert len(driver.settled[job.id]) == 1


def test_a_repeated_job_can_be_cancelled_while_it_waits() -> None:
    driver = ready()
    driver.submit("y")
    job = driver.submit("x")
    driver.submit("y")
    driver.run()
    driver.run(50.0, Outcome.BROKEN)
    assert job.state is State.QUEUED
    driver.cancel(job)
    assert job.state is State.CANCELLED
    driver.work()
    assert driver.ran.count(job.id) == 1


# --- loads ---


def test_a_key_that_is_not_resident_is_loaded_first_and_an_attempt_starts_after_it() -> None:
    driver = Driver()
    job = driver.submit()
    assert isinstance(driver.log[-1], StartLoad)
    assert job.state is State.QUEUED
    driver.load(5.0)
    assert isinstance(driver.log[-1], StartAttempt)
    assert (job.state, job.load_seconds, job.started_at) == (State.RUNNING, 5.0, driver.now)
    assert driver.scheduler.counts.loads == 1


def test_a_load_goes_on_when_its_caller_leaves() -> None:
    driver = Driver()
    job = driver.submit()
    driver.cancel(job)
    assert job.state is State.CANCELLED
    assert not any(isinstance(action, Abort) for action in driver.log)
    other = driver.submit("y")
    assert other.state is State.QUEUED
    driver.load()
    assert driver.running is not None
    assert driver.running.job is other
    assert driver.loads == [key("a")]


def test_a_load_may_end_when_nobody_is_left() -> None:
    driver = Driver()
    driver.cancel(driver.submit())
    driver.load()
    assert driver.scheduler.idle
    assert driver.scheduler.wake_at() is None


@pytest.mark.parametrize(
    ("outcome", "error", "state"),
    [(Outcome.REFUSED, LoadFailed("no memory"), State.FAILED), (Outcome.TIMED_OUT, LoadTimedOut(), State.TIMED_OUT)],
)
def test_a_failed_load_fails_all_who_wait_for_it_and_refuses_the_key_for_a_while(
    outcome: Outcome, error: LoadFailed | LoadTimedOut, state: State
) -> None:
    driver = Driver()
    jobs = [driver.submit(lane=lane) for lane in Lane for _ in range(20)]
    other = driver.submit("y", "b")
    driver.load(2.0, outcome, error=error)
    assert {job.state for job in jobs} == {state}
    assert all(driver.error(job) is error for job in jobs)
    assert driver.loads == [key("a"), key("b")]
    driver.wait(29.0)
    late = driver.submit()
    assert driver.error(late) is error
    assert other.state is State.QUEUED
    driver.wait(1.0)
    assert driver.submit().state is State.QUEUED
    assert driver.scheduler.counts.loads_failed == 1


def test_a_model_that_is_not_there_any_more_fails_who_waits_for_it_and_refuses_nobody_later() -> None:
    driver = Driver()
    waiting = [driver.submit(), driver.submit()]
    driver.load(0.1, Outcome.REFUSED, error=ModelNotFound("it is gone"))
    assert all(isinstance(driver.error(job), ModelNotFound) for job in waiting)
    late = driver.submit()  # it was pulled again
    driver.work()
    assert late.state is State.SUCCEEDED


def test_a_model_that_was_gone_at_a_raise_has_no_lower_limit_for_that() -> None:
    driver = ready()
    driver.submit()
    raised = driver.submit(wanted_ctx=32768)
    driver.run()
    driver.load(0.1, Outcome.REFUSED, error=ModelNotFound("it is gone"))
    assert isinstance(driver.error(raised), ModelNotFound)
    again = driver.submit(wanted_ctx=32768)
    driver.work()
    assert (again.state, again.key) == (State.SUCCEEDED, key("a", 32768))


def test_an_upstream_that_goes_away_during_a_load_is_an_outage_and_fails_nobody() -> None:
    driver = Driver()
    jobs = [driver.submit() for _ in range(20)]
    driver.load(1.0, Outcome.BROKEN, error=ConnectionLost())
    assert driver.seat.outage is not None
    driver.probe()
    driver.load()
    for _ in jobs:
        driver.run()
    assert {job.state for job in jobs} == {State.SUCCEEDED}


def test_a_load_that_takes_the_upstream_with_it_again_and_again_fails() -> None:
    driver = Driver()
    job = driver.submit()
    driver.load(1.0, Outcome.BROKEN, error=ConnectionLost())
    driver.probe()
    driver.load(1.0, Outcome.BROKEN, error=ConnectionLost("it died"))
    assert job.state is State.FAILED
    assert driver.scheduler.counts.loads_failed == 1


def test_a_failed_load_is_not_repeated() -> None:
    driver = Driver()
    driver.submit()
    driver.load(1.0, Outcome.REFUSED)
    driver.wait(100.0)
    assert len(driver.loads) == 1
    assert driver.scheduler.idle


def test_a_raise_that_fails_makes_the_last_good_size_the_limit_and_says_it() -> None:
    driver = ready()
    small = driver.submit()
    large = driver.submit(wanted_ctx=32768)
    larger = driver.submit(wanted_ctx=65536)
    driver.run()
    driver.load(1.0, Outcome.REFUSED, error=LoadFailed("no memory."))
    assert small.state is State.SUCCEEDED
    assert str(FLOOR) in str(driver.error(large))
    assert str(FLOOR) in str(driver.error(larger))
    assert driver.loads == [key("a", 32768)]
    driver.wait(3600.0)
    again = driver.submit(wanted_ctx=32768)
    assert isinstance(driver.error(again), LoadFailed)
    assert str(FLOOR) in str(driver.error(again))


def test_a_raise_that_fails_lets_those_run_at_the_last_good_size_for_whom_it_was_only_estimated() -> None:
    driver = ready()
    driver.submit()
    fitted, other, asked = (driver.submit(wanted_ctx=size) for size in (32768, 65536, 32768))
    fitted.fitted_ctx, other.fitted_ctx = 32768, 65536
    driver.run()
    driver.load(1.0, Outcome.REFUSED, error=LoadFailed("no memory."))
    assert isinstance(driver.error(asked), LoadFailed)
    assert (fitted.state.ended, fitted.wanted_ctx, fitted.fitted_ctx) == (False, FLOOR, None)
    driver.work()
    assert (fitted.state, other.state) == (State.SUCCEEDED, State.SUCCEEDED)
    assert {job.key for job in (fitted, other)} == {key("a", FLOOR)}


def test_a_first_load_that_fails_is_the_end_also_for_a_prompt_that_was_fitted() -> None:
    driver = Driver()
    job = driver.submit(wanted_ctx=32768)
    job.fitted_ctx = 32768
    driver.load(1.0, Outcome.REFUSED)
    assert job.state is State.FAILED


def test_a_raise_that_fails_leaves_those_alone_who_did_not_ask_for_it() -> None:
    driver = ready()
    driver.submit()
    driver.submit(wanted_ctx=32768)
    driver.submit("y")
    driver.run()
    while driver.running:
        driver.run()
    driver.load(1.0, Outcome.REFUSED)
    job = driver.submit("y")
    assert job.state is not State.FAILED
    driver.work()
    assert job.state is State.SUCCEEDED


def test_a_raise_becomes_current_when_its_load_succeeded_and_never_costs_another() -> None:
    driver = ready()
    for _ in range(3):
        driver.submit(wanted_ctx=16384)
        driver.work()
        driver.submit()
        driver.work()
    assert driver.loads == [key("a", 16384)]


def test_what_was_loaded_before_we_came_is_adopted() -> None:
    driver = Driver(resident=(key("a", 16384),))
    driver.submit()
    assert driver.running is not None
    assert driver.running.key == key("a", 16384)
    assert driver.loads == []


def test_what_is_loaded_after_an_outage_is_adopted() -> None:
    driver = ready()
    job = driver.submit()
    driver.run(0.1, Outcome.UNREACHABLE)
    driver.reported = [key("a", 32768)]
    driver.probe()
    assert driver.running is not None
    assert (driver.running.job, driver.running.key) == (job, key("a", 32768))
    assert driver.loads == []


def test_a_busy_upstream_does_not_fail_a_load() -> None:
    driver = Driver()
    job = driver.submit()
    driver.load(0.1, Outcome.BUSY, error=UpstreamBusy())
    assert job.state is State.QUEUED
    driver.wait(0.1)
    driver.load()
    driver.run()
    assert job.state is State.SUCCEEDED
    assert driver.scheduler.counts.loads_failed == 0


def test_loads_that_were_saved_are_counted() -> None:
    driver = ready()
    driver.submit("x", "a")
    for _ in range(10):
        driver.submit("x", "a")
        driver.submit("y", "b")
    driver.work(run=0.1)
    assert driver.scheduler.counts.loads == 1
    assert driver.scheduler.counts.reloads_avoided == 19


# --- what is resident ---


def test_what_is_resident_is_asked_for_after_a_minute_without_work() -> None:
    driver = ready()
    driver.wait(59.0)
    driver.submit()
    assert driver.running is not None
    driver.run()
    driver.wait(61.0)
    job = driver.submit()
    assert isinstance(driver.log[-1], AskResident)
    driver.wait(30.0)
    assert job.state is State.QUEUED
    driver.answer([])
    assert driver.loading is not None


def test_if_the_upstream_does_not_say_what_is_resident_the_old_answer_stands() -> None:
    driver = ready()
    driver.wait(61.0)
    job = driver.submit()
    driver.asking = False
    driver.act(driver.scheduler.handle(ResidentReported(None), driver.now))
    assert job.state is State.RUNNING


def test_an_attempt_that_had_to_load_its_model_makes_us_ask() -> None:
    driver = ready()
    driver.submit()
    driver.submit()
    driver.run(5.0, surprise=True)
    assert driver.asking
    assert driver.running is None
    driver.answer()
    assert driver.running is not None
    assert driver.scheduler.counts.surprise_loads == 1


# --- outages ---


def test_nothing_starts_before_the_upstream_was_seen() -> None:
    driver = Driver(resident=(key("a"),), up=False)
    job = driver.submit()
    assert (job.state, driver.free, driver.probing) == (State.QUEUED, True, True)
    driver.probe()
    assert job.state is State.RUNNING


@pytest.mark.parametrize("times", [1, 7])
def test_an_unreachable_upstream_is_no_attempt(times: int) -> None:
    driver = ready()
    job = driver.submit()
    for _ in range(times):
        driver.run(0.1, Outcome.UNREACHABLE)
        assert job.state is State.QUEUED
        driver.probe()
    driver.run(1.0, Outcome.BROKEN)
    driver.run()
    assert job.state is State.SUCCEEDED
    assert job.attempts == 2


def test_jobs_survive_an_outage_in_their_order() -> None:
    driver = ready()
    jobs = [driver.submit() for _ in range(20)]
    driver.run(0.1, Outcome.UNREACHABLE)
    for _ in range(5):
        driver.probe(up=False)
        driver.wait(1.0)
    driver.probe()
    driver.work()
    assert driver.ran[1:] == [job.id for job in jobs]


def test_probes_come_at_once_then_ever_more_seldom_up_to_one_a_second() -> None:
    driver = ready()
    driver.submit()
    driver.run(0.1, Outcome.UNREACHABLE)
    times = []
    for _ in range(7):
        assert driver.probing
        times.append(driver.now)
        driver.probe(up=False)
        wake_at = driver.scheduler.wake_at()
        assert wake_at is not None
        driver.wait(wake_at - driver.now)
    gaps = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@pytest.mark.parametrize(("seen", "after"), [(True, 60.0), (False, 10.0)])
def test_an_outage_is_given_up_after_a_while_and_sooner_where_nobody_was_ever_there(seen: bool, after: float) -> None:
    driver = Driver(up=False)
    if seen:
        driver.probe()
    job = driver.submit()
    if seen:
        driver.load(0.0, Outcome.UNREACHABLE)
    driver.wait(after - 0.1)
    assert job.state is State.QUEUED
    driver.wait(0.1)
    assert isinstance(driver.error(job), UpstreamUnreachable)
    late = driver.submit()
    assert isinstance(driver.error(late), UpstreamUnreachable)
    if driver.probing:
        driver.probe()
    assert driver.submit().state is State.QUEUED
    assert driver.loading is not None


def test_nobody_waits_for_the_end_of_a_loop() -> None:
    driver = ready()
    first, second = driver.submit(), driver.submit()
    driver.run(0.1, Outcome.UNREACHABLE)
    driver.probe(failure=LoopDetected("it is us"))
    for job in (first, second, driver.submit()):
        error = driver.error(job)
        assert isinstance(error, LoopDetected)
        assert error.message == "it is us"
    driver.wait(1.0)
    driver.probe()
    assert driver.submit().state is State.RUNNING


def test_an_attempt_that_ends_in_a_loop_is_not_repeated_and_ends_the_wait_of_all() -> None:
    driver = ready()
    first, second = driver.submit(), driver.submit()
    driver.run(0.1, Outcome.REFUSED, error=LoopDetected("it is us"))
    for job in (first, second, driver.submit()):
        assert isinstance(driver.error(job), LoopDetected)
    assert driver.ran == [first.id]
    driver.probe()
    assert driver.submit().state is State.RUNNING


def test_what_was_a_loop_may_be_an_outage_now() -> None:
    driver = Driver(up=False)
    driver.probe(failure=LoopDetected())
    driver.wait(1.0)
    driver.probe(up=False)
    assert isinstance(driver.error(driver.submit()), UpstreamUnreachable)


def test_a_load_that_ends_in_a_loop_says_nothing_of_its_model() -> None:
    driver = Driver(resident=(key("a"),))
    larger, other = driver.submit(wanted_ctx=16384), driver.submit(model="b")
    driver.load(0.1, Outcome.REFUSED, LoopDetected("it is us"))
    assert isinstance(driver.error(larger), LoopDetected)
    assert isinstance(driver.error(other), LoopDetected)
    driver.probe()
    driver.submit(wanted_ctx=16384)
    driver.load()
    assert driver.running is not None
    assert driver.running.key == key("a", 16384)


def test_a_job_that_comes_back_into_an_outage_that_was_given_up_is_answered() -> None:
    driver = ready()
    running = driver.submit()
    driver.submit("y", None)
    assert driver.probing
    driver.wait(70.0)
    driver.run(0.1, Outcome.BROKEN)
    assert isinstance(driver.error(running), UpstreamUnreachable)


def test_the_upstream_is_not_probed_twice_at_once() -> None:
    driver = ready()
    driver.submit("y", None)
    driver.submit("y", None)
    driver.wait(100.0)
    assert sum(isinstance(action, Probe) for action in driver.log) == 2  # the first is that of the start


def test_a_job_whose_model_is_not_known_yet_is_resolved_by_the_probe() -> None:
    driver = Driver(up=False)
    good, bad, gone = driver.submit(model=None, wanted_ctx=32768), driver.submit(model=None), driver.submit(model=None)
    driver.cancel(gone)
    missing = ModelNotFound()
    resolved: dict[str, Resolved | QueueError] = {
        good.id: Resolved("a", 16384),
        bad.id: missing,
        gone.id: Resolved("a", 8192),
    }
    driver.probe(resolved=resolved)
    assert driver.error(bad) is missing
    assert gone.state is State.CANCELLED
    assert driver.loads == [key("a", 16384)]
    assert (good.model, good.wanted_ctx) == ("a", 16384)


def test_a_job_that_came_during_the_probe_is_asked_for_again() -> None:
    driver = Driver(up=False)
    job = driver.submit(model=None)
    driver.probe()
    assert driver.probing
    assert job.state is State.QUEUED
    driver.probe(resolved={job.id: Resolved("a", FLOOR)})
    assert driver.loading is not None


def test_nobody_is_bound_to_a_load_that_an_outage_undid() -> None:
    driver = Driver(resident=(key("b"),))
    driver.submit("x", "a")
    driver.submit("y", None)
    driver.load()
    assert driver.free
    driver.reported = [key("b")]
    urgent = driver.submit("i", "b", lane=Lane.INTERACTIVE)
    driver.probe(resolved={"y2": UpstreamBroke()})
    assert urgent.state is State.RUNNING


def test_a_busy_upstream_is_tried_again_ever_more_seldom_and_it_is_no_attempt() -> None:
    driver = ready()
    job = driver.submit()
    gaps = []
    for _ in range(7):
        driver.run(0.0, Outcome.BUSY, error=UpstreamBusy())
        assert driver.running is None
        wake_at = driver.scheduler.wake_at()
        assert wake_at is not None
        gaps.append(round(wake_at - driver.now, 3))
        driver.wait(wake_at - driver.now)
    assert gaps == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    driver.run()
    assert (job.state, job.attempts) == (State.SUCCEEDED, 1)
    driver.submit()
    driver.run(0.0, Outcome.BUSY)
    wake_at = driver.scheduler.wake_at()
    assert wake_at is not None
    assert wake_at - driver.now == pytest.approx(0.1)


# --- max wait ---


def test_with_a_max_wait_of_zero_a_job_runs_now_or_never() -> None:
    driver = ready()
    now = driver.submit(max_wait=0.0)
    never = driver.submit(max_wait=0.0)
    assert now.state is State.RUNNING
    assert never.state is State.EXPIRED
    assert isinstance(driver.error(never), WaitExpired)


def test_a_max_wait_is_enforced_while_the_job_waits() -> None:
    driver = ready()
    driver.submit()
    job = driver.submit(max_wait=5.0)
    assert driver.scheduler.wake_at() == driver.now + 5.0
    driver.wait(4.9)
    assert job.state is State.QUEUED
    driver.wait(0.1)
    assert job.state is State.EXPIRED
    assert job.ended_at == job.submitted_at + 5.0


def test_a_max_wait_is_enforced_in_an_outage_too() -> None:
    driver = Driver(up=False)
    job, unresolved = driver.submit(max_wait=5.0), driver.submit(model=None, max_wait=4.0)
    driver.wait(5.0)
    assert (job.state, unresolved.state) == (State.EXPIRED, State.EXPIRED)


def test_max_waits_are_kept_after_a_job_with_one_ended_for_another_reason() -> None:
    driver = Driver(resident=(key("a"),), up=False)
    unknown = driver.submit(model=None, max_wait=1.0)
    driver.probe(resolved={unknown.id: ModelNotFound()})
    driver.submit()
    job = driver.submit(max_wait=2.0)
    driver.wait(2.0)
    assert job.state is State.EXPIRED


def test_a_load_counts_as_a_start() -> None:
    driver = Driver()
    job = driver.submit(max_wait=0.0)
    driver.load(100.0)
    driver.run()
    assert job.state is State.SUCCEEDED


def test_a_repeated_job_does_not_expire() -> None:
    driver = ready()
    driver.submit("y")
    job = driver.submit("x", max_wait=5.0)
    driver.submit("y")
    driver.run()
    driver.run(50.0, Outcome.BROKEN)
    assert job.state is State.QUEUED
    driver.wait(100.0)
    assert job.state is State.QUEUED


def test_whether_a_job_can_start_now_is_not_known_before_the_upstream_has_said_what_it_has() -> None:
    driver = ready()
    driver.wait(61.0)
    one, two = driver.submit(max_wait=0.0), driver.submit(max_wait=0.0)
    assert driver.asking
    assert (one.state, two.state) == (State.QUEUED, State.QUEUED)
    assert driver.scheduler.wake_at() is None
    driver.answer()
    assert (one.state, two.state) == (State.RUNNING, State.EXPIRED)


# --- drain and stop ---


def test_a_drain_lets_all_that_is_here_finish() -> None:
    driver = Driver()
    jobs = [driver.submit(f"c{number}", "ab"[number % 2]) for number in range(10)]
    driver.drain()
    driver.work()
    assert {job.state for job in jobs} == {State.SUCCEEDED}
    assert driver.scheduler.idle


def test_a_stop_answers_everybody_and_aborts_what_runs() -> None:
    driver = ready()
    running, *waiting = [driver.submit() for _ in range(5)]
    error = Draining(retry_after=5)
    driver.stop(error)
    assert all(driver.error(job) is error for job in waiting)
    assert driver.aborting == Abort(running, error)
    driver.run(0.0, Outcome.CANCELLED, error=error)
    assert driver.error(running) is error
    assert driver.scheduler.idle


def test_a_stop_during_a_load_answers_its_job_and_starts_nothing_after_it() -> None:
    driver = Driver()
    job = driver.submit()
    driver.stop(Draining())
    assert job.state is State.CANCELLED
    driver.load()
    assert driver.scheduler.idle


def test_a_stop_in_an_outage_answers_those_whose_model_is_not_known() -> None:
    driver = Driver(up=False)
    job = driver.submit(model=None)
    driver.stop(Draining())
    assert isinstance(driver.error(job), Draining)


def test_when_nothing_is_to_be_done_nothing_wakes_it() -> None:
    driver = ready()
    driver.submit(max_wait=10.0)
    driver.submit("y", max_wait=20.0)
    driver.work()
    assert driver.scheduler.wake_at() is None


def test_each_job_is_settled_once() -> None:
    driver = ready()
    for number in range(30):
        driver.submit(f"c{number % 3}", "ab"[number % 2], lane=Lane(number % 3))
    driver.work()
    assert all(len(errors) == 1 for errors in driver.settled.values())
    assert sum(isinstance(action, Settle) for action in driver.log) == 30


def test_a_hold_is_no_longer_for_somebody_who_could_not_wait_for_it() -> None:
    driver = Driver()
    driver.submit("w", "b")
    driver.load(1.0)
    driver.run(1.0)
    driver.submit("loop", "a")
    driver.load(1.0)
    driver.run(1.0)
    driver.submit("loop", "a")
    driver.run(1.0)
    driver.submit("w", "b")  # a load of it took 1 s, so the loop is waited for at most three quarters of one
    hold = driver.seat.hold
    assert hold is not None
    assert hold.until == pytest.approx(driver.now + 0.75)
    hasty = driver.submit("w", "c", max_wait=0.0)  # a load of this one is taken to cost 3 s
    assert hasty.state is State.EXPIRED
    assert driver.seat.hold == hold


def test_a_model_that_the_upstream_has_unloaded_is_loaded_by_the_line_for_the_next_job() -> None:
    driver = Driver(resident=(key("a"),))
    job, following = driver.submit(), driver.submit()
    driver.running = None
    driver.act(driver.scheduler.handle(AttemptEnded(job, Outcome.SUCCEEDED, unloaded=True), driver.now))
    assert driver.loading is not None
    assert driver.loading.job is following
    assert driver.scheduler.counts.surprise_loads == 0


def test_what_was_refused_as_too_long_runs_again_with_the_context_that_it_needs_and_has_lost_no_attempt() -> None:
    driver = ready()
    job = driver.submit()
    driver.run(1.0, Outcome.REFUSED, error=PromptTooLong(tokens=9000, maximum=FLOOR), needed_ctx=2 * FLOOR)
    assert (job.state, job.attempts, job.wanted_ctx, job.fitted_ctx) == (State.QUEUED, 0, 2 * FLOOR, 2 * FLOOR)
    driver.load()
    assert driver.loads[-1] == key("a", 2 * FLOOR)
    driver.run()
    assert (job.state, job.attempts, job.run_seconds) == (State.SUCCEEDED, 1, 2.0)
    assert driver.scheduler.counts.retries == 0


def test_what_was_refused_as_too_long_after_its_caller_had_left_is_not_run_again() -> None:
    driver = ready()
    job = driver.submit()
    driver.cancel(job)
    driver.run(1.0, Outcome.REFUSED, error=PromptTooLong(), needed_ctx=2 * FLOOR)
    assert job.state is State.CANCELLED


def test_a_fitted_context_is_cut_to_what_the_model_was_trained_for_once_that_is_known() -> None:
    driver = Driver()
    job = driver.submit(model=None, wanted_ctx=4 * FLOOR)
    job.fitted_ctx = 4 * FLOOR
    driver.probe(resolved={job.id: Resolved("a", 2 * FLOOR)})
    assert (job.wanted_ctx, job.fitted_ctx) == (2 * FLOOR, 2 * FLOOR)
