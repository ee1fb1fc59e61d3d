"""The one task that owns the line and the slot.

It hands every event to the scheduler and does what the scheduler answers. Jobs come over a memory channel, and so does
the end of everything that was started. Nothing else changes the line, so there are no locks.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any, Final

import trio

from llm_queue.core.actions import Abort, Action, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import DrainBegan, Event, Left, LoadEnded, Stopped, Submitted
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.order import OrderRules, TurnOrder
from llm_queue.core.scheduler import RetryLimits, Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.trace import RecordedScheduler
from llm_queue.dispatch.attempts import ASK_TIMEOUT, Attempts, Entry
from llm_queue.dispatch.observe import FinishedJobs, Observer, report
from llm_queue.dispatch.tickets import Place, Submission, Ticket
from llm_queue.errors import Cancelled, Draining, LineFull, QueueError, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.protocol import Upstream

PLACES_KEPT: Final = 1.0
"""Seconds for which the places in line are not worked out again: they cost a look at every waiting job."""

JOBS_SHOWN: Final = 50
"""Jobs that the status lists: more than anybody reads, and cheap enough to ask for every second."""


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
    ) -> None:
        """``trace`` gets every line of a trace: see :mod:`llm_queue.core.trace`. None: nothing is recorded."""
        self.settings = settings
        self.upstream = upstream
        self.catalog = Catalog(upstream)
        self._finished = FinishedJobs(settings.remembered_jobs)
        self._observers: list[Observer] = [*observers, self._finished]
        floor, ceiling = (settings.num_ctx, settings.num_ctx_ceiling) if upstream.chooses_context else (0, 0)
        self._contexts = ContextSizes(floor, ceiling)
        rules = OrderRules(settings.lane_burst, settings.turn_factor, settings.switch_wait, settings.hold)
        limits = RetryLimits(settings.max_attempts, settings.outage_wait, settings.first_outage_wait)
        self._seat = Seat(self._contexts, _now())
        made_with = (TurnOrder(rules, self._contexts), self._seat, limits)
        self._scheduler = RecordedScheduler(*made_with, trace) if trace else Scheduler(*made_with)
        self._inbox_send, self._inbox = trio.open_memory_channel[Event](math.inf)
        self._entries: dict[str, Entry] = {}
        self._attempts = Attempts(settings, self.catalog)
        self._entering = 0
        self._bytes = 0
        self._arrivals = 0
        self._unknown_lanes = 0
        self._draining = False
        self._drained = trio.Event()
        self.unfinished: list[str] = []
        self._upstream_there: bool | None = None
        self._places: tuple[float, dict[str, int]] = (-math.inf, {})
        self._usual_run = 0.0

    # --- for the web ---

    @property
    def busy(self) -> bool:
        """True while somebody is served or waits."""
        return bool(self._entries)

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
            wanted_ctx=self._contexts.wanted_ctx(submission.num_ctx, model.trained if model else None),
            arrival=self._arrivals,
            submitted_at=_now(),
            max_wait=submission.max_wait if submission.max_wait is not None else self.settings.max_wait,
            size=submission.size,
        )
        leave = partial(self._post, Left(job, Cancelled("The caller left.")))
        ticket = Ticket(job, submission, leave=leave, place=partial(self._place, job))
        self._entries[job.id] = Entry(job, ticket, submission, model)
        self._entering += 1
        self._bytes += job.size
        self._post(Submitted(job))
        return ticket

    def readiness(self) -> str | None:
        """None if a job that came now could be served; else why not."""
        if self._draining:
            return "the service is shutting down"
        if self._seat.outage is not None:
            return f"{self.upstream.name} at {self.upstream.url} is not there: {self._seat.outage.reason}"
        return None

    def find(self, job_id: str) -> dict[str, Any] | None:
        """The report of a job that lives, or has ended lately."""
        entry = self._entries.get(job_id)
        if entry is None:
            return self._finished.find(job_id)
        found = report(entry.job, entry.submission, _now())
        if entry.job.state is State.QUEUED:
            found["ahead"] = self._place(entry.job).ahead
        return found

    def status(self) -> dict[str, Any]:
        """The line as a whole; ``jobs`` has the first of those that live, in about the order of their turns."""
        scheduler, counts, slot, hold = self._scheduler, self._scheduler.counts, self._seat.slot, self._seat.hold
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
            "held": hold is not None,
            "held_for": hold.client if hold is not None else None,
            "jobs": self._jobs(),
            "ended": {state.value: number for state, number in counts.ended.items()},
            "loads": counts.loads,
            "loads_failed": counts.loads_failed,
            "load_seconds": round(counts.load_seconds, 3),
            "reloads_avoided": counts.reloads_avoided,
            "surprise_loads": counts.surprise_loads,
            "retries": counts.retries,
            "outages": counts.outages,
            "unknown_lanes": self._unknown_lanes,
            "holds": self._seat.turn.holds,
            "held_seconds": round(self._seat.turn.held_seconds, 3),
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
            self._draining = True  # nobody would serve who came now
            for entry in self._entries.values():
                entry.ticket.settle(QueueError())
            self._entries.clear()
            raise DispatcherDied(str(bug)) from bug

    async def drain(self) -> None:
        """Take no more work, and wait until what is here has ended, ``drain_timeout`` at most; then answer the rest.

        Those stand in ``unfinished`` then. Cancelled, it answers the rest at once.
        """
        self._draining = True
        self._post(DrainBegan())
        try:
            with trio.move_on_after(self.settings.drain_timeout):
                await self._drained.wait()
        finally:
            self.unfinished = [entry.job.id for entry in self._entries.values()]
            if self.unfinished:
                self._post(Stopped(Draining(retry_after=5)))
                with trio.CancelScope(shield=True), trio.move_on_after(ASK_TIMEOUT):
                    await self._drained.wait()

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
            self._perform(self._scheduler.tick(_now()), nursery)
        else:
            self._take(event, nursery)
            with suppress(trio.WouldBlock):
                while True:
                    self._take(self._inbox.receive_nowait(), nursery)
        self._note_upstream()
        if self._draining and not self._entries:
            self._drained.set()

    def _post(self, event: Event) -> None:
        self._inbox_send.send_nowait(event)

    def _take(self, event: Event, nursery: trio.Nursery) -> None:
        now = _now()
        match event:
            case Submitted(job):
                self._entering -= 1
                submission = self._entries[job.id].submission
                self._observe(lambda observer: observer.queued(job, submission))
            case LoadEnded(job, _, error):
                slot = self._seat.slot
                assert slot is not None
                key, seconds = slot.key, now - slot.since
                self._observe(lambda observer: observer.load_ended(job, key, error, seconds))
        self._perform(self._scheduler.handle(event, now), nursery)

    # --- actions ---

    def _perform(self, actions: list[Action], nursery: trio.Nursery) -> None:
        for action in actions:
            self._act(action, nursery)

    def _act(self, action: Action, nursery: trio.Nursery) -> None:
        match action:
            case StartLoad(job, key):
                self._observe(lambda observer: observer.load_started(job, key))
                self._start(nursery, partial(self._attempts.load, self._entries[job.id], key))
            case StartAttempt(job, key):
                self._observe(lambda observer: observer.attempt_started(job, key))
                self._start(nursery, partial(self._attempts.attempt, self._entries[job.id], key))
            case Abort(job, error):
                self._entries[job.id].abort(error)
            case Requeued(job, reason):
                self._observe(lambda observer: observer.requeued(job, reason))
            case Settle(job, error):
                self._settle(job, error)
            case Probe():
                unresolved = [self._entries[job.id] for job in self._scheduler.unresolved]
                self._start(nursery, partial(self._attempts.probe, unresolved))
            case AskResident():
                self._start(nursery, self._attempts.ask_resident)

    def _start(self, nursery: trio.Nursery, work: Callable[[], Awaitable[Event]]) -> None:
        """Run ``work`` in a task of its own; the event that it returns goes into the inbox."""

        async def run() -> None:
            self._post(await work())

        nursery.start_soon(run)

    def _settle(self, job: Job, error: QueueError | None) -> None:
        entry = self._entries.pop(job.id)
        self._bytes -= job.size
        if error is None and entry.completion is not None:
            entry.ticket.settle(entry.completion, entry.answer)
            self._usual_run += (job.run_seconds - self._usual_run) / (8 if self._usual_run else 1)
        else:
            entry.ticket.settle(error or QueueError())
        self._observe(lambda observer: observer.ended(job, entry.submission, entry.completion, error))

    # --- small things ---

    def _refuse(self, submission: Submission) -> None:
        if self._draining:
            raise Draining(retry_after=5)
        outage = self._seat.outage
        if outage is not None and outage.given_up:
            raise UpstreamUnreachable(outage.reason)
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
        now, slot = _now(), self._seat.slot
        if slot is not None and slot.job is job:
            return Place(0, None, loading=slot.loading)
        if now >= self._places[0] + PLACES_KEPT:
            self._places = (now, {other.id: place for place, other in enumerate(self._in_order())})
        ahead = self._places[1].get(job.id, 0) + (slot is not None)
        return Place(ahead, ahead * self._usual_run if self._usual_run else None)

    def _in_order(self) -> list[Job]:
        """Who waits, about as they will go: by lane, those that need no load first, the clients in turn, by arrival."""
        slot, resident = self._seat.slot, self._seat.resident
        waiting = [job for job in self._scheduler.waiting_jobs() if slot is None or job is not slot.job]
        waiting.sort(key=attrgetter("arrival"))
        had = Counter([(slot.job.lane, slot.job.client)] if slot is not None else [])
        ranks: dict[str, tuple[Lane, bool, int]] = {}
        for job in waiting:
            had[job.lane, job.client] += 1
            ranks[job.id] = (job.lane, job.key not in resident, had[job.lane, job.client])
        return sorted(waiting, key=lambda job: ranks[job.id])

    def _jobs(self) -> list[dict[str, Any]]:
        slot = self._seat.slot
        first = [] if slot is None else [slot.job]
        shown = enumerate([*first, *self._in_order()][:JOBS_SHOWN], start=1 - len(first))
        return [self._job_status(job, place) for place, job in shown if job.id in self._entries]

    def _job_status(self, job: Job, place: int) -> dict[str, Any]:
        slot, submission = self._seat.slot, self._entries[job.id].submission
        state, waited_until = job.state.value, _now()
        if slot is not None and slot.job is job:
            state = "loading" if slot.loading else "running"
            waited_until = waited_until if slot.loading else slot.since
        return {
            "id": job.id,
            "client": job.client,
            "lane": job.lane.label,
            "model": submission.model.name if submission.model else submission.request.model,
            "num_ctx": job.key.num_ctx if job.key else None,
            "resident": job.key in self._seat.resident,
            "state": state,
            "place": place,
            "waited_s": round(max(0.0, waited_until - job.submitted_at - job.run_seconds), 3),
        }

    def _note_upstream(self) -> None:
        outage = self._seat.outage
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
