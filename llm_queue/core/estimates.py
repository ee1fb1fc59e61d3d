"""Between which two moments the next jobs will probably start: the forecast, with those who will ask again and with
the spread of what was measured.

The forecast says what happens if nothing else comes. Programs that ask in a loop do come again, and keep their models'
turn going, so here they are played as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final, NamedTuple

from llm_queue.core.forecast import UNKNOWN_RUN, Ahead
from llm_queue.core.habits import Habit, Loop
from llm_queue.core.jobs import Job, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.rules import Order
from llm_queue.core.seat import Seat
from llm_queue.core.turn import Hold

SPREAD: Final = 1.8
"""Standard deviations to either side: four of five starts are then inside, with the few runs that are remembered
(``python -m tests.bench.estimates``)."""

LOAD_SPREAD: Final = 0.15
"""Of a measured load: how much the next one of the model differs from it, as a share."""

AWAY: Final = 60.0
"""Seconds after its last answer after which a program is not expected any more."""


class Coming(NamedTuple):
    """A program that will ask for ``key`` again ``at`` that time; ``serial`` orders those of one moment."""

    at: float
    serial: int
    loop: Loop
    habit: Habit
    key: RunnerKey


@dataclass(frozen=True, slots=True)
class Estimate:
    """A job starts probably between ``low`` and ``high`` seconds from now."""

    low: float
    high: float


def estimates(order: Order, seat: Seat, now: float, picks: int, *, may_hold: bool) -> dict[str, Estimate]:
    """The estimates of the next jobs that wait, by their ids. Jobs that come after the first ``picks`` picks, or
    depend on a run of which nothing is known, are left out.

    Programs that have always asked again at once are sure to come. Of the others each may come or not, so there are two
    ends to each estimate: all of them come, and none does.
    """
    with_all = _play(order, seat, now, picks, all_come=True, may_hold=may_hold)
    if not with_all.unsure:
        return with_all.found
    without = _play(order, seat, now, picks, all_come=False, may_hold=may_hold).found
    return {
        job: Estimate(min(one.low, without[job].low), max(one.high, without[job].high))
        for job, one in with_all.found.items()
        if job in without
    }


def _play(order: Order, seat: Seat, now: float, picks: int, *, all_come: bool, may_hold: bool) -> _Play:
    play = _Play(order, seat, now, all_come=all_come)
    slot = seat.slot
    if slot is not None and slot.loading:
        play.load(slot.job, slot.key, slot.since, waits=slot.job.state is State.QUEUED)
    elif slot is not None:
        play.run(slot.job, slot.since)
    for _ in range(picks):
        job = play.next(may_hold=may_hold)
        if job is None:
            break
        key = play.order.key_of(job)
        if key not in play.turn.resident:
            play.turn.unbind()
            play.load(job, key, play.at, waits=True)
            continue
        play.start(job)
    return play


class _Play(Ahead):
    """Looks ahead with the programs that will ask again, and adds up how sure that is.

    ``found`` has the estimates of the jobs that have started. ``unsure`` is true if a program has asked again of which
    that is not sure; unless ``all_come``, none of those does.
    """

    def __init__(self, order: Order, seat: Seat, now: float, *, all_come: bool) -> None:
        super().__init__(order, seat, now)
        self.unsure = False
        self._all_come = all_come
        self._measured = order.habits
        self.found: dict[str, Estimate] = {}
        self._left = len(order)
        self._coming: list[Coming] = []
        self._guessed: set[Job] = set()
        self._serial = 1 << 60  # after all arrivals that there were
        self._runs: dict[Loop, int] = {}
        self._loads: dict[str, int] = {}
        self._variance = 0.0
        self._stats: dict[Loop, tuple[float, float, float] | None] = {}
        for loop, habit in order.habits.away_since(now - AWAY):
            self._expect(loop, habit, habit.left_at or now)

    def next(self, *, may_hold: bool) -> Job | None:
        """The job that is picked next; None when all that wait have started."""
        while self._left:
            self._arrive()
            chosen = self.order.choose(self.turn, self.at, may_hold=may_hold)
            if isinstance(chosen, Hold):
                self.at = min(chosen.until, max(self.at, self._coming[0].at)) if self._coming else chosen.until
            else:
                return chosen
        return None

    def start(self, job: Job) -> None:
        """``job`` is picked and runs."""
        if job not in self._guessed:
            self._left -= 1
            if self._known:
                start, spread = self.at - self._now, SPREAD * sqrt(self._variance)
                self.found[job.id] = Estimate(max(0.0, start - spread), start + spread)
        self.order.serve(self.turn, job)
        self.run(job, self.at)

    def load(self, job: Job, key: RunnerKey, since: float, *, waits: bool) -> None:
        number = self._loads[key.model] = self._loads.get(key.model, 0) + 1
        share = LOAD_SPREAD if self.turn.costs.tried(key.model) else 1.0
        square = (share * self.turn.costs.load(key.model)) ** 2
        self._variance += square * (2 * number - 1)  # the same error each time
        super().load(job, key, since, waits=waits)

    def run(self, job: Job, since: float) -> None:
        loop = _loop(job)
        habit, known = self._measured.of(loop), self._known_of(loop)
        self._known = self._known and known is not None
        mean, square, error = known or (UNKNOWN_RUN, 0.0, 0.0)
        if since < self._now:
            seconds = self._pass(self._rest(habit, mean, self._now - since), since)
        else:
            number = self._runs[loop] = self._runs.get(loop, 0) + 1
            # What is known of few runs is not known well, and that error is the same for all runs of a loop.
            self._variance += square + error * (2 * number - 1)
            seconds = self._pass(mean, since)
        self.order.foresee(self.turn, job, seconds)
        self.order.leaves(job, self.at, answered=True)
        if habit is not None and (left := self.order.habits.of(loop)) is not None and left.left_at is not None:
            self._expect(loop, habit, self.at)

    def _known_of(self, loop: Loop) -> tuple[float, float, float] | None:
        """What is known of the runs of a loop: their mean in seconds, their variance, and that of the mean; None if
        nothing is.
        """
        if loop not in self._stats:
            habit = self._measured.of(loop)
            runs = habit.runs if habit is not None else ()
            if len(runs) > 1:
                mean, square = _moments(runs)
                square *= len(runs) / (len(runs) - 1)
                self._stats[loop] = mean, square, square / len(runs)
            else:
                expected = self._measured.expected_run(loop)
                self._stats[loop] = None if expected is None else (expected, 0.0, expected**2)
        return self._stats[loop]

    def _rest(self, habit: Habit | None, usual: float, done: float) -> float:
        """How many seconds in all a run takes that has taken ``done`` already: as those that took longer."""
        longer = [run for run in (habit.runs if habit is not None else ()) if run > done]
        if longer:
            mean, square = _moments(longer)
            self._variance += square + (max(longer) - min(longer)) ** 2 / (4 * len(longer))
            return mean
        rest = max(usual - done, done / 2)  # what has lasted long will last as long again, or not at all
        self._variance += rest**2 / 2
        return done + rest

    # --- those that will ask again ---

    def _expect(self, loop: Loop, habit: Habit, left_at: float) -> None:
        """The program asks again after its usual pause, unless that is over long since."""
        if habit.pauses and habit.key is not None and (self._all_come or _surely(habit)):
            think = median(habit.pauses)
            if left_at + 2 * max(habit.pauses) >= self._now:
                coming = Coming(max(left_at + think, self._now), self._serial, loop, habit, habit.key)
                heapq.heappush(self._coming, coming)
                self._serial += 1

    def _arrive(self) -> None:
        """Those come whose time it is."""
        while self._coming and self._coming[0].at <= self.at:
            _, serial, (client, model, label), habit, key = heapq.heappop(self._coming)
            self.unsure = self.unsure or not _surely(habit)
            job = Job(f"{serial}", habit.lane, client, model, key.num_ctx, serial, self.at)
            job.share, job.label = habit.share, label
            self._guessed.add(job)
            self.order.arrives(job, self.at)
            self.order.add(job)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the variance of these few."""
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values)


def _surely(habit: Habit) -> bool:
    """True if the program has always asked again at once: within the time that it runs."""
    return len(habit.pauses) >= 3 and max(habit.pauses) * len(habit.runs) <= sum(habit.runs)


def _loop(job: Job) -> Loop:
    assert job.model is not None
    return job.client, job.model, job.label
