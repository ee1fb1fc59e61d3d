"""Drives the real scheduler and line by hand: the test says what happens upstream and how long it takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from llm_queue.core.actions import Abort, Action, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad, Unload
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import (
    AttemptEnded,
    DrainBegan,
    Left,
    LoadEnded,
    Moved,
    Outcome,
    Paused,
    ProbeEnded,
    ResidentReported,
    Resolved,
    Resumed,
    Stopped,
    Submitted,
    UnloadEnded,
)
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import TurnOrder
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.rules import OrderRules
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.trace import RecordedScheduler
from llm_queue.core.verdict import RetryLimits
from llm_queue.errors import Cancelled, QueueError, UpstreamUnreachable

FLOOR = 8192
CEILING = 65536


def key(model: str, num_ctx: int = FLOOR) -> RunnerKey:
    return RunnerKey(model, num_ctx)


def made_job(
    name: str,
    *,
    client: str = "x",
    lane: Lane = Lane.NORMAL,
    arrival: int = 0,
    now: float = 0.0,
    model: str = "a",
    share: float = 1.0,
) -> Job:
    return Job(name, lane, client, model, FLOOR, arrival, now, share=share)


class Driver:
    """``upstream`` holds what the engine has loaded, and has room for so many keys (``room``)."""

    def __init__(
        self,
        *,
        rules: OrderRules | None = None,
        limits: RetryLimits | None = None,
        resident: tuple[RunnerKey, ...] = (),
        room: int = 1,
        up: bool = True,
        trace: list[str] | None = None,
    ) -> None:
        self.now = 1000.0
        self.contexts = ContextSizes(FLOOR, CEILING)
        self.line = TurnOrder(rules or OrderRules(), self.contexts)
        self.seat = Seat(self.contexts, self.now)
        self.turn = self.seat.turn
        limits = limits or RetryLimits()
        self.scheduler = (
            Scheduler(self.line, self.seat, limits)
            if trace is None
            else RecordedScheduler(self.line, self.seat, limits, trace.append)
        )
        self.room = room
        self.reported: list[RunnerKey] = list(resident)
        self.log: list[Action] = []
        self.settled: dict[str, list[QueueError | None]] = {}
        self.ran: list[str] = []
        self.loads: list[RunnerKey] = []
        self.running: StartAttempt | None = None
        self.loading: StartLoad | None = None
        self.probing = False
        self.asking = False
        self.unloading = False
        self.aborting: Abort | None = None
        self._serial = itertools.count(1)
        self.act(self.scheduler.tick(self.now))
        if up:
            self.probe()

    # --- events ---

    def submit(
        self,
        client: str = "x",
        model: str | None = "a",
        *,
        lane: Lane = Lane.NORMAL,
        wanted_ctx: int = FLOOR,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        share: float = 1.0,
        label: str = "",
    ) -> Job:
        serial = next(self._serial)
        name = f"{client}{serial}"
        job = Job(name, lane, client, model, wanted_ctx, serial, self.now, max_wait, max_attempts)
        job.share, job.label = share, label
        self.act(self.scheduler.handle(Submitted(job), self.now))
        return job

    def cancel(self, job: Job) -> None:
        self.act(self.scheduler.handle(Left(job, Cancelled()), self.now))

    def move(self, job: Job, lane: Lane) -> None:
        self.act(self.scheduler.handle(Moved(job, lane), self.now))

    def pause(self, *, unload: bool = False) -> None:
        self.act(self.scheduler.handle(Paused(unload), self.now))

    def resume(self) -> None:
        self.act(self.scheduler.handle(Resumed(), self.now))

    def unload(
        self,
        outcome: Outcome = Outcome.SUCCEEDED,
        *,
        error: QueueError | None = None,
        left: tuple[RunnerKey, ...] = (),
    ) -> None:
        """What is loaded has been unloaded, but what is ``left``; or nothing has, if it failed."""
        assert self.unloading
        self.unloading = False
        known: frozenset[RunnerKey] | None = None
        if outcome is Outcome.SUCCEEDED:
            self.reported, known = list(left), frozenset(left)
        self.act(self.scheduler.handle(UnloadEnded(outcome, error, known), self.now))

    def load(self, seconds: float = 3.0, outcome: Outcome = Outcome.SUCCEEDED, error: QueueError | None = None) -> None:
        assert self.loading is not None
        self.wait(seconds)
        job, wanted, self.loading = self.loading.job, self.loading.key, None
        if outcome is Outcome.SUCCEEDED:
            others = [other for other in self.reported if other.model != wanted.model]
            self.reported = [*others, wanted][-self.room :]
        self.act(self.scheduler.handle(LoadEnded(job, outcome, error, frozenset(self.reported)), self.now))

    def run(
        self,
        seconds: float = 1.0,
        outcome: Outcome = Outcome.SUCCEEDED,
        *,
        error: QueueError | None = None,
        commit: bool = False,
        surprise: bool = False,
        needed_ctx: int | None = None,
        prompt: PromptWork | None = None,
        ending: Ending | None = None,
    ) -> Job:
        assert self.running is not None
        self.wait(seconds)
        job, self.running, self.aborting = self.running.job, None, None
        ended = AttemptEnded(job, outcome, error, surprise, commit, needed_ctx=needed_ctx, prompt=prompt, ending=ending)
        self.act(self.scheduler.handle(ended, self.now))
        return job

    def work(self, *, load: float = 3.0, run: float = 1.0) -> None:
        """Do all that is to be done, holds included."""
        while self.loading or self.running or self.holding:
            if self.loading:
                self.load(load)
            elif self.running:
                self.run(run)
            else:
                assert self.seat.hold is not None
                self.wait(self.seat.hold.until - self.now)

    def wait(self, seconds: float) -> None:
        """Time passes; whatever is due on the way happens."""
        self.wait_until(self.now + seconds)

    def wait_until(self, end: float) -> None:
        spins = 0
        while (wake_at := self.scheduler.wake_at()) is not None and wake_at <= end:
            spins = spins + 1 if wake_at <= self.now else 0
            assert spins < 3, "it wants to be woken again and again, without time passing"
            self.now = max(self.now, wake_at)
            self.act(self.scheduler.tick(self.now))
        self.now = end

    def probe(
        self,
        *,
        up: bool = True,
        failure: QueueError | None = None,
        resolved: Mapping[str, Resolved | QueueError] | None = None,
    ) -> None:
        assert self.probing
        self.probing = False
        failure = failure or (None if up else UpstreamUnreachable())
        self.act(self.scheduler.handle(ProbeEnded(failure, frozenset(self.reported), resolved or {}), self.now))

    def answer(self, reported: list[RunnerKey] | None = None) -> None:
        """The upstream says what it has loaded."""
        assert self.asking
        self.asking = False
        if reported is not None:
            self.reported = reported
        self.act(self.scheduler.handle(ResidentReported(frozenset(self.reported)), self.now))

    def drain(self) -> None:
        self.act(self.scheduler.handle(DrainBegan(), self.now))

    def stop(self, error: QueueError) -> None:
        self.act(self.scheduler.handle(Stopped(error), self.now))

    # --- what came of it ---

    @property
    def holding(self) -> bool:
        return self.seat.hold is not None

    def switch_cost(self) -> float:
        return self.line.switch_cost(self.turn)

    def turn_length(self) -> float:
        return self.line.turn_length(self.turn)

    def error(self, job: Job) -> QueueError | None:
        (error,) = self.settled[job.id]
        return error

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            self.log.append(action)
            match action:
                case StartLoad(_, wanted):
                    assert self.free, "two in flight"
                    self.loading = action
                    self.loads.append(wanted)
                case StartAttempt(job, wanted):
                    assert self.free, "two in flight"
                    assert wanted == job.key
                    self.running = action
                    self.ran.append(job.id)
                case Abort():
                    assert self.running is not None
                    assert self.running.job is action.job
                    self.aborting = action
                case Settle(job, error):
                    self.settled.setdefault(job.id, []).append(error)
                case Probe():
                    assert not self.probing
                    self.probing = True
                case AskResident():
                    assert not self.asking
                    self.asking = True
                case Unload():
                    assert self.free, "two in flight"
                    assert not self.asking
                    self.unloading = True
                case Requeued():
                    pass

    @property
    def free(self) -> bool:
        return self.running is None and self.loading is None and not self.unloading
