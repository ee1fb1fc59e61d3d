"""The one task that owns the line and the slot.

It feeds what happens into the scheduler and does what the scheduler says. Jobs come over a memory channel, and so does
the end of everything that was started; one child task runs a load or an attempt. Nothing else changes the line, so
there are no locks.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog
import trio

from llm_queue.core.actions import Abort, Action, AskResident, Outcome, Probe, Requeued, Settle, StartAttempt, StartLoad
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.line import Line, Rules
from llm_queue.core.scheduler import Limits, Resolved, Scheduler
from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    Draining,
    LineFull,
    LoadFailed,
    LoadTimedOut,
    ModelNotFound,
    QueueError,
    ReaderTooSlow,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.observe import Observer, Remembered, report
from llm_queue.settings import Settings
from llm_queue.tickets import Place, Submission, Ticket
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.chat import Completion, Delta

ASK_TIMEOUT: Final = 5.0
"""Seconds for a question that needs no model, such as what is loaded: it is answered from memory or not at all."""

SURPRISE_LOAD: Final = 0.5
"""Seconds of loading, by the upstream's own account, from which on a model that we took for resident was not:
Ollama reports some hundredths for one that is."""

PLACES_KEPT: Final = 1.0
"""Seconds for which the places in line are not worked out again: they cost a look at every waiting job."""

Event = Callable[[float], list[Action]]

_log = structlog.get_logger("llm_queue")


class DispatcherDied(Exception):
    """A bug in the line itself. Everybody who waited was told; the process must end."""


@dataclass(slots=True)
class _Live:
    """All that belongs to a job while it lives."""

    job: Job
    ticket: Ticket
    submission: Submission
    model: Model | None
    scope: trio.CancelScope | None = None
    abort_error: QueueError | None = None
    answer: list[Delta] = field(default_factory=list)
    completion: Completion | None = None


class Dispatcher:
    """One line in front of one upstream. ``run`` it in a nursery that everything else depends on."""

    def __init__(self, settings: Settings, upstream: Upstream, observers: Iterable[Observer] = ()) -> None:
        self.settings = settings
        self.upstream = upstream
        self.catalog = Catalog(upstream)
        self._remembered = Remembered(settings.remembered_jobs)
        self._observers: list[Observer] = [*observers, self._remembered]
        self._contexts = ContextSizes(settings.num_ctx, settings.num_ctx_ceiling)
        rules = Rules(settings.lane_burst, settings.turn_factor, settings.switch_wait, settings.hold)
        self._line = Line(rules, self._contexts)
        limits = Limits(settings.max_attempts, settings.outage_wait, settings.first_outage_wait)
        self._scheduler = Scheduler(self._line, self._contexts, limits, _now())
        self._inbox_send, self._inbox = trio.open_memory_channel[Event](math.inf)
        self._live: dict[str, _Live] = {}
        self._entering = 0
        self._bytes = 0
        self._arrivals = 0
        self._unknown_lanes = 0
        self._draining = False
        self._drained = trio.Event()
        self.told_off: list[str] = []
        self._upstream_there: bool | None = None
        self._places: tuple[float, dict[str, int]] = (-math.inf, {})
        self._usual_run = 0.0

    # --- for the web ---

    @property
    def busy(self) -> bool:
        """True while somebody is served or waits."""
        return bool(self._live)

    def submit(self, submission: Submission) -> Ticket:
        """Accept a job, at once or not at all. Closing the ticket says that the caller left.

        Raises :class:`~llm_queue.errors.LineFull`, :class:`~llm_queue.errors.Draining`, or
        :class:`~llm_queue.errors.UpstreamUnreachable` when the upstream has been away for too long to wait for it.
        """
        self._refuse(submission)
        self._arrivals += 1
        self._unknown_lanes += submission.unknown_lane
        model = submission.model
        job = Job(
            id=secrets.token_urlsafe(16),
            lane=submission.lane,
            client=submission.client,
            model=model.identity if model else None,
            wish=self._wish(submission, model),
            arrival=self._arrivals,
            submitted_at=_now(),
            max_wait=submission.max_wait if submission.max_wait is not None else self.settings.max_wait,
            size=submission.size,
        )
        leave = partial(self._tell, partial(self._left, job))
        ticket = Ticket(job, submission, leave=leave, place=partial(self._place, job))
        self._live[job.id] = _Live(job, ticket, submission, model)
        self._entering += 1
        self._bytes += job.size
        self._tell(partial(self._enter, job))
        return ticket

    def readiness(self) -> str | None:
        """None if a job that came now could be served; else why not."""
        if self._draining:
            return "the service is shutting down"
        if self._scheduler.outage is not None:
            return f"{self.upstream.name} at {self.upstream.url} is not there: {self._scheduler.outage.reason}"
        return None

    def find(self, job_id: str) -> dict[str, Any] | None:
        """The report of a job that lives, or has ended lately."""
        live = self._live.get(job_id)
        if live is None:
            return self._remembered.find(job_id)
        found = report(live.job, live.submission, _now())
        if live.job.state is State.QUEUED:
            found["ahead"] = self._place(live.job).ahead
        return found

    def status(self) -> dict[str, Any]:
        """The line as a whole."""
        scheduler, counts, slot = self._scheduler, self._scheduler.counts, self._scheduler.slot
        waiting = {lane.label: 0 for lane in Lane}
        for job in scheduler.waiting_jobs():
            waiting[job.lane.label] += 1
        if slot is not None and slot.loading and slot.job.state is State.QUEUED:
            waiting[slot.job.lane.label] -= 1
        return {
            "upstream": {"name": self.upstream.name, "url": self.upstream.url, "away": self.readiness()},
            "waiting": waiting,
            "slot": None
            if slot is None
            else {"job": slot.job.id, "phase": "loading" if slot.loading else "running", "client": slot.job.client},
            "held": scheduler.held_until is not None,
            "ended": {state.value: number for state, number in counts.ended.items()},
            "loads": counts.loads,
            "loads_failed": counts.loads_failed,
            "load_seconds": round(counts.load_seconds, 3),
            "reloads_avoided": counts.reloads_avoided,
            "surprise_loads": counts.surprise_loads,
            "retries": counts.retries,
            "outages": counts.outages,
            "unknown_lanes": self._unknown_lanes,
            "holds": self._line.holds,
            "held_seconds": round(self._line.held_seconds, 3),
        }

    def rejected(self, error: QueueError, client: str) -> None:
        """A request was refused: count it."""
        self._observe(lambda observer: observer.rejected(error, client))

    # --- for the process ---

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the line until cancelled. A bug answers everybody who waits, then raises :class:`DispatcherDied`."""
        try:
            async with trio.open_nursery() as nursery:
                self._perform(self._scheduler.tick(_now()), nursery)
                task_status.started()
                while True:
                    await self._step(nursery)
        except Exception as bug:
            for live in self._live.values():
                live.ticket.settle(QueueError())
            self._live.clear()
            raise DispatcherDied(str(bug)) from bug

    async def drain(self) -> None:
        """Take no more work, and wait until what is here has ended, ``drain_timeout`` at most; then answer the rest.

        Those stand in ``told_off`` then. Cancelled, it answers the rest at once.
        """
        self._draining = True
        self._tell(self._scheduler.drain)
        try:
            with trio.move_on_after(self.settings.drain_timeout):
                await self._drained.wait()
        finally:
            self.told_off = [live.job.id for live in self._live.values()]
            if self.told_off:
                self._tell(partial(self._scheduler.stop, error=Draining(retry_after=5)))
                with trio.CancelScope(shield=True), trio.move_on_after(ASK_TIMEOUT):
                    await self._drained.wait()

    @property
    def left_to_do(self) -> int:
        """Jobs that live."""
        return len(self._live)

    # --- events ---

    async def _step(self, nursery: trio.Nursery) -> None:
        wake_at = self._scheduler.wake_at()
        event: Event = self._scheduler.tick
        with trio.move_on_at(math.inf if wake_at is None else wake_at):
            event = await self._inbox.receive()
        while True:
            self._perform(event(_now()), nursery)
            try:
                event = self._inbox.receive_nowait()
            except trio.WouldBlock:
                break
        self._note_upstream()
        if self._draining and not self._live:
            self._drained.set()

    def _tell(self, event: Event) -> None:
        self._inbox_send.send_nowait(event)

    def _enter(self, job: Job, now: float) -> list[Action]:
        self._entering -= 1
        submission = self._live[job.id].submission
        self._observe(lambda observer: observer.queued(job, submission))
        return self._scheduler.submitted(job, now)

    def _left(self, job: Job, now: float) -> list[Action]:
        return self._scheduler.cancelled(job, now, Cancelled("The caller left."))

    # --- actions ---

    def _perform(self, actions: list[Action], nursery: trio.Nursery) -> None:
        for action in actions:
            self._act(action, nursery)

    def _act(self, action: Action, nursery: trio.Nursery) -> None:
        match action:
            case StartLoad(job, key):
                self._observe(lambda observer: observer.load_started(job, key))
                nursery.start_soon(self._load, self._live[job.id], key)
            case StartAttempt(job, key):
                self._observe(lambda observer: observer.attempt_started(job, key))
                nursery.start_soon(self._attempt, self._live[job.id], key)
            case Abort(job, error):
                live = self._live[job.id]
                live.abort_error = error
                if live.scope is not None:
                    live.scope.cancel()
            case Requeued(job, reason):
                self._observe(lambda observer: observer.requeued(job, reason))
            case Settle(job, error):
                self._settle(job, error)
            case Probe():
                nursery.start_soon(self._probe)
            case AskResident():
                nursery.start_soon(self._ask_resident)

    def _settle(self, job: Job, error: QueueError | None) -> None:
        live = self._live.pop(job.id)
        self._bytes -= job.size
        if error is None and live.completion is not None:
            live.ticket.settle(live.completion, live.answer)
            self._usual_run += (job.run_seconds - self._usual_run) / (8 if self._usual_run else 1)
        else:
            live.ticket.settle(error or QueueError())
        self._observe(lambda observer: observer.ended(job, live.submission, live.completion, error))

    async def _attempt(self, live: _Live, key: RunnerKey) -> None:
        """One run against the upstream. It ends in an event, whatever happens, when the upstream's side is closed."""
        limit, stream = self.settings.attempt_timeout, live.submission.stream
        outcome, error = Outcome.TIMED_OUT, None
        live.answer.clear()
        last_moment = _now() + self.settings.stream_total
        with trio.move_on_after(limit) as live.scope:

            def emit(delta: Delta) -> None:
                if stream:
                    live.ticket.put(delta)
                    assert live.scope is not None
                    live.scope.deadline = min(_now() + limit, last_moment)
                else:
                    live.answer.append(delta)

            if live.abort_error is not None:
                live.scope.cancel()
            assert live.model is not None
            try:
                live.completion = await self.upstream.run(live.model, key.num_ctx, live.submission.request, emit)
                outcome = Outcome.SUCCEEDED
            except QueueError as failure:
                outcome, error = _outcome_of(failure), failure
            except Exception:
                _log.exception("an attempt failed in a way that it should not: please report this")
                outcome, error = Outcome.REFUSED, QueueError()
        live.scope = None
        if outcome is Outcome.TIMED_OUT and live.abort_error is None:
            error = AttemptTimedOut() if _now() < last_moment else AttemptTimedOut(_STREAM_TOTAL)
        elif outcome is Outcome.TIMED_OUT:
            outcome, error = Outcome.CANCELLED, live.abort_error
        surprise = False
        if outcome is Outcome.SUCCEEDED and live.completion is not None:
            surprise = live.completion.load_seconds >= SURPRISE_LOAD
        self._tell(partial(self._scheduler.attempt_ended, outcome, error=error, surprise_load=surprise))

    async def _load(self, live: _Live, key: RunnerKey) -> None:
        """Make a model resident. It belongs to the line: whoever leaves meanwhile does not end it."""
        started = _now()
        outcome, error = Outcome.TIMED_OUT, None
        assert live.model is not None
        with trio.move_on_after(self.settings.load_timeout):
            try:
                await self.upstream.load(live.model, key.num_ctx)
                outcome = Outcome.SUCCEEDED
            except QueueError as failure:
                outcome, error = _outcome_of(failure), failure
            except Exception:
                _log.exception("a load failed in a way that it should not: please report this")
                outcome, error = Outcome.REFUSED, LoadFailed()
        if outcome is Outcome.TIMED_OUT:
            error = LoadTimedOut()
        seconds = _now() - started
        self._observe(lambda observer: observer.load_ended(live.job, key, error, seconds))
        shown = None if outcome is Outcome.UNREACHABLE else await self._shown()
        self._tell(partial(self._scheduler.load_ended, outcome, error=error, shown=shown))

    async def _shown(self) -> frozenset[RunnerKey] | None:
        with trio.move_on_after(ASK_TIMEOUT):
            try:
                return await self.upstream.resident()
            except QueueError:
                pass
        return None

    async def _ask_resident(self) -> None:
        shown = await self._shown()
        self._tell(partial(self._scheduler.resident_known, shown))

    async def _probe(self) -> None:
        failure: QueueError | None = UpstreamUnreachable("It accepts connections, but does not answer.")
        shown: frozenset[RunnerKey] = frozenset()
        resolved: dict[str, Resolved | QueueError] = {}
        with trio.move_on_after(ASK_TIMEOUT):
            try:
                await self.upstream.probe()
                await self.catalog.refresh()
                shown = await self.upstream.resident()
                for job in list(self._scheduler.unresolved):
                    resolved[job.id] = await self._resolve(job)
                failure = None
            except QueueError as error:
                failure = error
        self._tell(partial(self._scheduler.probe_ended, failure=failure, shown=shown, resolved=resolved))

    async def _resolve(self, job: Job) -> Resolved | QueueError:
        live = self._live.get(job.id)
        if live is None:
            return Cancelled()
        try:
            live.model = await self.catalog.resolve(live.submission.request.model)
        except ModelNotFound as error:
            return error
        return Resolved(live.model.identity, self._wish(live.submission, live.model))

    def _wish(self, submission: Submission, model: Model | None) -> int:
        if not self.upstream.chooses_context:
            return 0
        return self._contexts.wish(submission.num_ctx, model.trained if model else None)

    # --- small things ---

    def _refuse(self, submission: Submission) -> None:
        if self._draining:
            raise Draining(retry_after=5)
        outage = self._scheduler.outage
        if outage is not None and outage.given_up:
            raise UpstreamUnreachable
        waiting = self._scheduler.waiting + self._entering
        if waiting >= self.settings.max_waiting:
            raise LineFull(
                f"{waiting} jobs are waiting, and --max-waiting allows no more. Ask again later.",
                retry_after=self._estimate(waiting),
            )
        if self._bytes + submission.size > self.settings.max_waiting_bytes:
            raise LineFull(
                "The waiting requests are as large as --max-waiting-bytes allows. Ask again later.",
                retry_after=self._estimate(waiting),
            )

    def _estimate(self, jobs: int) -> int:
        return max(1, min(60, math.ceil(jobs * self._usual_run)))

    def _place(self, job: Job) -> Place:
        now, slot = _now(), self._scheduler.slot
        if slot is not None and slot.job is job:
            return Place(0, None, loading=slot.loading)
        if now >= self._places[0] + PLACES_KEPT:
            resident = self._line.resident
            waiting = [other for other in self._scheduler.waiting_jobs() if slot is None or other is not slot.job]
            waiting.sort(key=lambda other: (other.lane, other.key not in resident, other.arrival))
            self._places = (now, {other.id: place for place, other in enumerate(waiting)})
        ahead = self._places[1].get(job.id, 0) + (slot is not None)
        return Place(ahead, ahead * self._usual_run if self._usual_run else None)

    def _note_upstream(self) -> None:
        outage = self._scheduler.outage
        if outage is not None and not outage.failed_probes:
            return  # nobody knows yet
        there = outage is None
        if there is not self._upstream_there:
            self._upstream_there = there
            reason = outage.reason if outage is not None else None
            self._observe(lambda observer: observer.upstream_changed(reason))

    def _observe(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            tell(observer)


def _now() -> float:
    return trio.current_time()


_OUTCOMES: Final[tuple[tuple[type[QueueError], Outcome], ...]] = (
    (UpstreamRefused, Outcome.REFUSED),
    (ModelNotFound, Outcome.REFUSED),
    (UpstreamBusy, Outcome.BUSY),
    (UpstreamUnreachable, Outcome.UNREACHABLE),
    (ReaderTooSlow, Outcome.CANCELLED),
)


def _outcome_of(failure: QueueError) -> Outcome:
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(failure, kind)), Outcome.BROKEN)


_STREAM_TOTAL: Final = "The stream ran longer than --stream-total allows. Ask for fewer tokens, or raise it."
