"""The one task that owns the line and the slot.

It hands every event to the scheduler and does what the scheduler answers. Jobs come over a memory channel, and so does
the end of everything that was started. Nothing else changes the line, so there are no locks.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from llm_queue.core.actions import Abort, Action, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad, Unload
from llm_queue.core.events import AttemptEnded, DrainBegan, Event, Left, LoadEnded, Stopped, Submitted
from llm_queue.core.jobs import Job, State
from llm_queue.dispatch.admission import Admission
from llm_queue.dispatch.attempts import ASK_TIMEOUT, Attempts, Entry
from llm_queue.dispatch.board import Board
from llm_queue.dispatch.bypass import Bypasses, Neighbours
from llm_queue.dispatch.changes import Changes
from llm_queue.dispatch.commands import Commands
from llm_queue.dispatch.fit import ContextFit
from llm_queue.dispatch.measured import prompt_computed
from llm_queue.dispatch.models import LineModels
from llm_queue.dispatch.moments import (
    AttemptFinished,
    AttemptStarted,
    DrainStarted,
    Failure,
    FirstPiece,
    JobEnded,
    JobRequeued,
    LoadFinished,
    LoadStarted,
    RequestRejected,
)
from llm_queue.dispatch.observe import Observer, Observers, Tally
from llm_queue.dispatch.places import Places, Standing
from llm_queue.dispatch.prefixes import Prefixes
from llm_queue.dispatch.remote import RemoteJobs
from llm_queue.dispatch.room import Room
from llm_queue.dispatch.setup import new_core
from llm_queue.dispatch.slot_time import SlotState, SlotTime
from llm_queue.dispatch.status import JobReport, JobStatus, Status, job_status, line_status, model_name, report
from llm_queue.dispatch.steps import Step
from llm_queue.dispatch.tickets import Place, Submission, Ticket
from llm_queue.dispatch.watch import Watch
from llm_queue.errors import QueueError, Unfinished
from llm_queue.settings import Settings
from llm_queue.traceparent import TraceContext
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.protocol import Upstream

JOBS_SHOWN: Final = 50
"""Jobs that the status lists: more than anybody reads, and cheap enough to ask for every second."""

PASSES_TO_SEND: Final = 2
"""Scheduler passes after which a new task has surely had its first turn, in which an attempt sends its request."""


class DispatcherDied(Exception):
    """A bug in the line itself. Everybody who waited was told; the process must end."""


class Dispatcher:
    """One line in front of one upstream. ``run`` it in a nursery that everything else depends on."""

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        observers: Iterable[Observer] = (),
        *,
        trace: Callable[[str], object] | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        """``trace`` gets every line of a trace: see :mod:`llm_queue.core.trace`. None: nothing is recorded.
        ``neighbours`` names the programs that use the upstream past the line. None: they stay without names.
        """
        self.settings = settings
        self.upstream = upstream
        self.catalog = Catalog(upstream, settings.aliases)
        self.observers = Observers(observers)
        self._tally = Tally()
        self.observers.add(self._tally)
        order, self._scheduler = new_core(settings, trace, chooses_context=upstream.chooses_context)
        self._seat = self._scheduler.seat
        self._board = Board(self._scheduler, order, self.catalog, self.observers, settings.remembered_jobs)
        self._inbox_send, self._inbox = trio.open_memory_channel[Event | Entry | Step](math.inf)
        self._entries: dict[str, Entry] = {}
        self._fit = ContextFit(self._seat.contexts, raises=settings.fit_context and upstream.chooses_context)
        self._attempts = Attempts(settings, self.catalog, self._fit, self._heard)
        self._remote = RemoteJobs(self._attempts, self.observers, self._settle, settings.max_attempts)
        self._places = Places(self._scheduler)
        self._prefixes = Prefixes()
        self.changes = Changes(self._seat, self._entries, self.observers)
        self.watch = Watch(self._seat, self.observers)
        self._slot_time = SlotTime(self._seat, _now())
        shared = upstream.native is not None
        self._bypasses = Bypasses(self._seat, self.observers, neighbours, settings.keep_alive, shared=shared)
        self.models = LineModels(self.catalog, self._seat.contexts, self._fit, self._seat, self._wanted)
        room = Room(settings, self._places.seconds_for)
        self._admission = Admission(settings, self._scheduler, self._fit, self._remote, room)
        made_of = (self._entries, self._seat, self.catalog, self._remote, self.observers, self._admission)
        self.commands = Commands(*made_of, self._post)
        self._drained = trio.Event()
        self.unfinished: list[str] = []

    # --- for the web ---

    def submit(self, submission: Submission) -> Ticket:
        """Accept a job, at once or not at all. Closing the ticket says that the caller left.

        Raises :class:`~llm_queue.errors.LineFull`, :class:`~llm_queue.errors.Draining`,
        :class:`~llm_queue.errors.PromptTooLong`, or :class:`~llm_queue.errors.UpstreamUnreachable` when the upstream
        has been away for too long to wait for it.
        """
        remote = submission.remote
        job, failed_ago = self._admission.admit(submission, _now())

        leave = self._remote.leave if remote else self._left
        ticket = Ticket(job, submission, leave=leave, place=_beside if remote else self._place)
        entry = self._entries[job.id] = Entry(job, ticket, submission, submission.model, failed_ago=failed_ago)
        if remote:
            self._remote.enter(entry)
            self._post(entry)
        else:
            self._admission.room.entering += 1
            self._post(Submitted(job))
        self.commands.supersession.accepted(entry)
        return ticket

    def readiness(self) -> str | None:
        """None if a job that came now could be served; else why not."""
        if self._admission.draining:
            return "the service is shutting down"
        if self._seat.outage is not None and self._seat.outage.loop:
            return self._seat.outage.reason
        if self._seat.outage is not None:
            return f"{self.upstream.name} at {self.upstream.url} is not there: {self._seat.outage.reason}"
        return None

    def find(self, job_id: str) -> JobReport | None:
        """The report of a job that lives, or has ended lately."""
        entry = self._entries.get(job_id)
        if entry is None:
            return self._board.find_ended(job_id)
        job = entry.job
        ahead = entry.ticket.place().ahead if job.state is State.QUEUED else None
        return self._board.explained(report(job, entry.submission, _now(), ahead=ahead), job)

    def status(self, limit: int = JOBS_SHOWN) -> Status:
        """The line as a whole, with the first ``limit`` jobs that have not ended, in their expected order."""
        return line_status(
            self.upstream,
            self._seat,
            self._scheduler.counts,
            away=self.readiness(),
            waiting=self._scheduler.waiting_by_lane(),
            jobs=tuple(
                self._job_status(one) for one in self._places.first(limit, _now()) if one.job.id in self._entries
            ),
            rejected=self._tally.rejected,
            unknown_lanes=self._tally.unknown_lanes,
            accepted=self._tally.accepted,
            remote=self._remote.status(),
            paused=self.commands.paused(),
            draining=self._admission.draining,
            bypass=self._bypasses.status(_now()),
            insight=self._board.insight(),
            finished=self._board.last_finished(),
        )

    def slot_seconds(self) -> Mapping[SlotState, float]:
        """What the slot's time went to so far: together the time since the start."""
        return self._slot_time.seconds(_now())

    def rejected(self, error: QueueError, client: str) -> None:
        """A request was refused: count it."""
        self.observers.tell(RequestRejected(Failure.of(error), client))

    # --- for the process ---

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the line until cancelled. A bug answers everybody who waits, then raises :class:`DispatcherDied`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bypasses.run)
                await self._perform(self._scheduler.tick(_now()), nursery)
                task_status.started()
                while True:
                    await self._step(nursery)
        except Exception as bug:
            self._admission.draining = True  # nobody would serve who came now
            for entry in self._entries.values():
                entry.ticket.settle(QueueError())
            self._entries.clear()
            self.changes.end()
            raise DispatcherDied(str(bug)) from bug

    async def drain(self) -> None:
        """Take no more work, and wait until what is here has ended, ``drain_timeout`` at most; then answer the rest.

        Those stand in ``unfinished`` then. Cancelled, it answers the rest at once.
        """
        self._admission.draining = True
        self.observers.tell(DrainStarted(self.live_jobs))
        self._post(DrainBegan())
        try:
            with trio.move_on_after(self.settings.drain_timeout):
                await self._drained.wait()
        finally:
            self.unfinished = [entry.job.id for entry in self._entries.values()]
            if self.unfinished:
                self._post(Stopped(Unfinished(retry_after=5)))
                with trio.CancelScope(shield=True), trio.move_on_after(ASK_TIMEOUT):
                    await self._drained.wait()
            self.changes.end()

    def trace_by(self, place_of: Callable[[str], TraceContext | None]) -> None:
        """Tell the upstream where in a trace its work stands by asking ``place_of`` with the job's id."""
        self._attempts.place_of = lambda entry: place_of(entry.job.id)

    def beat(self, beat: Step) -> None:
        """Have the line's own task call ``beat``, which must not raise: if the line is stuck, nobody does."""
        self._post(beat)

    @property
    def live_jobs(self) -> int:
        """Jobs that have not ended."""
        return len(self._entries)

    # --- events ---

    async def _step(self, nursery: trio.Nursery) -> None:
        wake_at = self._scheduler.wake_at()
        with trio.move_on_at(math.inf if wake_at is None else wake_at) as sleep:
            event = await self._inbox.receive()
        if sleep.cancelled_caught:
            actions = self._scheduler.tick(_now())
        else:
            actions = self._take(event, nursery)
            with suppress(trio.WouldBlock):
                while True:
                    actions += self._take(self._inbox.receive_nowait(), nursery)
        await self._perform(actions, nursery)
        self.watch.look()
        self._slot_time.look(_now())
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if self._admission.draining and not self._entries:
            self._drained.set()

    def _post(self, event: Event | Entry | Step) -> None:
        self._inbox_send.send_nowait(event)

    def _take(self, event: Event | Entry | Step, nursery: trio.Nursery) -> list[Action]:
        """An event is the scheduler's; an entry is a job that goes beside the line; a beat is called."""
        if callable(event):
            follows = event()
            return [] if follows is None else self._scheduler.handle(follows, _now())
        if isinstance(event, Entry):
            self.observers.tell(event.accepted())
            nursery.start_soon(self._remote.serve, event)
            return []
        now, slot = _now(), self._seat.slot
        self._bypasses.heard(event)
        match event:
            case Submitted(job):
                self._admission.room.entering -= 1
                self.observers.tell(self._entries[job.id].accepted())
            case Stopped(error):
                self._remote.stop(error)
            case LoadEnded(job, _, error) if slot is not None:
                model, seconds = self._model_name(job), now - slot.since
                self._board.history.loaded(job.client, seconds)
                self.observers.tell(LoadFinished(job.id, model, slot.key.num_ctx, seconds, _failure(error)))
            case AttemptEnded(job, outcome) if slot is not None:
                self._board.history.ran(job.client, now - slot.since)
                if event.prompt is not None:
                    submission = self._entries[job.id].submission
                    self.observers.tell(prompt_computed(job, submission, event.prompt, self._prefixes))
                self.observers.tell(AttemptFinished(job.id, outcome, now - slot.since))
        return self._scheduler.handle(event, now)

    # --- actions ---

    async def _perform(self, actions: list[Action], nursery: trio.Nursery) -> None:
        """Do what the scheduler says. The upstream comes first: while a job is settled, reported and logged, it has the
        next request already.
        """
        settled = [action for action in actions if isinstance(action, Settle)]
        for action in actions:
            self._act(action, nursery)
        if settled and len(settled) < len(actions):
            for _ in range(PASSES_TO_SEND):
                await trio.lowlevel.cancel_shielded_checkpoint()
        for settle in settled:
            self._settle(settle.job, settle.error)

    def _act(self, action: Action, nursery: trio.Nursery) -> None:
        match action:
            case StartLoad(job, key):
                fitted = job.fitted_ctx == key.num_ctx
                self.observers.tell(LoadStarted(job.id, self._model_name(job), key.num_ctx, fits_prompt=fitted))
                self._start(nursery, partial(self._attempts.load, self._entries[job.id], key))
            case StartAttempt(job, key):
                self.observers.tell(
                    AttemptStarted(job.id, job.client, self._model_name(job), key.num_ctx, job.attempts)
                )
                entry = self._entries[job.id]
                spared = entry.unloads and self._wanted(job.model, but=job)
                self._start(nursery, partial(self._attempts.attempt, entry, key, spared=spared))
            case Abort(job, error):
                self._entries[job.id].abort(error)
            case Requeued(job, reason):
                self.observers.tell(JobRequeued(job.id, job.client, Failure.of(reason)))
            case Probe():
                unresolved = [self._entries[job.id] for job in self._scheduler.unresolved]
                self._start(nursery, partial(self._attempts.probe, unresolved))
            case AskResident():
                self._start(nursery, self._attempts.ask_resident)
            case Unload():
                self._start(nursery, self.commands.unload)
            case Settle():
                pass  # its turn comes last: see _perform

    def _start(self, nursery: trio.Nursery, work: Callable[[], Awaitable[Event]]) -> None:
        """Run ``work`` in a task of its own; the event that it returns goes into the inbox."""

        async def run() -> None:
            self._post(await work())

        nursery.start_soon(run)

    def _settle(self, job: Job, error: QueueError | None) -> None:
        entry = self._entries.pop(job.id)
        self._admission.room.give_back(job.size)
        if error is None and entry.completion is None:
            error = QueueError()
        if error is not None:
            error = self._admission.repeats.used_up(job, entry.submission, error, entry.failed_ago, _now())
            entry.ticket.settle(error)
        elif entry.completion is not None:
            entry.ticket.settle(entry.answer or entry.completion)
            if entry.model is not None and not entry.model.remote:
                self._places.ran(job.run_seconds)
                counted = None if entry.completion.truncated else entry.completion.prompt_tokens
                self._fit.learn(entry.model, entry.submission, counted)
        ended = report(job, entry.submission, _now(), completion=entry.completion, error=error)
        self._board.ended(job, ended, error)
        self.observers.tell(JobEnded(ended, _failure(error)))
        self._look_whether_drained()

    # --- small things ---

    def _left(self, job: Job, error: QueueError) -> None:
        self._post(Left(job, error))

    def _heard(self, job: Job, seconds: float) -> None:
        self.observers.tell(FirstPiece(job.id, seconds))

    def _place(self, job: Job) -> Place:
        return self._places.place(job, _now())

    def _wanted(self, model: str | None, but: Job | None = None) -> bool:
        """True if a job that has not ended, other than ``but``, is for the model of that identity."""
        return any(entry.job.model == model and entry.job is not but for entry in self._entries.values())

    def _model_name(self, job: Job) -> str:
        return model_name(self._entries[job.id].submission) if job.id in self._entries else ""

    def _job_status(self, one: Standing) -> JobStatus:
        entry = self._entries[one.job.id]
        return job_status(one, entry.submission, self._seat, _now(), entry.progress)


def _beside(_job: Job) -> Place:
    """Where a job stands that is not in the line."""
    return Place(0, None)


def _failure(error: QueueError | None) -> Failure | None:
    return None if error is None else Failure.of(error)


def _now() -> float:
    return trio.current_time()
