"""How programs call: in closed loops, one request, a moment of thought, the next.

A program that will ask again at once is worth waiting for when all other jobs need another model. This is anticipatory
scheduling (Iyer and Druschel, SOSP 2001, for disks), for models. A loop is a client and a model: two scripts that look
alike are told apart by their models, and a program that asks two models in turn is never waited for on either.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from llm_queue.core.jobs import Lane
from llm_queue.core.keys import RunnerKey

SAMPLES: Final = 8
"""Think times and run times that are remembered per loop. Their median is the usual one: three outliers in eight do not
move it far."""

REMEMBERED: Final = 512
"""Loops whose habits are kept; the one whose last answer is the oldest is forgotten first."""


Loop = tuple[str, str]
"""A client and a model's identity."""


@dataclass(frozen=True, slots=True)
class Habit:
    """What is known of one loop: its last think times and run times, in seconds, and what it ran last.

    ``left_at`` is when it had its last answer, and None while it has a job here. ``lane`` and ``share`` are those
    of its last run.
    """

    thinks: tuple[float, ...] = ()
    runs: tuple[float, ...] = ()
    left_at: float | None = None
    key: RunnerKey | None = None
    lane: Lane = Lane.NORMAL
    share: float = 1.0

    @property
    def usual_run(self) -> float | None:
        """The median of its run times in seconds; None if it never ran."""
        return median(self.runs) if self.runs else None

    def worth_holding(self, switch_cost: float) -> bool:
        """True if it usually asks again within its own run time and a quarter of ``switch_cost`` seconds."""
        if not self.thinks or self.usual_run is None:
            return False
        usual = median(self.thinks)
        return usual <= self.usual_run and usual <= switch_cost / 4


class Habits:
    """The habits of all loops that were here lately."""

    def __init__(self) -> None:
        self._here: dict[Loop, int] = {}
        self._habits: OrderedDict[Loop, Habit] = OrderedDict()
        self._mean_run: float | None = None

    def copy(self) -> Habits:
        """Other habits, the same so far. A habit is replaced, never changed, so both may share it."""
        twin = Habits()
        twin._here, twin._habits, twin._mean_run = self._here.copy(), self._habits.copy(), self._mean_run
        return twin

    def of(self, loop: Loop) -> Habit | None:
        """The habit of this loop, if it ever ran."""
        return self._habits.get(loop)

    @property
    def present(self) -> int:
        """Loops that have a job here."""
        return len(self._here)

    def arrives(self, loop: Loop, now: float) -> None:
        """A job of this loop comes in."""
        habit = self._habits.get(loop)
        if habit is not None and habit.left_at is not None:
            thinks = (*habit.thinks, max(0.0, now - habit.left_at))[-SAMPLES:]
            self._habits[loop] = replace(habit, thinks=thinks, left_at=None)
        self._here[loop] = self._here.get(loop, 0) + 1

    def usual_run(self, loop: Loop) -> float | None:
        """How many seconds a run of this loop usually takes; None if it never ran."""
        habit = self._habits.get(loop)
        return habit.usual_run if habit is not None else None

    def expected_run(self, loop: Loop) -> float | None:
        """How many seconds its next run will take: as long as usual, or, if it never ran, as those of other loops.

        None if no loop ever ran.
        """
        usual = self.usual_run(loop)
        return usual if usual is not None else self._mean_run

    def ran(self, loop: Loop, key: RunnerKey, lane: Lane, seconds: float, share: float = 1.0) -> None:
        """An attempt for this loop has ended after ``seconds``."""
        habit = self._habits.get(loop, _NONE)
        runs = (*habit.runs, seconds)[-SAMPLES:]
        self._habits[loop] = replace(habit, runs=runs, key=key, lane=lane, share=share)
        if len(self._habits) > REMEMBERED:
            self._habits.popitem(last=False)
        mean = seconds if self._mean_run is None else self._mean_run
        self._mean_run = mean + (seconds - mean) / SAMPLES

    def leaves(self, loop: Loop, now: float, *, answered: bool) -> None:
        """A job of this loop is over. Only one that was answered lets the next one be expected."""
        self._here[loop] -= 1
        if self._here[loop]:
            return
        del self._here[loop]
        habit = self._habits.get(loop)
        if habit is not None and answered:
            self._habits[loop] = replace(habit, left_at=now)
            self._habits.move_to_end(loop)

    def away_since(self, earliest: float) -> Iterator[tuple[Loop, Habit]]:
        """Loops without a job here that had their last answer after ``earliest``; the latest first."""
        for loop in reversed(self._habits):
            habit = self._habits[loop]
            if habit.left_at is None:
                continue
            if habit.left_at <= earliest:
                return
            yield loop, habit


_NONE: Final = Habit()
