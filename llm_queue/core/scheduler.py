"""The line, the slot and the upstream's state as one machine: events in, actions out.

Nothing here waits, asks or sends. :meth:`Scheduler.handle` takes an event and returns what must be done, in order. The
owner calls :meth:`Scheduler.tick` no later than :meth:`Scheduler.wake_at`, and reports the end of all that it was told
to start. The slot is free only once that end was reported, so two requests are never in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from llm_queue.core.actions import Abort, Action, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad, Unload
from llm_queue.core.counts import Counts
from llm_queue.core.estimates import Estimate, estimates
from llm_queue.core.events import (
    AttemptEnded,
    DrainBegan,
    Event,
    Left,
    LoadEnded,
    Moved,
    Outcome,
    Paused,
    ProbeEnded,
    ResidentReported,
    Resumed,
    SeatEvent,
    Stopped,
    Submitted,
    UnloadEnded,
)
from llm_queue.core.forecast import Forecast, forecast
from llm_queue.core.heap import RemovableHeap
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.picks import Picks
from llm_queue.core.rules import Order
from llm_queue.core.seat import Occupant, Seat
from llm_queue.core.turn import Hold
from llm_queue.core.verdict import NOT_THE_JOBS_FAULT, RetryLimits, verdict
from llm_queue.errors import LoadFailed, QueueError, WaitExpired


class Scheduler:
    """See the module. The waiting jobs are the order's, all that belongs to the upstream is the seat's."""

    def __init__(self, order: Order, seat: Seat, limits: RetryLimits) -> None:
        """``order`` and ``seat`` share the context sizes, and are changed by nothing else from now on."""
        self.seat = seat
        self.limits = limits
        self.counts = Counts()
        self.picks = Picks()
        self.draining = False
        self._order = order
        self._unresolved: dict[str, Job] = {}
        self._patience: RemovableHeap[Job] = RemovableHeap()
        self._actions: list[Action] = []

    # --- what can be seen ---

    @property
    def waiting(self) -> int:
        """Jobs that wait, here or for the upstream's catalogue."""
        return len(self._order) + len(self._unresolved)

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing holds the slot."""
        return self.seat.slot is None and not self.waiting

    @property
    def unresolved(self) -> Iterable[Job]:
        """Jobs accepted while the upstream could not say which model their name stands for."""
        return self._unresolved.values()

    @property
    def with_max_wait(self) -> int:
        """Jobs that wait and will expire."""
        return len(self._patience)

    def waiting_jobs(self) -> Iterable[Job]:
        """All waiting jobs, in no order."""
        yield from self._unresolved.values()
        yield from self._order.waiting()

    def waiting_by_lane(self) -> dict[Lane, int]:
        """How many jobs wait in each lane."""
        unresolved = Counter(job.lane for job in self._unresolved.values())
        return {lane: unresolved[lane] + self._order.waiting_in(lane) for lane in Lane}

    def forecast(self, now: float, limit: int) -> list[Forecast]:
        """The first ``limit`` jobs that have not ended, in the order in which they will run: see :mod:`.forecast`.

        Those whose model is not known yet come last.
        """
        found = forecast(self._order, self.seat, now, limit, may_hold=not self.draining)
        unresolved = islice(self._unresolved.values(), limit - len(found))
        return found + [Forecast(job, None, load=False) for job in unresolved]

    def estimates(self, now: float, picks: int) -> dict[str, Estimate]:
        """Between which seconds from now the next jobs will probably start: see :mod:`.estimates`."""
        return estimates(self._order, self.seat, now, picks, may_hold=not self.draining)

    def wake_at(self) -> float | None:
        """When :meth:`tick` is due if nothing else happens before; None: never."""
        seat = self.seat
        times = [seat.hold.until if seat.hold is not None else None]
        if self._patience and not seat.asking:
            times.append(self._patience.first().expires_at)
        if seat.outage is not None:
            times.append(seat.outage.probe_at)
            if not seat.outage.given_up:
                times.append(seat.outage.gives_up_at(self.limits, seen=seat.seen))
        else:
            times.append(seat.busy_until)
        return min((time for time in times if time is not None), default=None)

    # --- events ---

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in what happened at ``now``, in seconds. Returns what must be done, in order."""
        assert not isinstance(event, SeatEvent) or event.seat == self.seat.id, "an event of a seat that there is not"
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
                self.seat.asking = False
                self.seat.know_resident(reported, now)
            case Moved(job, lane):
                self._move(job, lane, now)
            case Paused(unload):
                self._pause(now, unload=unload)
            case Resumed():
                self.seat.pause = None
            case UnloadEnded():
                if event.outcome is Outcome.UNREACHABLE:
                    self.seat.begin_outage(now, event.error.message if event.error else "it cannot be reached")
                self.seat.unload_ended(event, now)
            case DrainBegan():
                self.draining, self.seat.pause = True, None
            case Stopped(error):  # pragma: no branch - the last kind there is
                self._stop(error, now)
        return self._proceed(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed. Call it no later than :meth:`wake_at`; returns what must be done, in order."""
        return self._proceed(now)

    def _submitted(self, job: Job, now: float) -> None:
        self.counts.arrived(RunnerKey(job.model or "", job.wanted_ctx))
        if job.model is None:
            self._unresolved[job.id] = job
            self.seat.begin_outage(now, "it did not say which models it has")
        else:
            self._enter(job, now)
        if job.expires_at is not None and not job.state.ended:
            self._patience.push((job.expires_at, job.arrival), job)

    def _load_ended(self, event: LoadEnded, now: float) -> None:
        seat, outcome = self.seat, event.outcome
        occupant = self._free_slot(event.job, loading=True)
        job, key, seconds = occupant.job, occupant.key, now - occupant.since
        job.load_seconds += seconds
        self.counts.load_seconds += seconds
        seat.know_resident(event.reported, now)
        succeeded, waits = outcome is Outcome.SUCCEEDED, job.state is State.QUEUED
        self.picks.load_ended(job, seconds, succeeded=succeeded)
        if succeeded:
            self.counts.loads += 1
            seat.loaded(key, event.reported)
            self._order.rekey(key.model)
        self._order.load_ended(seat.turn, job, key, seconds, succeeded=succeeded, job_waits=waits)
        if outcome is Outcome.BROKEN:
            job.broken_loads += 1
        if succeeded:
            seat.took_work()
        elif outcome is Outcome.BUSY:
            seat.back_off(now)
        elif outcome is Outcome.UNREACHABLE or (
            outcome is Outcome.BROKEN and job.broken_loads < self.limits.max_attempts
        ):
            self.seat.begin_outage(now, event.error.message if event.error else "it cannot be reached")
        else:
            self.counts.loads_failed += 1
            self.seat.look_for_loop(event.error, now)
            self._load_failed(job, key, event.error or LoadFailed(), now, timed_out=outcome is Outcome.TIMED_OUT)

    def _attempt_ended(self, event: AttemptEnded, now: float) -> None:
        seat, outcome, error = self.seat, event.outcome, event.error
        occupant = self._free_slot(event.job, loading=False)
        job, seconds = occupant.job, now - occupant.since
        seat.worked(now)
        self.picks.attempt_ended(job, event.prompt, now)
        job.run_seconds += seconds
        job.committed = job.committed or event.committed
        if event.surprise_load:
            seat.turn.reloaded(occupant.key.model)
        prompt = event.prompt if outcome is Outcome.SUCCEEDED else None
        self._order.bill(seat.turn, job, seconds, prompt, event.ending)
        if event.unloaded:
            seat.unloaded(occupant.key)
        if event.surprise_load:
            self.counts.surprise_loads += 1
            self._ask_resident()
        if outcome is Outcome.UNREACHABLE:
            self.seat.begin_outage(now, error.message if error else "it cannot be reached")
        elif outcome is Outcome.BUSY:
            seat.back_off(now)
        else:
            seat.took_work()
            self.seat.look_for_loop(error, now)

        state, error = verdict(event, job, job.max_attempts or self.limits.max_attempts)
        if error is None or state is not State.QUEUED:
            self._end(job, state, error, now)
            return
        if event.needed_ctx is not None:
            job.wanted_ctx = job.fitted_ctx = event.needed_ctx
        if event.needed_ctx is not None or outcome in NOT_THE_JOBS_FAULT:
            job.attempts -= 1
        else:
            self.counts.retries += 1
        job.move(State.QUEUED, now)
        self._order.add(job)
        self._actions.append(Requeued(job, error))

    def _probe_ended(self, event: ProbeEnded, now: float) -> None:
        if event.failure is not None:
            self.seat.probe_failed(event.failure, now)
            return
        self.seat.probe_succeeded(event.reported, now)
        for job_id, answer in event.resolved.items():
            job = self._unresolved.pop(job_id, None)
            if job is None:
                continue
            if isinstance(answer, QueueError):
                self._end(job, State.FAILED, answer, now)
                continue
            job.model = answer.model
            job.wanted_ctx = self.seat.contexts.wanted_ctx(job.wanted_ctx, answer.trained)
            job.fitted_ctx = job.fitted_ctx and job.wanted_ctx
            self._enter(job, now)
        for model in {key.model for key in self.seat.resident}:
            self._order.rekey(model)
        if self._unresolved:  # accepted while the probe was under way
            self.seat.begin_outage(now, "it did not say which models it has")

    def _move(self, job: Job, lane: Lane, now: float) -> None:
        waits = job.state is State.QUEUED  # an attempt is billed to the lane that it was picked from
        known = waits and job.id not in self._unresolved
        if known:
            self._order.remove(job)
        if waits:
            job.change_lane(lane, now)
        if known:
            self._order.add(job)

    def _pause(self, now: float, *, unload: bool) -> None:
        if self.draining:
            return  # it must end
        if self.seat.turn.hold is not None:
            self._order.choose(self.seat.turn, now, may_hold=False)  # this ends the hold; who is chosen waits
            self.picks.none_made(None, self.seat.turn)
        self.seat.order_pause(now, unload=unload)

    def _stop(self, error: QueueError, now: float) -> None:
        self.draining, self.seat.pause = True, None
        for job in list(self.waiting_jobs()):
            self._cancel(job, error, now)
        if self.seat.slot is not None and not self.seat.slot.loading:
            self._cancel(self.seat.slot.job, error, now)

    # --- what follows from them ---

    def _proceed(self, now: float) -> list[Action]:
        self._watch_outage(now)
        self._fill_slot(now)
        # Until the upstream has said what it has loaded, it is not known which jobs can start now.
        if not self.seat.asking and self._expire(now) and self.seat.hold is not None:
            self._fill_slot(now)  # without the jobs that have just expired, a hold may be shorter
        if self.seat.begin_unload():
            self._actions.append(Unload(self.seat.id))
        actions, self._actions = self._actions, []
        return actions

    def _expire(self, now: float) -> bool:
        expired = False
        while self._patience:
            job = self._patience.first()
            if job.expires_at is None or job.expires_at > now:
                break
            self._drop(job)
            self._end(job, State.EXPIRED, WaitExpired(), now)
            expired = True
        return expired

    def _fill_slot(self, now: float) -> None:
        seat = self.seat
        seat.end_back_off(now)
        if not seat.open:
            return
        if len(self._order) and seat.stale(now):
            self._ask_resident()
            return
        job = self._order.choose(seat.turn, now, may_hold=not self.draining)
        if job is None or isinstance(job, Hold):
            self.picks.none_made(job, seat.turn)
            return
        key = self._order.key_of(job)
        self.picks.picked(job, key, self._order.rule, seat.turn, now)
        job.busy_since = now
        job.picked = True
        self._patience.discard(job)
        if key in seat.resident:
            self._order.serve(seat.turn, job)
            job.move(State.RUNNING, now)
            seat.slot = Occupant(job, key, loading=False, since=now)
            self._actions.append(StartAttempt(job, key, seat.id))
        else:
            seat.turn.unbind()
            seat.slot = Occupant(job, key, loading=True, since=now)
            self._actions.append(StartLoad(job, key, seat.id))

    def _free_slot(self, job: Job, *, loading: bool) -> Occupant:
        occupant, self.seat.slot = self.seat.slot, None
        assert occupant is not None
        assert (occupant.job, occupant.loading) == (job, loading), "the slot was not its own"
        job.busy_since = None
        return occupant

    def _watch_outage(self, now: float) -> None:
        outage = self.seat.outage
        if outage is not None:
            outage.given_up = (
                outage.given_up or outage.loop or now >= outage.gives_up_at(self.limits, seen=self.seat.seen)
            )
            for job in list(self.waiting_jobs()) if outage.given_up else ():
                self._drop(job)
                self._end(job, State.FAILED, outage.error, now)
        if self.seat.probe_is_due(now):
            self._actions.append(Probe(self.seat.id))

    def _ask_resident(self) -> None:
        self.seat.asking = True
        self._actions.append(AskResident(self.seat.id))

    def _cancel(self, job: Job, error: QueueError, now: float) -> None:
        if job.state is State.QUEUED:
            job.cancel_requested = True
            self._drop(job)
            self._end(job, State.CANCELLED, error, now)
        elif job.state is State.RUNNING and not job.cancel_requested:
            job.cancel_requested = True
            self._actions.append(Abort(job, error, self.seat.id))

    def _load_failed(self, job: Job, key: RunnerKey, error: QueueError, now: float, *, timed_out: bool) -> None:
        error, last_good = self.seat.load_failed(key, error, now)
        state = State.TIMED_OUT if timed_out else State.FAILED
        for other in list(self._order.waiting()):
            # A job that wants more still would fail as well, and evict the good model once more.
            too_large = last_good is not None and other.model == key.model and other.wanted_ctx > last_good
            if other is job or self._order.key_of(other) == key or too_large:
                self._drop(other)
                if last_good is not None and other.fitted_ctx is not None:
                    # It has not asked for so much: what it needs was estimated, and the upstream will count.
                    other.wanted_ctx, other.fitted_ctx = last_good, None
                    self._order.add(other)
                else:
                    self._end(other, state, error, now)

    def _enter(self, job: Job, now: float) -> None:
        self._order.arrives(job, now)
        error = self.seat.refusal(job, now)
        if error is None:
            self._order.add(job)
        else:
            self._end(job, State.FAILED, error, now)

    def _drop(self, job: Job) -> None:
        if self._unresolved.pop(job.id, None) is None:
            self._order.remove(job)
            self.seat.turn.release(job)

    def _end(self, job: Job, state: State, error: QueueError | None, now: float) -> None:
        job.move(state, now)
        self._patience.discard(job)
        self.counts.ended[state] = self.counts.ended.get(state, 0) + 1
        if job.model is not None:
            self._order.leaves(job, now, answered=state is State.SUCCEEDED)
        self._actions.append(Settle(job, error))
