"""Decides whether to keep the slot free, and for which program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llm_queue.core.habits import Habits, Loop
from llm_queue.core.jobs import Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.turn import Hold

HELD_FOR: Final = 3 / 4
"""The longest hold after an answer, in switch costs. In a simulation it gained most or nearly most for every kind of
pause; a whole switch cost gained nothing more for agents, and lost where most pauses are longer than that."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What speaks for waiting: a switch that costs ``cost`` seconds is put off. A job of ``lane`` is passed over, whose
    client has others waiting as well (``backlog``), and the turn ends at ``turn_ends``.
    """

    cost: float
    lane: Lane
    backlog: bool
    turn_ends: float


def hold_for(habits: Habits, why: Reason, saves: Callable[[Loop, RunnerKey], bool], now: float) -> Hold | None:
    """A hold for the program that left last among those that will probably ask again in time; None if there is none.

    ``saves`` says whether the next job of a loop, which last ran at a key, would save the switch.
    """
    for loop, habit in habits.away_since(now - HELD_FOR * why.cost):
        if habit.lane > why.lane or habit.key is None or habit.left_at is None:
            continue
        if saves(loop, habit.key) and habit.worth_holding(why.cost, backlog=why.backlog):
            until = min(habit.left_at + HELD_FOR * why.cost, why.turn_ends)
            if until > now:
                client, _, label = loop
                return Hold(until, client, habit.key, habit.lane, habit.share, label)
    return None
