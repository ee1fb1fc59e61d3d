"""How programs call: in closed loops, one request, a moment of thought, the next.

A program that will ask again at once is worth waiting for when all other jobs need another model, or would throw its
computed prompt out. This is anticipatory scheduling (Iyer and Druschel, SOSP 2001, for disks), for models. A loop is a
client, a model and a label: two scripts that look alike are told apart by their models or their labels, and a program
that asks two models in turn is never waited for on either. What follows a tool call is no pause of somebody who reads,
so each kind of ending has pauses of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from statistics import median
from typing import Final

from llm_queue.core.jobs import Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.prompts import Ending

SAMPLES: Final = 8
"""Think times and run times that are remembered per loop. Their median is the usual one: three outliers in eight do not
move it far."""

REMEMBERED: Final = 512
"""Loops whose habits are kept, and clients whose last leave is; the one whose last answer is the oldest is forgotten
first."""

HELD_PAUSE: Final = 1 / 2
"""The longest usual pause of a program that is waited for, in switch costs. In a simulation of two loops on two models,
waiting for those gained up to 0.19 of the time over a quarter, and never lost more than 0.01."""


Loop = tuple[str, str, str]
"""A client, a model's identity, and a label."""


@dataclass(frozen=True, slots=True)
class Habit:
    """What is known of one loop: its last think times after each kind of ending, its last run times, in seconds, and
    what it ran last.

    ``left_at`` is when it had its last answer, and None while it has a job here; ``ending`` is how that answer ended
    (None: not known). ``lane`` and ``share`` are those of its last run.
    """

    thinks: Mapping[Ending | None, tuple[float, ...]] = field(default_factory=dict)
    runs: tuple[float, ...] = ()
    left_at: float | None = None
    ending: Ending | None = None
    key: RunnerKey | None = None
    lane: Lane = Lane.NORMAL
    share: float = 1.0

    @property
    def usual_run(self) -> float | None:
        """The median of its run times in seconds; None if it never ran."""
        return median(self.runs) if self.runs else None

    @property
    def pauses(self) -> tuple[float, ...]:
        """Its last think times in seconds after such an ending as its last one."""
        return self.thinks.get(self.ending, ())

    @property
    def usual_pause(self) -> float | None:
        """The median of these; None if there was none."""
        return median(self.pauses) if self.pauses else None

    def worth_holding(self, switch_cost: float, *, backlog: bool) -> bool:
        """True if it usually asks again within half of ``switch_cost`` seconds.

        Before a ``backlog`` of a client that waits, it must also ask again within its own run time: there, what it
        would use of the time is less than what the backlog would. A client with one job is a loop itself.
        """
        pause, run = self.usual_pause, self.usual_run
        if pause is None or run is None:
            return False
        return pause <= HELD_PAUSE * switch_cost and (pause <= run or not backlog)


class Habits:
    """The habits of all loops that were here lately, and when their clients left."""

    def __init__(self) -> None:
        self._here: dict[Loop, int] = {}
        self._clients_here: dict[str, int] = {}
        self._clients_left: OrderedDict[str, float] = OrderedDict()
        self._habits: OrderedDict[Loop, Habit] = OrderedDict()
        self._mean_run: float | None = None

    def copy(self) -> Habits:
        """Other habits, the same so far. A habit is replaced, never changed, so both may share it."""
        twin = Habits()
        twin._here, twin._habits, twin._mean_run = self._here.copy(), self._habits.copy(), self._mean_run
        twin._clients_here, twin._clients_left = self._clients_here.copy(), self._clients_left.copy()
        return twin

    def of(self, loop: Loop) -> Habit | None:
        """The habit of this loop, if it ever ran."""
        return self._habits.get(loop)

    @property
    def present(self) -> int:
        """Loops that have a job here."""
        return len(self._here)

    def arrives(self, loop: Loop, now: float) -> float:
        """A job of this loop comes in.

        Returns how many seconds the loop usually pauses before it asks so. Without such a habit, that is how long its
        client was away: without end if it was never here, and 0 if it has a job here.
        """
        habit = self._habits.get(loop)
        if habit is not None and habit.left_at is not None:
            thinks = (*habit.thinks.get(habit.ending, ()), max(0.0, now - habit.left_at))[-SAMPLES:]
            habit = replace(habit, thinks={**habit.thinks, habit.ending: thinks}, left_at=None)
            self._habits[loop] = habit
        usual = None if habit is None else habit.usual_pause
        away = self._away(loop[0], now)
        self._here[loop] = self._here.get(loop, 0) + 1
        self._clients_here[loop[0]] = self._clients_here.get(loop[0], 0) + 1
        return away if usual is None else usual

    def _away(self, client: str, now: float) -> float:
        if client in self._clients_here:
            return 0.0
        return max(0.0, now - self._clients_left.get(client, -inf))

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

    def ran(
        self,
        loop: Loop,
        key: RunnerKey,
        lane: Lane,
        seconds: float,
        share: float = 1.0,
        ending: Ending | None = None,
    ) -> None:
        """An attempt for this loop has ended after ``seconds``, and its answer with ``ending``."""
        habit = self._habits.get(loop, _NONE)
        runs = (*habit.runs, seconds)[-SAMPLES:]
        self._habits[loop] = replace(habit, runs=runs, key=key, lane=lane, share=share, ending=ending)
        if len(self._habits) > REMEMBERED:
            self._habits.popitem(last=False)
        mean = seconds if self._mean_run is None else self._mean_run
        self._mean_run = mean + (seconds - mean) / SAMPLES

    def leaves(self, loop: Loop, now: float, *, answered: bool) -> None:
        """A job of this loop is over. Only one that was answered lets the next one be expected."""
        self._client_leaves(loop[0], now)
        self._here[loop] -= 1
        if self._here[loop]:
            return
        del self._here[loop]
        habit = self._habits.get(loop)
        if habit is not None and answered:
            self._habits[loop] = replace(habit, left_at=now)
            self._habits.move_to_end(loop)

    def _client_leaves(self, client: str, now: float) -> None:
        self._clients_here[client] -= 1
        if self._clients_here[client]:
            return
        del self._clients_here[client]
        self._clients_left[client] = now
        self._clients_left.move_to_end(client)
        if len(self._clients_left) > REMEMBERED:
            self._clients_left.popitem(last=False)

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
