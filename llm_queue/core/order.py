"""Who goes next.

A pure function of what has happened so far: time comes in as an argument, nothing here waits or asks. The rules, their
bounds and why they hold stand in docs/scheduling.md; the names are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.fairness import FairQueue
from llm_queue.core.habits import Habits, Loop
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey

WARM_UPS: Final = 3
"""Of so many last first runs after a load the one that lost least time counts: a long job is no cold start."""

FIRST_GUESS: Final = 3.0
"""Seconds that a load is taken to cost before one was measured: a 5 GB model from a laptop's disk."""


@dataclass(frozen=True)
class OrderRules:
    """The knobs of the line; the settings of the same names say what they mean."""

    lane_burst: int = 8
    turn_factor: float = 9.0
    switch_wait: float = 20.0
    hold: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Nobody goes next before ``until``, unless somebody comes: ``client`` is about to ask for ``key`` again."""

    until: float
    client: str
    key: RunnerKey
    lane: Lane


@dataclass(slots=True)
class SwitchCost:
    """What going to a model costs, in seconds: its last load, and what its first run after a load loses at least.

    An engine's caches are cold after a load; that can cost as much as the load, and more does not count.
    """

    load: float = FIRST_GUESS
    _lost: deque[float] = field(default_factory=lambda: deque(maxlen=WARM_UPS))

    @property
    def seconds(self) -> float:
        """The sum of both, as far as they are known."""
        return self.load + (min(self._lost) if len(self._lost) == WARM_UPS else 0.0)

    def warmed_up(self, lost: float) -> None:
        """The first run after a load took so much longer than its program's usual one."""
        self._lost.append(min(max(0.0, lost), self.load))


class Order(Protocol):
    """What the scheduler asks of an order. All times are in seconds."""

    resident: frozenset[RunnerKey]

    def __len__(self) -> int:
        """How many jobs wait."""

    def add(self, job: Job) -> None:
        """A job waits, for the first time or again."""

    def remove(self, job: Job) -> None:
        """A waiting job is over."""

    def choose(self, now: float, *, may_hold: bool) -> Job | Hold | None:
        """Who is next. It keeps waiting until :meth:`serve`, or, if it needs a load, until that is done."""

    def serve(self, job: Job) -> None:
        """The chosen job gets the slot for an attempt."""

    def bill(self, job: Job, seconds: float) -> None:
        """The attempt of the job served last took so much slot time."""

    def load_ended(self, job: Job, key: RunnerKey, seconds: float, *, succeeded: bool, job_waits: bool) -> None:
        """The load took so much slot time. If the job that caused it still waits, it is bound to it: see the rules."""

    def unbind(self) -> None:
        """No waiting job is bound to the last load any more: a new load begins, or the upstream is away."""

    def arrives(self, job: Job, now: float) -> None:
        """A job was accepted; its model is known."""

    def leaves(self, job: Job, now: float, *, answered: bool) -> None:
        """A job that has arrived is over."""

    def rekey(self, model: str) -> None:
        """The current context size of this model has changed."""

    def waiting(self) -> Iterable[Job]:
        """All waiting jobs, in no order."""


class _LaneQueue:
    __slots__ = ("passed_over", "queues", "waiting")

    def __init__(self) -> None:
        self.queues: dict[RunnerKey, FairQueue] = {}
        self.waiting = 0
        self.passed_over = 0

    def wanted(self) -> list[RunnerKey]:
        return [key for key, queue in self.queues.items() if queue]


