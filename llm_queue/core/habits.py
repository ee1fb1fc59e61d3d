"""How programs call: in closed loops, one request, a moment of thought, the next.

Who will ask again at once is worth waiting for when everybody else needs another model. This is anticipatory
scheduling (Iyer and Druschel, SOSP 2001, for disks), for models. A loop is a client and a model: two scripts that look
alike are told apart by their models, and a program that asks two models in turn is never waited for on either.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from llm_queue.core.jobs import Lane
from llm_queue.core.keys import RunnerKey

SAMPLES: Final = 8
"""Of so many last thoughts and runs the median is the usual one: three outliers in eight do not move it far."""

REMEMBERED: Final = 512
"""Loops whose habits are kept; the one whose last answer is the oldest is forgotten first."""


Loop = tuple[str, str]
"""A client and a model's identity."""


@dataclass(slots=True)
class Habit:
    """What is known of one loop: its last think times and run times in seconds, and what it did last."""

    thinks: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    runs: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    left_at: float | None = None
    key: RunnerKey | None = None
    lane: Lane = Lane.NORMAL

    @property
    def usual_run(self) -> float | None:
        """How long it runs as a rule; None if it never has."""
        return median(self.runs) if self.runs else None

    def worth_holding(self, switch_cost: float) -> bool:
        """True if it usually asks again within its own run time and a quarter of a switch."""
        if not self.thinks or self.usual_run is None:
            return False
        usual = median(self.thinks)
        return usual <= self.usual_run and usual <= switch_cost / 4


class Habits:
    """The habits of all loops that were here lately."""

    def __init__(self) -> None:
        self._here: dict[Loop, int] = {}
        self._habits: OrderedDict[Loop, Habit] = OrderedDict()

    def arrives(self, loop: Loop, now: float) -> None:
        """A job of this loop comes in."""
        habit = self._habits.get(loop)
        if habit is not None and habit.left_at is not None:
            habit.thinks.append(max(0.0, now - habit.left_at))
            habit.left_at = None
        self._here[loop] = self._here.get(loop, 0) + 1

    def usual_run(self, loop: Loop) -> float | None:
        """How long this loop runs as a rule, in seconds; None if nobody knows."""
        habit = self._habits.get(loop)
        return habit.usual_run if habit is not None else None

    def ran(self, loop: Loop, key: RunnerKey, lane: Lane, seconds: float) -> None:
        """An attempt for this loop has ended after so long."""
        habit = self._habits.get(loop)
        if habit is None:
            habit = self._habits[loop] = Habit()
            if len(self._habits) > REMEMBERED:
                self._habits.popitem(last=False)
        habit.runs.append(seconds)
        habit.key, habit.lane = key, lane

    def leaves(self, loop: Loop, now: float, *, answered: bool) -> None:
        """A job of this loop is over. Only after an answer does it make sense to expect the next question."""
        self._here[loop] -= 1
        if self._here[loop]:
            return
        del self._here[loop]
        habit = self._habits.get(loop)
        if habit is not None and answered:
            habit.left_at = now
            self._habits.move_to_end(loop)

    def away_since(self, earliest: float) -> Iterator[tuple[Loop, Habit]]:
        """Loops with nothing here that had their last answer after ``earliest``; the latest first."""
        for loop in reversed(self._habits):
            habit = self._habits[loop]
            if habit.left_at is None:
                continue
            if habit.left_at <= earliest:
                return
            yield loop, habit
