"""The line, the slot and the upstream's state as one machine: events in, actions out.

Nothing here waits, asks or sends. :meth:`Scheduler.handle` takes an event and returns what must be done, in order. The
owner calls :meth:`Scheduler.tick` no later than :meth:`Scheduler.wake_at`, and reports the end of all that it was told
to start. The slot is free only once that end was reported, so two requests are never in flight.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_queue.core.actions import Abort, Action, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import (
    AttemptEnded,
    DrainBegan,
    Event,
    Left,
    LoadEnded,
    Outcome,
    ProbeEnded,
    ResidentReported,
    Stopped,
    Submitted,
)
from llm_queue.core.fairness import RemovableHeap
from llm_queue.core.jobs import Job, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import Hold, Order
from llm_queue.core.records import PROBE_DELAYS, Counts, Occupant, Outage, RetryLimits
from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    LoadFailed,
    QueueError,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamUnreachable,
    WaitExpired,
)

REFUSE_AFTER_FAILED_LOAD: Final = 30.0
"""Seconds for which a key that could not be loaded is refused: each try evicts a model that works."""

STALE_AFTER: Final = 60.0
"""Seconds without upstream work after which what is resident is asked for before it is relied on: keep-alive runs out,
and programs that bypass the line load what they like."""

BUSY_DELAYS: Final = (0.1, 2.0)
"""Seconds before a busy upstream is tried again: the first, doubling up to the last."""


class Scheduler:
    """See the module. The order of waiting jobs is the order's; the context sizes are shared with it."""

    def __init__(self, order: Order, contexts: ContextSizes, limits: RetryLimits, now: float) -> None:
        self.limits = limits
        self.counts = Counts()
        self.slot: Occupant | None = None
        self.outage: Outage | None = Outage(since=now, reason="not asked yet", probe_at=now)
        self.draining = False
        self.seen_upstream = False
        self.held_until: float | None = None
        self.held_for: str | None = None
        self._order = order
        self._contexts = contexts
        self._unresolved: dict[str, Job] = {}
        self._patience: RemovableHeap[Job] = RemovableHeap()
        self._refused: dict[RunnerKey, tuple[float, QueueError]] = {}
        self._probing = False
        self._asking = False
        self._known_at = now
        self._busy_until: float | None = None
        self._busy_delay = BUSY_DELAYS[0]
        self._last_wanted: RunnerKey | None = None
        self._actions: list[Action] = []

    # --- what can be seen ---

    @property
    def waiting(self) -> int:
        """Jobs that wait, here or for the upstream's catalogue."""
        return len(self._order) + len(self._unresolved)

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing holds the slot."""
        return self.slot is None and not self.waiting

    @property
    def unresolved(self) -> Iterable[Job]:
        """Jobs accepted while the upstream could not say which model their name stands for."""
        return self._unresolved.values()

    def waiting_jobs(self) -> Iterable[Job]:
        """All waiting jobs, in no order."""
        yield from self._unresolved.values()
        yield from self._order.waiting()

    def wake_at(self) -> float | None:
        """When :meth:`tick` is due if nothing else happens before; None: never."""
        times = [self.held_until]
        if self._patience and not self._asking:
            times.append(self._patience.first().expires_at)
        if self.outage is not None:
            times.append(self.outage.probe_at)
            if not self.outage.given_up:
                times.append(self._gives_up_at(self.outage))
        else:
            times.append(self._busy_until)
        return min((time for time in times if time is not None), default=None)

    # --- events ---

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in what happened at ``now``, in seconds. Returns what must be done, in order."""
        match event:
            case Submitted(job):
                self._submitted(job, now)
            case Left(job, error):
                self._cancel(job, error, now)
            case LoadEnded():
                self._load_ended(event, now)
            case AttemptEnded():
                self._attempt_ended(event, now)
            case ProbeEnded():
                self._probe_ended(event, now)
            case ResidentReported(reported):
                self._asking = False
                self._know_resident(reported, now)
            case DrainBegan():
                self.draining = True
            case Stopped(error):
                self._stop(error, now)
        return self._proceed(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed. Call it no later than :meth:`wake_at`; returns what must be done, in order."""
        return self._proceed(now)

    def _submitted(self, job: Job, now: float) -> None:
        self._count_first_come(job)
        if job.model is None:
            self._unresolved[job.id] = job
            self._begin_outage(now, "it did not say which models it has")
        else:
            self._enter(job, now)
        if job.expires_at is not None and not job.state.ended:
            self._patience.push((job.expires_at, job.arrival), job)

    def _load_ended(self, event: LoadEnded, now: float) -> None:
        assert self.slot is not None
        assert self.slot.loading
        assert self.slot.job is event.job
        occupant, self.slot = self.slot, None
        job, key, outcome, error = occupant.job, occupant.key, event.outcome, event.error
        seconds = now - occupant.since
        job.load_seconds += seconds
        self.counts.load_seconds += seconds
        self._know_resident(event.reported, now)
        waits = job.state is State.QUEUED
        if outcome is Outcome.SUCCEEDED:
            self.counts.loads += 1
            self._order.resident = self._contexts.loaded(key, event.reported or ())
            self._order.rekey(key.model)
        self._order.load_ended(job, key, seconds, succeeded=outcome is Outcome.SUCCEEDED, job_waits=waits)
        if outcome is Outcome.BROKEN:
            job.broken_loads += 1
        if outcome is Outcome.SUCCEEDED:
            self._busy_delay = BUSY_DELAYS[0]
        elif outcome is Outcome.BUSY:
            self._back_off(now)
        elif outcome is Outcome.UNREACHABLE or (
            outcome is Outcome.BROKEN and job.broken_loads < self.limits.max_attempts
        ):
            self._begin_outage(now, error.message if error else "it cannot be reached")
        else:
            self.counts.loads_failed += 1
            self._load_failed(job, key, error or LoadFailed(), now, timed_out=outcome is Outcome.TIMED_OUT)

    def _attempt_ended(self, event: AttemptEnded, now: float) -> None:
        assert self.slot is not None
        assert not self.slot.loading
        assert self.slot.job is event.job
        job, since, outcome, error = self.slot.job, self.slot.since, event.outcome, event.error
        self.slot = None
        self._known_at = now
        seconds = now - since
        job.run_seconds += seconds
        self._order.bill(job, seconds)
        if event.surprise_load:
            self.counts.surprise_loads += 1
            self._ask_resident()
        if outcome not in (Outcome.BUSY, Outcome.UNREACHABLE):
            self._busy_delay = BUSY_DELAYS[0]
        if outcome is Outcome.UNREACHABLE:
            self._begin_outage(now, error.message if error else "it cannot be reached")
        elif outcome is Outcome.BUSY:
            self._back_off(now)

        if outcome is Outcome.SUCCEEDED:
            self._end(job, State.SUCCEEDED, None, now)
        elif job.cancel_requested or outcome is Outcome.CANCELLED:
            self._end(job, State.CANCELLED, error or Cancelled(), now)
        elif outcome is Outcome.REFUSED or job.committed:
            state = State.TIMED_OUT if outcome is Outcome.TIMED_OUT else State.FAILED
            self._end(job, state, error or UpstreamRefused(), now)
        elif outcome in (Outcome.UNREACHABLE, Outcome.BUSY):
            job.attempts -= 1
            self._requeue(job, error or UpstreamUnreachable(), now)
        elif job.attempts < self.limits.max_attempts:
            self.counts.retries += 1
            self._requeue(job, error or UpstreamBroke(), now)
        elif outcome is Outcome.TIMED_OUT:
            self._end(job, State.TIMED_OUT, error or AttemptTimedOut(), now)
        else:
            self._end(job, State.FAILED, error or UpstreamBroke(), now)

    def _probe_ended(self, event: ProbeEnded, now: float) -> None:
        self._probing = False
        outage = self.outage
        if outage is None:
            return
        if event.failure is not None:
            outage.reason = event.failure.message
            outage.failed_probes += 1
            outage.probe_at = now + outage.delay
            outage.delay = min(outage.delay * 2, PROBE_DELAYS[1])
            return
        self.seen_upstream = True
        self._order.resident = self._contexts.adopt(event.reported)
        self._known_at = now
        for job_id, answer in event.resolved.items():
            job = self._unresolved.pop(job_id, None)
            if job is None:
                continue
            if isinstance(answer, QueueError):
                self._end(job, State.FAILED, answer, now)
                continue
            job.model = answer.model
            job.wanted_ctx = self._contexts.wanted_ctx(job.wanted_ctx, answer.trained)
            self._enter(job, now)
        for model in {key.model for key in self._order.resident}:
            self._order.rekey(model)
        self.outage = None
        if self._unresolved:  # accepted while the probe was under way
            self._begin_outage(now, "it did not say which models it has")

    def _stop(self, error: QueueError, now: float) -> None:
        self.draining = True
        for job in list(self.waiting_jobs()):
            self._cancel(job, error, now)
        if self.slot is not None and not self.slot.loading:
            self._cancel(self.slot.job, error, now)

    # --- what follows from them ---

    def _proceed(self, now: float) -> list[Action]:
        self._watch_outage(now)
        self._fill_slot(now)
        # Until the upstream has said what it has loaded, nobody knows who can start now.
        if not self._asking and self._expire(now) and self.held_until is not None:
            self._fill_slot(now)  # the hold may have been as long as it was for who has just gone
        actions, self._actions = self._actions, []
        return actions

    def _expire(self, now: float) -> bool:
        somebody = False
        while self._patience:
            job = self._patience.first()
            if job.expires_at is None or job.expires_at > now:
                break
            self._drop(job)
            self._end(job, State.EXPIRED, WaitExpired(), now)
            somebody = True
        return somebody

    def _fill_slot(self, now: float) -> None:
        self.held_until = self.held_for = None
        if self._busy_until is not None and now >= self._busy_until:
            self._busy_until = None
        if self.slot is not None or self.outage is not None or self._asking or self._busy_until is not None:
            return
        if len(self._order) and now - self._known_at > STALE_AFTER:
            self._ask_resident()
            return
        chosen = self._order.choose(now, may_hold=not self.draining)
        if chosen is None:
            return
        if isinstance(chosen, Hold):
            self.held_until, self.held_for = chosen.until, chosen.client
            return
        job, key = chosen, chosen.key
        assert key is not None
        self._set_picked(job)
        if key in self._order.resident:
            self._order.serve(job)
            job.move(State.RUNNING, now)
            self.slot = Occupant(job, key, loading=False, since=now)
            self._actions.append(StartAttempt(job, key))
        else:
            self._order.unbind()
            self.slot = Occupant(job, key, loading=True, since=now)
            self._actions.append(StartLoad(job, key))

    def _watch_outage(self, now: float) -> None:
        outage = self.outage
        if outage is None:
            return
        outage.given_up = outage.given_up or now >= self._gives_up_at(outage)
        if outage.given_up and self.waiting:
            self._give_up(now)
        if outage.probe_at is not None and now >= outage.probe_at:
            outage.probe_at = None
            if not self._probing:
                self._probing = True
                self._actions.append(Probe())

    def _gives_up_at(self, outage: Outage) -> float:
        return outage.since + (self.limits.outage_wait if self.seen_upstream else self.limits.first_outage_wait)

    def _give_up(self, now: float) -> None:
        for job in list(self.waiting_jobs()):
            self._drop(job)
            self._end(job, State.FAILED, UpstreamUnreachable(), now)

    def _begin_outage(self, now: float, reason: str) -> None:
        self._order.unbind()
        if self.outage is None:
            self.counts.outages += self.seen_upstream
            self.outage = Outage(since=now, reason=reason, probe_at=now)

    def _back_off(self, now: float) -> None:
        self._busy_until = now + self._busy_delay
        self._busy_delay = min(self._busy_delay * 2, BUSY_DELAYS[1])

    def _ask_resident(self) -> None:
        if not self._asking:
            self._asking = True
            self._actions.append(AskResident())

    def _know_resident(self, reported: Iterable[RunnerKey] | None, now: float) -> None:
        self._known_at = now
        if reported is not None:
            self._order.resident = self._contexts.translate(reported)

    def _cancel(self, job: Job, error: QueueError, now: float) -> None:
        if job.state is State.QUEUED:
            job.cancel_requested = True
            self._drop(job)
            self._end(job, State.CANCELLED, error, now)
        elif job.state is State.RUNNING and not job.cancel_requested:
            job.cancel_requested = True
            self._actions.append(Abort(job, error))

    def _load_failed(self, job: Job, key: RunnerKey, error: QueueError, now: float, *, timed_out: bool) -> None:
        last_good = self._contexts.failed(key)
        if last_good is not None:
            error = error.saying(f"{error.message} (context {key.num_ctx}; {last_good} worked before: ask for no more)")
        else:
            self._refused = {key: entry for key, entry in self._refused.items() if now < entry[0]}
            self._refused[key] = (now + REFUSE_AFTER_FAILED_LOAD, error)
        state = State.TIMED_OUT if timed_out else State.FAILED
        for other in list(self._order.waiting()):
            # Whoever waits for still more would fail as well, and evict the good model once more.
            too_large = last_good is not None and other.model == key.model and other.wanted_ctx > last_good
            if other is job or other.key == key or too_large:
                self._drop(other)
                self._end(other, state, error, now)

    def _refusal(self, job: Job, now: float) -> QueueError | None:
        assert job.model is not None
        limit = self._contexts.limit(job.model)
        if limit is not None and job.wanted_ctx > limit:
            return LoadFailed(
                f"A context of {job.wanted_ctx} could not be loaded for this model: ask for numCtx up to {limit}."
            )
        until, error = self._refused.get(self._contexts.key(job.model, job.wanted_ctx), (now, None))
        return error if now < until else None

    def _enter(self, job: Job, now: float) -> None:
        self._order.arrives(job, now)
        error = self._refusal(job, now)
        if error is None:
            self._order.add(job)
        else:
            self._end(job, State.FAILED, error, now)

    def _requeue(self, job: Job, error: QueueError, now: float) -> None:
        job.move(State.QUEUED, now)
        self._order.add(job)
        self._actions.append(Requeued(job, error))

    def _drop(self, job: Job) -> None:
        if self._unresolved.pop(job.id, None) is None:
            self._order.remove(job)

    def _set_picked(self, job: Job) -> None:
        job.picked = True
        self._stop_patience(job)

    def _stop_patience(self, job: Job) -> None:
        if job in self._patience:
            self._patience.remove(job)

    def _end(self, job: Job, state: State, error: QueueError | None, now: float) -> None:
        job.move(state, now)
        self._stop_patience(job)
        self.counts.ended[state] = self.counts.ended.get(state, 0) + 1
        if job.model is not None:
            self._order.leaves(job, now, answered=state is State.SUCCEEDED)
        self._actions.append(Settle(job, error))

    def _count_first_come(self, job: Job) -> None:
        wanted_ctx = RunnerKey(job.model or "", job.wanted_ctx)
        self.counts.loads_first_come += wanted_ctx != self._last_wanted
        self._last_wanted = wanted_ctx
