"""What the slot's time went to: work by kind, and idleness by reason."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from llm_queue.core.seat import Seat


class SlotState(enum.Enum):
    """What the slot does, or why it does nothing. It is in one of these at any time."""

    RUNNING = "running"
    LOADING = "loading"
    EMPTY = "empty"
    """Nothing waits."""
    HOLD = "hold"
    """It is kept free for a program that is about to ask again."""
    PAUSED = "paused"
    """Somebody has paused the line; what was loaded may be on its way out."""
    OUTAGE = "outage"
    """The upstream is away, or was not asked yet."""
    ASKING = "asking"
    """The upstream is asked what it has loaded."""
    BACK_OFF = "back_off"
    """The upstream is busy for a program that bypasses the line."""

    @property
    def busy(self) -> bool:
        """True if something holds the slot."""
        return self in (SlotState.RUNNING, SlotState.LOADING)


class SlotTime:
    """Adds up the seconds of each state from its making on: together they are the time since then.

    Its owner calls :meth:`look` whenever the seat may have changed.
    """

    def __init__(self, seat: Seat, now: float) -> None:
        self._seat = seat
        self._seconds = dict.fromkeys(SlotState, 0.0)
        self._since = now
        self._state = self._now()

    def look(self, now: float) -> None:
        """The seat is as it is from ``now`` on."""
        self._seconds[self._state] += now - self._since
        self._since = now
        self._state = self._now()

    def seconds(self, now: float) -> Mapping[SlotState, float]:
        """The seconds of each state until ``now``, with those of the present one."""
        return self._seconds | {self._state: self._seconds[self._state] + now - self._since}

    def _now(self) -> SlotState:
        seat = self._seat
        if seat.slot is not None:
            return SlotState.LOADING if seat.slot.loading else SlotState.RUNNING
        if seat.outage is not None:
            return SlotState.OUTAGE
        if seat.pause is not None or seat.unloading:
            return SlotState.PAUSED
        if seat.asking:
            return SlotState.ASKING
        if seat.busy_until is not None:
            return SlotState.BACK_OFF
        return SlotState.EMPTY if seat.hold is None else SlotState.HOLD
