"""Which job goes next.

A pure function of what has happened so far: time comes in as an argument, nothing here waits or asks. The rules, their
bounds and why they hold stand in docs/scheduling.md; the names are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from llm_queue.core.assigned import AssignedKeys, KeysAhead
from llm_queue.core.choices import Choice, choice_among, turn_before
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.fairness import FairQueue
from llm_queue.core.habits import Habits, Loop
from llm_queue.core.holds import Reason, hold_for
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.lanes import LaneQueue
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.reasons import Competition, Rule, earlier_in, rule_within
from llm_queue.core.rules import OrderRules
from llm_queue.core.strands import strand_of
from llm_queue.core.turn import Hold, Turn


class TurnOrder:
    """Lanes, turns of keys inside a lane, turns of strands and fair share inside a key, arrival inside a client."""

    def __init__(self, rules: OrderRules, contexts: ContextSizes, keys: AssignedKeys | None = None) -> None:
        """``keys`` is where the keys of the jobs are kept; by default in the jobs."""
        self.rules = rules
        self._contexts = contexts
        self._keys = keys or AssignedKeys()
        self._lanes = {lane: LaneQueue() for lane in Lane}
        self.habits = Habits()
        self.rule = Rule.ONLY_ONE
        self._clock = 0

    def __len__(self) -> int:
        return sum(lane.waiting for lane in self._lanes.values())

    @property
    def idle(self) -> bool:
        """True when no job waits, runs or is loaded for, and nothing is kept for one."""
        return not self.habits.present and not any(lane.queues for lane in self._lanes.values())

    def waiting_in(self, lane: Lane) -> int:
        return self._lanes[lane].waiting

    def last_answer(self, client: str, model: str, label: str = "") -> float | None:
        """When this strand had its last answer from this model; None if never, or if it has asked again."""
        habit = self.habits.of((client, model, label))
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
        self._keys[job] = key
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
        job.pause = self.habits.arrives(_loop(job), now)

    def leaves(self, job: Job, now: float, *, answered: bool) -> None:
        self.habits.leaves(_loop(job), now, answered=answered)

    # --- who goes next ---

    def choose(self, turn: Turn, now: float, *, may_hold: bool) -> Job | Hold | None:
        chosen = self._choose(turn, now, may_hold=may_hold and self.rules.hold)
        ended = turn.change_hold(chosen if isinstance(chosen, Hold) else None, now)
        if ended is not None:
            hold, seconds = ended
            queue = self._lanes[hold.lane].queues.get(hold.key)
            if queue is not None:
                queue.bill(hold.client, seconds, hold.share, served=False)
        if not isinstance(chosen, Choice):
            return chosen
        self.rule = chosen.rule
        strands = turn.strands.get(self.key_of(chosen.job).model)
        if strands is not None:
            strands.opening = chosen.job if chosen.begins else None
        return chosen.job

    def _choose(self, turn: Turn, now: float, *, may_hold: bool) -> Choice | Hold | None:
        if turn.bound is not None and self.key_of(turn.bound) in turn.resident:
            return self._choose_with(turn.bound)
        lanes = [lane for lane in Lane if self._lanes[lane].waiting]
        if not lanes:
            return None
        over = turn.used >= self.turn_length(turn)
        first = self._choose_in(lanes[0], turn, now, over)
        loads = self.key_of(first.job) not in turn.resident
        for late in self._overdue(lanes):
            # A load must wait for the turn's end, so a new model does not stand before what the lane can run without.
            overdue = self._choose_in(late, turn, now, over, new_first=loads)
            if self.key_of(overdue.job) in turn.resident or over or loads:
                return replace(overdue, rule=Rule.LANE_BURST)
        if not may_hold:
            return first
        if loads:
            return (None if over else self._hold_for_key(turn, first.job, now)) or first
        hold = self._hold_for_strand(turn, first, now) if first.loses else None
        return first if hold is None else self._free_meanwhile(lanes[0], turn, first, now) or hold

    def _choose_with(self, bound: Job) -> Choice:
        """The job that caused the load, but for interactive jobs that can use it, and those within their burst."""
        interactive = self._lanes[Lane.INTERACTIVE]
        if bound.lane is not Lane.INTERACTIVE and self._lanes[bound.lane].passed_over < self.rules.lane_burst:
            queue = interactive.queues.get(self.key_of(bound))
            if queue:
                return Choice(queue.first(), Rule.SHARES_LOAD)
        return Choice(bound, Rule.BOUND, begins=True)

    def _overdue(self, lanes: list[Lane]) -> list[Lane]:
        late = [lane for lane in lanes[1:] if self._lanes[lane].passed_over >= self.rules.lane_burst]
        return sorted(late, key=lambda lane: -self._lanes[lane].passed_over)

    def _choose_in(self, lane: Lane, turn: Turn, now: float, over: bool, *, new_first: bool = True) -> Choice:
        queues = self._lanes[lane].queues
        wanted = self._lanes[lane].wanted()
        # Going from one resident key to another is free, so those just alternate; the turn is theirs together. When it
        # is over all keys are asked: a resident one may have spent it on another lane's jobs and have had nothing here.
        here = [] if over else [key for key in wanted if key in turn.resident]
        if here and new_first and turn.used_at(now) >= self._first_turn_length(turn):
            here = [key for key in wanted if self._is_untried(turn, key)] or here
        key = min(here or wanted, key=lambda key: queues[key].wanted_since)
        new = bool(here) and key not in turn.resident
        lower = any(self._lanes[each].waiting for each in Lane if each > lane)
        rule = rule_within(queues[key], keys=len(wanted), here=bool(here), new=new, lower=lower)
        return self._choose_of(lane, key, turn, now, rule)

    def _choose_of(self, lane: Lane, key: RunnerKey, turn: Turn, now: float, rule: Rule) -> Choice:
        queue = self._lanes[lane].queues[key]
        if key not in turn.resident or key.model not in turn.strands:
            return Choice(queue.first(), rule)
        return choice_among(queue, turn.strands[key.model], self.rules, turn.strands_used_at(now, key.model), rule)

    # --- holds ---

    def _hold_for_key(self, turn: Turn, chosen: Job, now: float) -> Hold | None:
        """A hold for a client of a resident key, if it is likely to cost less than the load that ``chosen`` needs.

        A larger context of the same model is no switch: nobody will want the smaller one back.
        """
        untried = self._is_untried(turn, self.key_of(chosen))
        length = min(self._first_turn_length(turn), self.turn_length(turn)) if untried else self.turn_length(turn)
        turn_ends = now + length - turn.used_at(now)
        why = Reason(self.switch_cost(turn), chosen.lane, self._has_more(chosen), turn_ends)

        def saves(loop: Loop, key: RunnerKey) -> bool:
            return loop[1] != chosen.model and key in turn.resident

        return hold_for(self.habits, why, saves, now)

    def _hold_for_strand(self, turn: Turn, chosen: Choice, now: float) -> Hold | None:
        """A hold for a strand that is cached, if it is likely to cost less than what ``chosen`` would throw out."""
        key = self.key_of(chosen.job)
        cached = turn.strands[key.model].cached
        left = self.rules.turn_length(chosen.loses) - turn.strands_used_at(now, key.model)
        turn_ends = min(now + left, self._keys_turn_ends(turn, now))
        why = Reason(chosen.loses, chosen.job.lane, self._has_more(chosen.job), turn_ends)

        def saves(loop: Loop, loaded: RunnerKey) -> bool:
            return loaded == key and (loop[0], loop[2]) in cached

        return hold_for(self.habits, why, saves, now)

    def _keys_turn_ends(self, turn: Turn, now: float) -> float:
        """When it is the turn of a key that waits and is not resident; never, if there is none."""
        others = [key for lane in self._lanes.values() for key in lane.wanted() if key not in turn.resident]
        if not others:
            return inf
        length = self.turn_length(turn)
        if any(self._is_untried(turn, key) for key in others):
            length = min(length, self._first_turn_length(turn))
        return now + length - turn.used_at(now)

    def _free_meanwhile(self, lane: Lane, turn: Turn, held: Choice, now: float) -> Choice | None:
        """While the slot would be kept for a strand of one key, a job of another resident key that loses nothing."""
        queues = self._lanes[lane].queues
        others = [key for key in self._lanes[lane].wanted() if key in turn.resident and key != self.key_of(held.job)]
        for key in sorted(others, key=lambda key: queues[key].wanted_since):
            other = self._choose_of(lane, key, turn, now, Rule.TURN_GOES_ON)
            if not other.loses:
                return other
        return None

    def _has_more(self, job: Job) -> bool:
        """True if more jobs of its client wait for the same."""
        return self._queue(job).waiting_of(job.client) > 1

    # --- what is said of it ---

    def competition(self, turn: Turn, job: Job) -> Competition:
        """What a waiting job has before it: see :class:`~.reasons.Competition`."""
        lane, own, queue = self._lanes[job.lane], self.key_of(job), self._queue(job)
        others = [key for key in lane.wanted() if key != own]
        loaded = sum(key in turn.resident for key in others)
        strands = turn.strands.get(own.model) if own in turn.resident else None
        return Competition(
            loaded=loaded,
            unloaded=len(others) - loaded,
            clients=queue.clients,
            earlier=earlier_in(queue, job),
            passes=max(0, self.rules.lane_burst - lane.passed_over),
            higher=any(self._lanes[each].waiting for each in Lane if each < job.lane),
            first_turn=self._first_turn_length(turn) if self._is_untried(turn, own) else None,
            strands_turn=None if strands is None else turn_before(job, strands, self.rules),
        )

    # --- turns ---

    def switch_cost(self, turn: Turn) -> float:
        """Seconds that going to another key costs: the largest among the keys wanted now and those resident.

        The documentation calls it c.
        """
        wanted = {key for lane in self._lanes.values() for key in lane.wanted()}
        return turn.switch_cost(wanted | turn.resident)

    def turn_length(self, turn: Turn) -> float:
        """Seconds of slot time that the resident keys have before it is another key's turn.

        The documentation calls it T.
        """
        return self.rules.turn_length(self.switch_cost(turn))

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
        strands = turn.strands.get(self.key_of(job).model)
        if strands is not None:
            strands.serve(job)
        turn.release(job)

    def bill(
        self,
        turn: Turn,
        job: Job,
        seconds: float,
        prompt: PromptWork | None = None,
        ending: Ending | None = None,
    ) -> None:
        turn.bill(job, self.key_of(job), seconds, prompt if self.rules.strands else None)
        self._ran(turn, job, seconds, ending)

    def foresee(self, turn: Turn, job: Job, seconds: float) -> None:
        turn.foresee(job, self.key_of(job), seconds)
        habit = self.habits.of(_loop(job))
        self._ran(turn, job, seconds, None if habit is None else habit.ending)

    def _ran(self, turn: Turn, job: Job, seconds: float, ending: Ending | None) -> None:
        queue = self._queue(job)
        queue.bill(job.client, seconds, job.share)
        queue.wanted_since = self._tick()
        usual = self.habits.usual_run(_loop(job))
        if turn.cold == self.key_of(job) and usual is not None:
            turn.costs.ran_cold(self.key_of(job).model, seconds - usual)
        turn.cold = None
        self.habits.ran(_loop(job), self.key_of(job), job.lane, seconds, job.share, ending)
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
        return self._keys[job]

    def expected_run(self, job: Job, turn: Turn | None = None) -> float | None:
        strands = None if turn is None else turn.strands.get(self.key_of(job).model)
        seconds = None if strands is None else strands.run_seconds(strand_of(job))
        return seconds if seconds is not None else self.habits.expected_run(_loop(job))

    def copy(self, contexts: ContextSizes) -> TurnOrder:
        twin = TurnOrder(self.rules, contexts, KeysAhead())
        twin._lanes = {lane: queues.copy() for lane, queues in self._lanes.items()}
        twin.habits = self.habits.copy()
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


def _loop(job: Job) -> Loop:
    assert job.model is not None
    return job.client, job.model, job.label
