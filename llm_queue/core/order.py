"""Which job goes next.

A pure function of what has happened so far: time comes in as an argument, nothing here waits or asks. The rules, their
bounds and why they hold stand in docs/scheduling.md; the names are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.fairness import FairQueue
from llm_queue.core.habits import Habits, Loop
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.reasons import Company, Rule, company_of, rule_within
from llm_queue.core.turn import Hold, Turn


@dataclass(frozen=True)
class OrderRules:
    """The knobs of the line; the settings of the same names say what they mean."""

    lane_burst: int = 8
    turn_factor: float = 9.0
    switch_wait: float = 20.0
    hold: bool = True


class Order(Protocol):
    """What the scheduler asks of an order. All times are in seconds.

    An order knows the jobs that wait. What differs from one upstream to another, it is given as that upstream's turn.
    """

    rule: Rule
    """What decided the last choice of a job."""

    @property
    def habits(self) -> Habits:
        """How programs call, to look ahead with."""

    def __len__(self) -> int:
        """How many jobs wait."""

    def waiting_in(self, lane: Lane) -> int:
        """How many of them wait in this lane."""

    def add(self, job: Job) -> None:
        """A job waits, for the first time or again."""

    def remove(self, job: Job) -> None:
        """A waiting job is over."""

    def choose(self, turn: Turn, now: float, *, may_hold: bool) -> Job | Hold | None:
        """The job that goes next, a hold, or None if no job waits.

        The job keeps waiting until :meth:`serve`; if it needs a load, until that is done.
        """

    def serve(self, turn: Turn, job: Job) -> None:
        """The chosen job gets the slot for an attempt."""

    def bill(self, turn: Turn, job: Job, seconds: float) -> None:
        """The attempt of the job served last took ``seconds`` of slot time."""

    def load_ended(
        self, turn: Turn, job: Job, key: RunnerKey, seconds: float, *, succeeded: bool, job_waits: bool
    ) -> None:
        """The load of ``key`` that ``job`` caused took ``seconds`` of slot time.

        If it succeeded and the job still waits, the job is bound to it: see the rules.
        """

    def arrives(self, job: Job, now: float) -> None:
        """A job was accepted; its model is known."""

    def leaves(self, job: Job, now: float, *, answered: bool) -> None:
        """A job that has arrived is over; ``answered`` is true if it succeeded."""

    def rekey(self, model: str) -> None:
        """The current context size of this model has changed."""

    def waiting(self) -> Iterable[Job]:
        """All waiting jobs, in no order."""

    def key_of(self, job: Job) -> RunnerKey:
        """What must be resident for a waiting job to run."""

    def expected_run(self, job: Job) -> float | None:
        """How many seconds a run of this job will probably take; None if nothing is known."""

    def copy(self, contexts: ContextSizes) -> Order:
        """Another order with the same jobs, to look ahead with. It has ``contexts`` for its context sizes.

        Nothing that is done to it changes a job, or this order. It is to be used only until this order changes.
        """


class _LaneQueue:
    __slots__ = ("passed_over", "queues", "waiting")

    def __init__(self) -> None:
        self.queues: dict[RunnerKey, FairQueue] = {}
        self.waiting = 0
        self.passed_over = 0

    def wanted(self) -> list[RunnerKey]:
        return [key for key, queue in self.queues.items() if queue]

    def copy(self) -> _LaneQueue:
        twin = _LaneQueue()
        twin.queues = {key: queue.copy() for key, queue in self.queues.items()}
        twin.passed_over, twin.waiting = self.passed_over, self.waiting
        return twin


class TurnOrder:
    """Lanes, turns of keys inside a lane, fair share inside a key, arrival inside a client."""

    def __init__(self, rules: OrderRules, contexts: ContextSizes) -> None:
        self.rules = rules
        self._contexts = contexts
        self._lanes = {lane: _LaneQueue() for lane in Lane}
        self._habits = Habits()
        self._clock = 0
        self.rule = Rule.ONLY_ONE

    def __len__(self) -> int:
        return sum(lane.waiting for lane in self._lanes.values())

    @property
    def idle(self) -> bool:
        """True when no job waits, runs or is loaded for, and nothing is kept for one."""
        return not self._habits.present and not any(lane.queues for lane in self._lanes.values())

    def waiting_in(self, lane: Lane) -> int:
        return self._lanes[lane].waiting

    def last_answer(self, client: str, model: str) -> float | None:
        """When this client had its last answer from this model; None if never, or if it has asked again."""
        habit = self._habits.of((client, model))
        return None if habit is None else habit.left_at

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
        key = self._contexts.key(job.model, job.wanted_ctx)
        self._set_key(job, key)
        queue = queues.get(key)
        if queue is None:
            queue = queues[key] = FairQueue(self._tick())
        queue.add(job)

    def remove(self, job: Job) -> None:
        self._queue(job).remove(job)
        self._lanes[job.lane].waiting -= 1
        self._forget_if_idle(job)

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
                    merged = lane.queues[self.key_of(job)]
                    merged.wanted_since = min(merged.wanted_since, queue.wanted_since)
                if queue.idle:
                    del lane.queues[key]

    def arrives(self, job: Job, now: float) -> None:
        self._habits.arrives(_loop(job), now)

    def leaves(self, job: Job, now: float, *, answered: bool) -> None:
        self._habits.leaves(_loop(job), now, answered=answered)

    # --- who goes next ---

    def choose(self, turn: Turn, now: float, *, may_hold: bool) -> Job | Hold | None:
        chosen = self._choose(turn, now, may_hold=may_hold)
        ended = turn.change_hold(chosen if isinstance(chosen, Hold) else None, now)
        if ended is not None:
            hold, seconds = ended
            queue = self._lanes[hold.lane].queues.get(hold.key)
            if queue is not None:
                queue.bill(hold.client, seconds, hold.share, served=False)
        return chosen

    def _choose(self, turn: Turn, now: float, *, may_hold: bool) -> Job | Hold | None:
        if turn.bound is not None and self.key_of(turn.bound) in turn.resident:
            return self._choose_with(turn.bound)
        lanes = [lane for lane in Lane if self._lanes[lane].waiting]
        if not lanes:
            return None
        over = turn.used >= self.turn_length(turn)
        chosen = self._choose_in(lanes[0], turn, now, over)
        rule = self.rule
        for late in self._overdue(lanes):
            # A load must wait for the turn's end, so a new model does not stand before what the lane can run without.
            job = self._choose_in(late, turn, now, over, new_first=self.key_of(chosen) not in turn.resident)
            if self.key_of(job) in turn.resident or over or self.key_of(chosen) not in turn.resident:
                self.rule = Rule.LANE_BURST
                return job
        self.rule = rule
        if may_hold and not over and self.key_of(chosen) not in turn.resident:
            return self._worth_waiting_for(turn, chosen, now) or chosen
        return chosen

    def _choose_with(self, bound: Job) -> Job:
        """The job that caused the load, but for interactive jobs that can use it, and those within their burst."""
        interactive = self._lanes[Lane.INTERACTIVE]
        if bound.lane is not Lane.INTERACTIVE and self._lanes[bound.lane].passed_over < self.rules.lane_burst:
            queue = interactive.queues.get(self.key_of(bound))
            if queue:
                self.rule = Rule.SHARES_LOAD
                return queue.first()
        self.rule = Rule.BOUND
        return bound

    def _overdue(self, lanes: list[Lane]) -> list[Lane]:
        late = [lane for lane in lanes[1:] if self._lanes[lane].passed_over >= self.rules.lane_burst]
        return sorted(late, key=lambda lane: -self._lanes[lane].passed_over)

    def _choose_in(self, lane: Lane, turn: Turn, now: float, over: bool, *, new_first: bool = True) -> Job:
        queues = self._lanes[lane].queues
        wanted = self._lanes[lane].wanted()
        # Going from one resident key to another is free, so those just alternate; the turn is theirs together. When it
        # is over all keys are asked: a resident one may have spent it on another lane's jobs and have had nothing here.
        here = [] if over else [key for key in wanted if key in turn.resident]
        if here and new_first and turn.used_at(now) >= self._first_turn_length(turn):
            here = [key for key in wanted if self._is_untried(turn, key)] or here
        key = min(here or wanted, key=lambda key: queues[key].wanted_since)
        lower, new = (
            any(self._lanes[low].waiting for low in Lane if low > lane),
            key not in turn.resident and bool(here),
        )
        self.rule = rule_within(queues[key], keys=len(wanted), here=bool(here), new=new, lower=lower)
        return queues[key].first()

    def _worth_waiting_for(self, turn: Turn, chosen: Job, now: float) -> Hold | None:
        """A hold for a client of a resident key, if it is likely to cost less than the switch that ``chosen`` needs.

        A larger context of the same model is no switch: nobody will want the smaller one back.
        """
        if not self.rules.hold:
            return None
        cost = self.switch_cost(turn)
        untried = self._is_untried(turn, self.key_of(chosen))
        length = min(self._first_turn_length(turn), self.turn_length(turn)) if untried else self.turn_length(turn)
        turn_ends = now + length - turn.used_at(now)
        for (client, model), habit in self._habits.away_since(now - cost / 2):
            if model == chosen.model or habit.lane > chosen.lane:
                continue
            if habit.key is None or habit.left_at is None or habit.key not in turn.resident:
                continue
            if habit.worth_holding(cost):
                until = min(habit.left_at + cost / 2, turn_ends)
                if until > now:
                    return Hold(until, client, habit.key, habit.lane, habit.share)
        return None

    @property
    def habits(self) -> Habits:
        return self._habits

    def company(self, turn: Turn, job: Job) -> Company:
        """What a waiting job has before it: see :class:`~.reasons.Company`."""
        lane, higher = self._lanes[job.lane], any(self._lanes[each].waiting for each in Lane if each < job.lane)
        passes = max(0, self.rules.lane_burst - lane.passed_over)
        first_turn = self._first_turn_length(turn) if self._is_untried(turn, self.key_of(job)) else None
        return company_of(job, self._queue(job), len(lane.wanted()), passes, higher=higher, first_turn=first_turn)

    # --- turns ---

    def switch_cost(self, turn: Turn) -> float:
        """Seconds that going to another key costs: the largest among the keys wanted now and those resident.

        The documentation calls it c.
        """
        wanted = {key for lane in self._lanes.values() for key in lane.wanted()}
        return turn.costs.largest(wanted | turn.resident)

    def turn_length(self, turn: Turn) -> float:
        """Seconds of slot time that the resident keys have before it is another key's turn.

        The documentation calls it T.
        """
        cost = self.switch_cost(turn)
        return max(cost, min(self.rules.turn_factor * cost, self.rules.switch_wait))

    def _first_turn_length(self, turn: Turn) -> float:
        """Seconds of slot time after which a key of which no load was tried goes before the resident ones.

        Once a load of it was tried, its cost is no guess any more.
        """
        return turn.costs.largest_load(turn.resident)

    def _is_untried(self, turn: Turn, key: RunnerKey) -> bool:
        return key not in turn.resident and not turn.costs.tried(key.model)

    def serve(self, turn: Turn, job: Job) -> None:
        lane = self._lanes[job.lane]
        for lower in Lane:
            if lower > job.lane and self._lanes[lower].waiting:
                self._lanes[lower].passed_over += 1
        lane.passed_over = 0
        lane.waiting -= 1
        self._queue(job).serve(job)
        turn.release(job)

    def bill(self, turn: Turn, job: Job, seconds: float) -> None:
        turn.used += seconds
        queue = self._queue(job)
        queue.bill(job.client, seconds, job.share)
        queue.wanted_since = self._tick()
        usual = self._habits.usual_run(_loop(job))
        if turn.cold == self.key_of(job) and usual is not None:
            turn.costs.ran_cold(self.key_of(job).model, seconds - usual)
        turn.cold = None
        self._habits.ran(_loop(job), self.key_of(job), job.lane, seconds, job.share)
        self._forget_if_idle(job)

    def load_ended(
        self, turn: Turn, job: Job, key: RunnerKey, seconds: float, *, succeeded: bool, job_waits: bool
    ) -> None:
        queue = self._lanes[job.lane].queues.get(key)
        if queue is not None:
            queue.bill(job.client, seconds, job.share, served=False)
        turn.costs.load_ended(key.model)
        if succeeded:
            turn.costs.loaded(key.model, seconds)
            turn.begin(key, job if job_waits else None)

    # --- looking ahead ---

    def key_of(self, job: Job) -> RunnerKey:
        assert job.key is not None
        return job.key

    def _set_key(self, job: Job, key: RunnerKey) -> None:
        job.key = key

    def expected_run(self, job: Job) -> float | None:
        return self._habits.expected_run(_loop(job))

    def copy(self, contexts: ContextSizes) -> TurnOrder:
        twin = _TurnOrderAhead(self.rules, contexts)
        twin._lanes = {lane: queues.copy() for lane, queues in self._lanes.items()}
        twin._habits = self._habits.copy()
        twin._clock = self._clock
        return twin

    # --- small things ---

    def _queue(self, job: Job) -> FairQueue:
        return self._lanes[job.lane].queues[self.key_of(job)]

    def _forget_if_idle(self, job: Job) -> None:
        if self._queue(job).idle:
            del self._lanes[job.lane].queues[self.key_of(job)]

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


class _TurnOrderAhead(TurnOrder):
    """A copy that keeps to itself which keys its jobs would have later."""

    def __init__(self, rules: OrderRules, contexts: ContextSizes) -> None:
        super().__init__(rules, contexts)
        self._keys: dict[Job, RunnerKey] = {}

    def key_of(self, job: Job) -> RunnerKey:
        return self._keys[job] if job in self._keys else super().key_of(job)

    def _set_key(self, job: Job, key: RunnerKey) -> None:
        self._keys[job] = key


def _loop(job: Job) -> Loop:
    assert job.model is not None
    return job.client, job.model
