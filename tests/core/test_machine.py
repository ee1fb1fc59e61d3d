"""Everything that can happen, in any order, against a model so simple that it can not be wrong."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm_queue.core.actions import Action, Settle, StartAttempt, StartLoad
from llm_queue.core.events import Outcome, Resolved
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.rules import OrderRules
from llm_queue.core.trace import replay
from llm_queue.core.verdict import RetryLimits
from llm_queue.errors import Draining, LoadFailed, ModelNotFound, QueueError
from tests.core.driver import CEILING, FLOOR, Driver, key

MODELS = ["a", "b", "c"]
SIZES = [FLOOR, FLOOR, FLOOR, 2 * FLOOR, 4 * FLOOR]
times = st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 20.0, 65.0])
short = st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 3.0])
shown_keys = st.lists(st.builds(key, st.sampled_from([*MODELS, "stranger"]), st.sampled_from(SIZES)), max_size=2)
SHARES = {"w": 1.0, "x": 2.0, "y": 0.1, "z": 10.0, "loop": 0.5}
"""A client's share is the same in all of its jobs."""

mostly_good = [Outcome.SUCCEEDED] * 6

found = st.sampled_from([0, 0, 900, 900, 900])
prompts = st.none() | st.builds(PromptWork, st.just(1000), found, st.sampled_from([0.0, 0.1, 1.0, 1.0]))
endings = st.sampled_from([None, Ending.STOP, Ending.TOOLS])
labels = st.sampled_from(["", "", "main", "other"])


class Watched(Driver):
    """A driver that counts, at each start, which lower lanes had to let it pass although they could have gone."""

    def __init__(self, *, trace: list[str], **how: Any) -> None:
        self.trace = trace
        self.passed = dict.fromkeys(Lane, 0)
        super().__init__(trace=trace, **how)

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, StartAttempt):
                self._count(action.job)
            if isinstance(action, Settle):
                assert action.job.state.ended
                assert action.job.id not in self.settled, "settled twice"
            if isinstance(action, StartAttempt | StartLoad):
                assert not self.probing or self.seat.outage is None
                assert not self.asking, "started while it was unknown what is resident"
                assert self.seat.pause is None, "started in a pause"
        super().act(actions)

    def _count(self, picked: Job) -> None:
        ready = {job.lane for job in self.line.waiting() if job.key in self.turn.resident}
        present = {job.lane for job in self.line.waiting()}
        for lane in Lane:
            if lane is picked.lane or lane not in present:
                self.passed[lane] = 0
            elif lane > picked.lane and lane in ready:
                self.passed[lane] += 1
                assert self.passed[lane] <= self.line.rules.lane_burst + 2, f"{lane.label} was passed over too often"


