"""Changes that no event names: the upstream comes and goes, and the slot is kept free for a program."""

from __future__ import annotations

import trio

from llm_queue.core.seat import Seat
from llm_queue.dispatch.moments import HoldFinished, HoldStarted, UpstreamChanged
from llm_queue.dispatch.observe import Observers
from llm_queue.errors import LoopDetected


class Watch:
    """Compares the seat with how it was at the last :meth:`look`, and tells the observers what has changed."""

    def __init__(self, seat: Seat, observers: Observers) -> None:
        self._seat = seat
        self._observers = observers
        self._there: bool | None = None
        self._loop = False
        self._looked = trio.Event()
        self._ready = trio.Event()
        self._held_for: str | None = None
        self._held_before = 0.0

    async def first_look(self) -> LoopDetected | None:
        """Wait until the upstream was asked for the first time. Returns the error if it is ourselves."""
        await self._looked.wait()
        outage = self._seat.outage
        return LoopDetected(outage.reason) if outage is not None and outage.loop else None

    async def ready(self) -> None:
        """Wait until the upstream is there. Returns at once if it is; after an outage it may be away again."""
        await self._ready.wait()

    def look(self) -> None:
        """Tell what has changed since the last look."""
        self._look_at_upstream()
        self._look_at_hold()

    def _look_at_upstream(self) -> None:
        outage = self._seat.outage
        if outage is not None and not outage.failed_probes:
            return  # it was not asked yet
        self._looked.set()
        there, loop = outage is None, outage is not None and outage.loop
        if (there, loop) == (self._there, self._loop):
            return
        self._there, self._loop = there, loop
        if there:
            self._ready.set()
        else:
            self._ready = trio.Event()
        self._observers.tell(UpstreamChanged(outage.reason if outage is not None else None, loop=loop))

    def _look_at_hold(self) -> None:
        hold, turn = self._seat.hold, self._seat.turn
        held_for = hold.client if hold is not None else None
        if held_for == self._held_for:
            return
        if self._held_for is not None:
            self._observers.tell(HoldFinished(self._held_for, turn.held_seconds - self._held_before))
        if held_for is not None:
            self._held_before = turn.held_seconds
            self._observers.tell(HoldStarted(held_for))
        self._held_for = held_for