class TurnOrder:
    """Lanes, turns of keys inside a lane, fair share inside a key, arrival inside a client."""

    def __init__(self, rules: OrderRules, contexts: ContextSizes) -> None:
        self.rules = rules
        self.resident: frozenset[RunnerKey] = frozenset()
        self.turn_used = 0.0
        self.held_seconds = 0.0
        self.holds = 0
        self._contexts = contexts
        self._lanes = {lane: _LaneQueue() for lane in Lane}
        self._habits = Habits()
        self._costs: dict[str, SwitchCost] = {}
        self._cold: RunnerKey | None = None
        self._clock = 0
        self._bound: Job | None = None
        self._hold: Hold | None = None
        self._held_since = 0.0

    def __len__(self) -> int:
        return sum(lane.waiting for lane in self._lanes.values())

    # --- what waits ---

    def add(self, job: Job) -> None:
        lane = self._lanes[job.lane]
        if not lane.waiting:
            lane.passed_over = 0
        lane.waiting += 1
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        assert job.model is not None
        queues = self._lanes[job.lane].queues
        job.key = self._contexts.key(job.model, job.wanted_ctx)
        queue = queues.get(job.key)
        if queue is None:
            queue = queues[job.key] = FairQueue(self._tick())
        queue.add(job)

    def remove(self, job: Job) -> None:
        self._queue(job).remove(job)
        self._lanes[job.lane].waiting -= 1
        self._forget_if_idle(job)
        if job is self._bound:
            self._bound = None

    def waiting(self) -> Iterable[Job]:
        return (job for lane in self._lanes.values() for queue in lane.queues.values() for job in queue.jobs())

    def rekey(self, model: str) -> None:
        for lane in self._lanes.values():
            for key in [key for key in lane.queues if key.model == model]:
                if self._contexts.key(model, key.num_ctx) == key:
                    continue
                queue = lane.queues[key]
                for job in queue.jobs():
                    queue.remove(job)
                    self._enqueue(job)
                    merged = lane.queues[self._key(job)]
                    merged.wanted_since = min(merged.wanted_since, queue.wanted_since)
                if queue.idle:
                    del lane.queues[key]

    def arrives(self, job: Job, now: float) -> None:
        self._habits.arrives(_loop(job), now)

    def leaves(self, job: Job, now: float, *, answered: bool) -> None:
        self._habits.leaves(_loop(job), now, answered=answered)

    # --- who goes next ---

    def choose(self, now: float, *, may_hold: bool) -> Job | Hold | None:
        chosen = self._choose(now, may_hold=may_hold)
        self._note_hold(chosen, now)
        return chosen

    def _choose(self, now: float, *, may_hold: bool) -> Job | Hold | None:
        if self._bound is not None and self._is_resident(self._bound):
            return self._choose_with(self._bound)
        lanes = [lane for lane in Lane if self._lanes[lane].waiting]
        if not lanes:
            return None
        over = self.turn_used >= self.turn_length()
        chosen = self._choose_in(lanes[0], over)
        for late in self._overdue(lanes):
            job = self._choose_in(late, over)
            if self._is_resident(job) or over or not self._is_resident(chosen):
                return job
        if may_hold and not over and not self._is_resident(chosen):
            return self._worth_waiting_for(chosen, now) or chosen
        return chosen

    def _choose_with(self, bound: Job) -> Job:
        """The job that caused the load, but for interactive jobs that can use it, and those within their burst."""
        interactive = self._lanes[Lane.INTERACTIVE]
        if bound.lane is not Lane.INTERACTIVE and self._lanes[bound.lane].passed_over < self.rules.lane_burst:
            queue = interactive.queues.get(self._key(bound))
            if queue:
                return queue.first()
        return bound

    def _overdue(self, lanes: list[Lane]) -> list[Lane]:
        late = [lane for lane in lanes[1:] if self._lanes[lane].passed_over >= self.rules.lane_burst]
        return sorted(late, key=lambda lane: -self._lanes[lane].passed_over)

    def _choose_in(self, lane: Lane, over: bool) -> Job:
        queues = self._lanes[lane].queues
        wanted = self._lanes[lane].wanted()
        # Going from one resident key to another is free, so those just alternate; the turn is theirs together. When it
        # is over all keys are asked: a resident one may have spent it on another lane's jobs and have had nothing here.
        here = [] if over else [key for key in wanted if key in self.resident]
        return queues[min(here or wanted, key=lambda key: queues[key].wanted_since)].first()

    def _worth_waiting_for(self, chosen: Job, now: float) -> Hold | None:
        """A client of a resident key that is due back, if waiting for it is likely to cost less than the switch.

        A larger context of the same model is no switch: nobody will want the smaller one back.
        """
        if not self.rules.hold:
            return None
        cost = self.switch_cost()
        turn_ends = now + self.turn_length() - self.turn_used
        if self._hold is not None:
            turn_ends -= now - self._held_since
        for (client, model), habit in self._habits.away_since(now - cost / 2):
            if model == chosen.model or habit.lane > chosen.lane:
                continue
            if habit.key is None or habit.left_at is None or habit.key not in self.resident:
                continue
            if habit.worth_holding(cost):
                until = min(habit.left_at + cost / 2, turn_ends)
                if until > now:
                    return Hold(until, client, habit.key, habit.lane)
        return None

    def _note_hold(self, chosen: Job | Hold | None, now: float) -> None:
        before = self._hold
        self._hold = chosen if isinstance(chosen, Hold) else None
        if before is None and self._hold is not None:
            self.holds += 1
            self._held_since = now
        elif before is not None and self._hold != before:
            seconds = min(now, before.until) - self._held_since  # an outage may have come between
            self._held_since = now
            self.turn_used += seconds
            self.held_seconds += seconds
            queue = self._lanes[before.lane].queues.get(before.key)
            if queue is not None:
                queue.bill(before.client, seconds, served=False)

    # --- turns ---

    def switch_cost(self) -> float:
        """What going to another key costs: the largest among the keys wanted now and those resident; c in the docs."""
        wanted = {key for lane in self._lanes.values() for key in lane.wanted()} | self.resident
        costs = [self._costs[key.model].seconds if key.model in self._costs else FIRST_GUESS for key in wanted]
        return max(costs, default=FIRST_GUESS)

    def turn_length(self) -> float:
        """Slot time that the resident keys have before another key's turn: T in the documentation."""
        cost = self.switch_cost()
        return max(cost, min(self.rules.turn_factor * cost, self.rules.switch_wait))

    def serve(self, job: Job) -> None:
        lane = self._lanes[job.lane]
        for lower in Lane:
            if lower > job.lane and self._lanes[lower].waiting:
                self._lanes[lower].passed_over += 1
        lane.passed_over = 0
        lane.waiting -= 1
        self._queue(job).serve(job)
        if job is self._bound:
            self._bound = None

    def bill(self, job: Job, seconds: float) -> None:
        self.turn_used += seconds
        queue = self._queue(job)
        queue.bill(job.client, seconds)
        queue.wanted_since = self._tick()
        usual = self._habits.usual_run(_loop(job))
        if self._cold == job.key and usual is not None:
            self._costs[self._key(job).model].warmed_up(seconds - usual)
        self._cold = None
        self._habits.ran(_loop(job), self._key(job), job.lane, seconds)
        self._forget_if_idle(job)

    def load_ended(self, job: Job, key: RunnerKey, seconds: float, *, succeeded: bool, job_waits: bool) -> None:
        queue = self._lanes[job.lane].queues.get(key)
        if queue is not None:
            queue.bill(job.client, seconds, served=False)
        if succeeded:
            self._costs.setdefault(key.model, SwitchCost()).load = seconds
            self._cold = key
            self.turn_used = 0.0
            self._bound = job if job_waits else None

    def unbind(self) -> None:
        self._bound = None

    # --- small things ---

    def _is_resident(self, job: Job) -> bool:
        return job.key in self.resident

    def _key(self, job: Job) -> RunnerKey:
        assert job.key is not None
        return job.key

    def _queue(self, job: Job) -> FairQueue:
        return self._lanes[job.lane].queues[self._key(job)]

    def _forget_if_idle(self, job: Job) -> None:
        if self._queue(job).idle:
            del self._lanes[job.lane].queues[self._key(job)]

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _loop(job: Job) -> Loop:
    assert job.model is not None
    return job.client, job.model