class TheLine(RuleBasedStateMachine):
    """The scheduler with the real line; the naive model is the list of all jobs."""

    @initialize(
        burst=st.integers(1, 4),
        room=st.integers(1, 2),
        hold=st.booleans(),
        attempts=st.sampled_from([2, 1, 3]),
        resident=st.booleans(),
        up=st.sampled_from([True, True, True, False]),
    )
    def begin(self, burst: int, room: int, hold: bool, attempts: int, resident: bool, up: bool) -> None:
        self.driver = Watched(
            rules=OrderRules(lane_burst=burst, hold=hold),
            limits=RetryLimits(max_attempts=attempts),
            room=room,
            resident=(key("a"),) if resident else (),
            up=up,
            trace=[],
        )
        self.jobs: list[Job] = []
        self.stopped = False

    # --- what can happen ---

    @precondition(lambda self: not self.driver.scheduler.draining)
    @rule(
        client=st.sampled_from("wxyz"),
        model=st.sampled_from([*MODELS, *MODELS, *MODELS, None]),
        lane=st.sampled_from(Lane),
        wanted_ctx=st.sampled_from(SIZES),
        max_wait=st.sampled_from([None, None, None, 0.0, 1.0, 30.0]),
        max_attempts=st.sampled_from([None, None, 1]),
        label=labels,
    )
    def submit(
        self,
        client: str,
        model: str | None,
        lane: Lane,
        wanted_ctx: int,
        max_wait: float | None,
        max_attempts: int | None = None,
        label: str = "",
    ) -> None:
        job = self.driver.submit(
            client,
            model,
            lane=lane,
            wanted_ctx=wanted_ctx,
            max_wait=max_wait,
            max_attempts=max_attempts,
            share=SHARES[client],
            label=label,
        )
        self.jobs.append(job)
        if max_wait == 0.0 and not self.driver.asking and job.state is State.QUEUED:
            assert self.driver.loading is not None
            assert self.driver.loading.job is job, "it can not start now, and waits all the same"

    @precondition(lambda self: self.driver.scheduler.idle and not self.driver.scheduler.draining)
    @rule(times=st.integers(2, 5), lane=st.sampled_from(Lane), other=st.sampled_from(Lane))
    def a_program_asks_again_and_again_until_another_comes(self, times: int, lane: Lane, other: Lane) -> None:
        driver = self.driver
        for _ in range(times):
            if driver.asking:
                driver.answer()
            self.submit("loop", "a", lane, FLOOR, None)
            if driver.loading:
                driver.load(1.0)
            if driver.running:
                driver.run(0.5)
            driver.wait(0.05)
        self.submit("w", "b", other, FLOOR, None)

    @rule(which=st.integers(0, 1000))
    def cancel(self, which: int) -> None:
        if self.jobs:
            self.driver.cancel(self.jobs[which % len(self.jobs)])

    @rule(which=st.integers(0, 1000), lane=st.sampled_from(Lane))
    def move(self, which: int, lane: Lane) -> None:
        if not self.jobs:
            return
        driver, job = self.driver, self.jobs[which % len(self.jobs)]
        before, waits, loads = job.lane, job.state is State.QUEUED, driver.loading
        if waits and job.lane is not lane and job.model is not None and not driver.line.waiting_in(lane):
            driver.passed[lane] = 0  # who comes to an empty lane has not been passed over
        driver.move(job, lane)
        assert job.lane is (lane if waits else before)
        assert driver.loading is loads or loads is None, "a load is not ended by a move"

    @rule(unload=st.booleans(), really=st.integers(0, 3))
    def pause(self, unload: bool, really: int) -> None:
        if really:
            return
        driver, running, loading = self.driver, self.driver.running, self.driver.loading
        driver.pause(unload=unload)
        assert (driver.seat.pause is None) is driver.scheduler.draining
        assert (driver.running, driver.loading) == (running, loading), "what runs goes on"

    @rule()
    def resume(self) -> None:
        loads, waiting = len(self.driver.loads), self.driver.scheduler.waiting
        self.driver.resume()
        assert self.driver.seat.pause is None
        assert waiting or len(self.driver.loads) == loads, "loaded for nobody"

    @precondition(lambda self: self.driver.unloading)
    @rule(outcome=st.sampled_from([*mostly_good, *Outcome]), seconds=short, left=shown_keys)
    def end_unload(self, outcome: Outcome, seconds: float, left: list[Any]) -> None:
        self.driver.wait(seconds)
        failed = outcome is not Outcome.SUCCEEDED
        error = LoadFailed("it stays") if failed or left else None
        self.driver.unload(outcome, error=error, left=tuple(left))
        pause = self.driver.seat.pause
        if pause is not None:
            again = outcome in (Outcome.UNREACHABLE, Outcome.BUSY)
            assert pause.unload is again
            assert again or pause.unloaded is (error is None)

    @rule(seconds=times)
    def wait(self, seconds: float) -> None:
        self.driver.wait(seconds)

    @precondition(lambda self: self.driver.scheduler.idle and not self.driver.scheduler.draining)
    @rule(rounds=st.integers(1, 3), ending=endings, pause=st.sampled_from([0.1, 0.4]), model=st.sampled_from(MODELS))
    def two_programs_throw_out_each_others_prompts(
        self, rounds: int, ending: Ending | None, pause: float, model: str
    ) -> None:
        driver, last = self.driver, ""
        for client in [*"wwxx" * rounds, *"www"]:
            if driver.asking:
                driver.answer()
            driver.wait(10.0 if client != last else pause)
            self.submit(client, model, Lane.NORMAL, FLOOR, None, label="main")
            if driver.asking:
                driver.answer()
            if driver.loading:
                driver.load(1.0)
            if driver.running:
                cold = PromptWork(1000, 0, 4.0)
                driver.run(5.0, prompt=PromptWork(1000, 990, 0.0) if client == last else cold, ending=ending)
            last = client
        self.submit("x", model, Lane.NORMAL, FLOOR, None, label="main")

    @rule(steps=st.integers(1, 6), seconds=short, broken=st.booleans(), prompt=prompts, ending=endings)
    def all_goes_well_for_a_while_but_for_a_broken_stream(
        self, steps: int, seconds: float, broken: bool, prompt: PromptWork | None, ending: Ending | None
    ) -> None:
        driver = self.driver
        for _ in range(steps):
            if driver.probing:
                self.end_probe(True, True, None)
            elif driver.asking:
                driver.answer()
            elif driver.unloading:
                driver.unload()
            elif driver.loading:
                driver.load(seconds)
            elif driver.running:
                outcome = Outcome.BROKEN if broken else Outcome.SUCCEEDED
                driver.run(seconds, outcome, prompt=prompt, ending=ending)
                broken = False

    @rule()
    def wait_until_it_wakes(self) -> None:
        wake_at = self.driver.scheduler.wake_at()
        if wake_at is not None:
            self.driver.wait(max(0.0, wake_at - self.driver.now))

    @precondition(lambda self: self.driver.running)
    @rule(
        outcome=st.sampled_from(mostly_good + list(Outcome)),
        seconds=short,
        commit=st.sampled_from([False, False, False, True]),
        surprise=st.sampled_from([False, False, False, True]),
        prompt=prompts,
        ending=endings,
    )
    def end_attempt(
        self,
        outcome: Outcome,
        seconds: float,
        commit: bool,
        surprise: bool,
        prompt: PromptWork | None,
        ending: Ending | None,
    ) -> None:
        assert self.driver.running is not None
        job = self.driver.running.job
        self.driver.wait(seconds)
        cancelled, attempts = job.cancel_requested, job.attempts
        innocent = outcome in (Outcome.UNREACHABLE, Outcome.BUSY)
        commit = commit and not innocent
        self.driver.run(0.0, outcome, commit=commit, surprise=surprise, prompt=prompt, ending=ending)
        limit = self.limit_of(job)
        if outcome is Outcome.SUCCEEDED:
            assert job.state is State.SUCCEEDED
        elif cancelled or outcome is Outcome.CANCELLED:
            assert job.state is State.CANCELLED
        elif outcome is Outcome.REFUSED or job.committed or (attempts >= limit and not innocent):
            assert job.state in (State.FAILED, State.TIMED_OUT)
        elif innocent:
            assert job.attempts == attempts - 1 + (job.state is State.RUNNING)
        else:
            assert not job.state.ended or self.outage_given_up

    @precondition(lambda self: self.driver.running and self.driver.running.key.num_ctx < CEILING)
    @rule()
    def refuse_as_too_long(self) -> None:
        running = self.driver.running
        assert running is not None
        job, size, cancelled = running.job, running.key.num_ctx, running.job.cancel_requested
        attempts = job.attempts
        self.driver.run(0.0, Outcome.REFUSED, needed_ctx=min(2 * size, CEILING))
        if cancelled:
            assert job.state is State.CANCELLED
        elif not self.outage_given_up:
            assert not job.state.ended
            assert job.attempts == attempts - 1 + (job.state is State.RUNNING)
            assert job.wanted_ctx > size

    @precondition(lambda self: self.driver.loading)
    @rule(outcome=st.sampled_from([*mostly_good, *mostly_good, *mostly_good, *Outcome]), seconds=short)
    def end_load(self, outcome: Outcome, seconds: float) -> None:
        assert self.driver.loading is not None
        self.driver.wait(seconds)
        loading = self.driver.loading
        job, waited = loading.job, loading.job.state is State.QUEUED
        lost = outcome is Outcome.BROKEN and job.broken_loads + 1 < self.driver.scheduler.limits.max_attempts
        busy = outcome in (Outcome.UNREACHABLE, Outcome.BUSY) or lost
        fitted = job.fitted_ctx is not None
        self.driver.load(0.0, outcome, error=None if outcome is Outcome.SUCCEEDED else LoadFailed("no memory"))
        if waited and outcome is not Outcome.SUCCEEDED and not busy and fitted and job.fitted_ctx is None:
            assert job.state in (State.QUEUED, State.RUNNING)
            assert job.wanted_ctx < loading.key.num_ctx
        elif waited and outcome is not Outcome.SUCCEEDED and not busy:
            assert job.state is (State.TIMED_OUT if outcome is Outcome.TIMED_OUT else State.FAILED)
            assert self.driver.loads[-1] != loading.key or self.driver.loading is None, "what failed is tried again"

    @precondition(lambda self: self.driver.probing)
    @rule(up=st.sampled_from([True, True, False]), known=st.booleans(), reported=st.none() | shown_keys)
    def end_probe(self, up: bool, known: bool, reported: list[Any] | None) -> None:
        if reported is not None:
            self.driver.reported = reported
        answer: Resolved | QueueError = Resolved("a", FLOOR) if known else ModelNotFound()
        self.driver.probe(up=up, resolved={job.id: answer for job in self.driver.scheduler.unresolved})

    @precondition(lambda self: self.driver.asking)
    @rule(reported=st.none() | shown_keys)
    def end_asking(self, reported: list[Any] | None) -> None:
        self.driver.answer(reported)

    @rule(reported=shown_keys)
    def somebody_bypasses_the_line(self, reported: list[Any]) -> None:
        self.driver.reported = reported

    @precondition(lambda self: len(self.jobs) > 20)
    @rule(really=st.integers(0, 9))
    def drain(self, really: int) -> None:
        if really == 0:
            self.driver.drain()

    @precondition(lambda self: self.driver.scheduler.draining)
    @rule()
    def stop(self) -> None:
        self.driver.stop(Draining())
        assert not self.driver.scheduler.waiting
        self.stopped = True

    # --- what holds at all times ---

    @property
    def outage_given_up(self) -> bool:
        outage = self.driver.seat.outage
        return outage is not None and outage.given_up

    def limit_of(self, job: Job) -> int:
        return job.max_attempts or self.driver.scheduler.limits.max_attempts

    @invariant()
    def every_job_has_ended_exactly_once_or_lives(self) -> None:
        driver = self.driver
        for job in self.jobs:
            assert job.state.ended is (job.id in driver.settled)
            assert len(driver.settled.get(job.id, [None])) == 1
            assert 0 <= job.attempts <= self.limit_of(job)

    @invariant()
    def the_counts_are_those_of_the_naive_model(self) -> None:
        driver = self.driver
        waiting = [job for job in self.jobs if job.state is State.QUEUED]
        running = [job for job in self.jobs if job.state is State.RUNNING]
        assert driver.scheduler.waiting == len(waiting)
        assert sorted(job.id for job in driver.scheduler.waiting_jobs()) == sorted(job.id for job in waiting)
        assert sum(driver.scheduler.counts.ended.values()) == len(self.jobs) - len(waiting) - len(running)
        assert running == ([driver.running.job] if driver.running else [])
        for lane in Lane:
            assert driver.line.waiting_in(lane) == sum(job.lane is lane and job.model is not None for job in waiting)

    @invariant()
    def the_slot_holds_what_is_in_flight_and_nothing_else(self) -> None:
        slot, driver = self.driver.seat.slot, self.driver
        assert (slot is None) is (driver.free or driver.unloading)
        assert driver.seat.unloading is driver.unloading
        if slot is not None:
            action = driver.loading if slot.loading else driver.running
            assert action is not None
            assert (slot.job, slot.key) == (action.job, action.key)

    @invariant()
    def it_is_never_idle_while_somebody_waits_without_a_reason_that_ends(self) -> None:
        driver, scheduler = self.driver, self.driver.scheduler
        if not driver.free or not scheduler.waiting or driver.asking:
            return
        if driver.seat.outage is not None:
            assert driver.probing or scheduler.wake_at() is not None
            assert not driver.seat.outage.given_up, "it waits for nothing"
            return
        if driver.seat.pause is not None:
            return
        wake_at = scheduler.wake_at()
        assert wake_at is not None, "it sleeps for ever"
        assert driver.seat.busy_until is not None or driver.holding
        if driver.holding:
            self._hold_is_within_its_bounds()

    def _hold_is_within_its_bounds(self) -> None:
        driver, hold = self.driver, self.driver.turn.hold
        assert hold is not None
        assert not driver.scheduler.draining
        assert hold.key in driver.turn.resident
        waiting = list(driver.line.waiting())
        highest = [job for job in waiting if job.lane == min(j.lane for j in waiting)]
        assert highest[0].lane >= hold.lane
        ready = [job for job in highest if job.key in driver.turn.resident]
        cost, held = driver.switch_cost(), hold.until - driver.turn.held_since
        if ready:  # for a strand: whoever could go would throw out its prompt
            strands = driver.turn.strands[hold.key.model]
            assert (hold.client, hold.label) in strands.cached
            costs = [driver.turn.strands[job.model or ""].cost((job.client, job.label)) for job in ready]
            assert min(costs) > 0, "held while somebody could go"
            cost = max(costs)
            assert strands.used + held <= driver.line.rules.turn_length(cost) + 1e-6, "held beyond the strands' turn"
        assert driver.now < hold.until <= driver.now + 3 * cost / 4 + 1e-6
        left_at = driver.line.last_answer(hold.client, hold.key.model, hold.label)
        assert left_at is not None
        assert hold.until <= left_at + 3 * cost / 4 + 1e-6
        if not all(job.key in driver.turn.resident for job in waiting):
            assert driver.turn.used + held <= driver.turn_length() + 1e-6, "held beyond the turn"

    @invariant()
    def a_pause_holds_nothing_and_unloads_as_soon_as_it_can(self) -> None:
        driver, pause = self.driver, self.driver.seat.pause
        if pause is None:
            return
        assert not driver.scheduler.draining
        assert driver.turn.hold is None, "held for somebody who could not go"
        if pause.unload and driver.free and not driver.asking and driver.seat.outage is None:
            assert driver.seat.busy_until is not None, "the unload was forgotten"
            assert driver.scheduler.wake_at() is not None

    @invariant()
    def it_wants_to_be_woken_later_and_not_now(self) -> None:
        wake_at = self.driver.scheduler.wake_at()
        assert wake_at is None or wake_at > self.driver.now

    @invariant()
    def nobody_waits_beyond_its_max_wait(self) -> None:
        for job in self.driver.scheduler.waiting_jobs():
            if not self.driver.asking and job.expires_at is not None:
                assert job.expires_at > self.driver.now

    @invariant()
    def a_key_is_within_the_limits_and_no_smaller_than_what_is_current(self) -> None:
        for job in self.driver.line.waiting():
            assert job.model is not None
            assert job.key == self.driver.contexts.key(job.model, job.wanted_ctx)
            assert job.wanted_ctx <= job.key.num_ctx <= CEILING

    # --- and in the end ---

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver, scheduler = self.driver, self.driver.scheduler
        driver.drain()
        for _ in range(20 * len(self.jobs) + 50):
            if driver.probing:
                self.end_probe(True, True, None)
            elif driver.asking:
                driver.answer()
            elif driver.unloading:
                driver.unload()
            elif driver.loading:
                driver.load(0.1)
            elif driver.running:
                driver.run(0.1)
            elif scheduler.waiting or driver.seat.outage is not None:
                wake_at = scheduler.wake_at()
                assert wake_at is not None, "the drain never ends"
                driver.wait(wake_at - driver.now)
            else:
                break
        assert scheduler.idle, "the drain does not end"
        self.every_job_has_ended_exactly_once_or_lives()
        assert all(job.state.ended for job in self.jobs)
        assert driver.line.idle
        assert not scheduler.with_max_wait
        assert not list(scheduler.unresolved)
        driver.wait(5.0)
        assert scheduler.wake_at() is None
        again = [type(action) for step in replay(driver.trace) for action in step.actions]
        assert again == [type(action) for action in driver.log], "the trace tells another story"


TestTheLine = TheLine.TestCase
