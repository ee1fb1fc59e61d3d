"""Signs that somebody uses the upstream past the line, which then cannot keep what it promises.

There are three: a model is loaded that the line did not load, a model that it had loaded is gone, and the upstream says
that it is busy while nothing of the line is there. One sign alone says little about who it was, so the system is asked
who else is connected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import structlog
import trio

from llm_queue.core.events import AttemptEnded, LoadEnded, Outcome, ProbeEnded, ResidentReported
from llm_queue.core.keys import RunnerKey
from llm_queue.core.seat import STALE_AFTER, Occupant, Seat
from llm_queue.dispatch.moments import BypassSeen
from llm_queue.dispatch.observe import Observers
from llm_queue.dispatch.status import BypassStatus
from llm_queue.wire.durations import lifetime_setting

LOADED: Final = "a model was loaded past the line"
RELOADED: Final = "a model that the line had loaded was gone"
BUSY: Final = "the upstream is busy with what is not the line's"

KINDS: Final = {LOADED: "loaded", RELOADED: "gone", BUSY: "busy"}
"""The signs in one word each, for programs."""

QUIET: Final = 600.0
"""Seconds without a sign after which it counts as over, and the next sign is news again."""

LOOK_EVERY: Final = 60.0
"""Seconds between two questions to the system, which cost a tenth of a second of a core each."""

MOST_SIGNS: Final = 16
"""Signs that wait to be told: more say nothing more."""

Neighbours = Callable[[], Awaitable[str | None]]
"""The programs that are connected to the upstream besides us, by name; None: there are none, or nobody knows."""

_log = structlog.get_logger("llm_queue")


class Bypasses:
    """Hears the events of the line before the scheduler does, and tells the observers of each sign."""

    def __init__(
        self, seat: Seat, observers: Observers, neighbours: Neighbours | None, keep_alive: str, *, shared: bool
    ) -> None:
        """``shared`` is true for an upstream that loads what others ask of it: for any other, a load is no sign. Nor is
        a model that is gone, if ``keep_alive`` is so short that it can be over before the line asks what is loaded.
        """
        self._seat = seat
        self._observers = observers
        self._neighbours = neighbours
        self._shared = shared
        self._lifetime = lifetime_setting(keep_alive)
        self._used: dict[str, float] = {}  # when each model had its last answer
        self._asked: set[str] = set()  # models that we have had loaded since the last report of what is
        self._reported = False
        self._broke = False
        self._signs, self._heard = trio.open_memory_channel[str](MOST_SIGNS)
        self._since: float | None = None
        self._last = 0.0
        self._reason = ""
        self._program: str | None = None
        self._looked: float | None = None

    def heard(self, event: object) -> None:
        """Look at an event of the line, before the scheduler has it. Raises nothing."""
        slot = self._seat.slot
        match event:
            case LoadEnded() | AttemptEnded(surprise_load=True) if slot is not None:
                self._asked.add(slot.key.model)
            case _:
                pass
        match event:
            case AttemptEnded(outcome=Outcome.BUSY) | LoadEnded(outcome=Outcome.BUSY):
                self._saw(BUSY)
            case AttemptEnded(surprise_load=True) if self._shared and not self._broke and self._stays(slot):
                self._saw(RELOADED)
            case ResidentReported(reported) | LoadEnded(reported=reported) if reported is not None:
                self._compare(reported)
            case ProbeEnded(None, reported):
                self._compare(reported)
            case _:
                pass
        if isinstance(event, AttemptEnded) and slot is not None:
            self._used[slot.key.model] = trio.current_time()
        match event:  # an engine that broke is loaded anew by whoever asks next
            case AttemptEnded(outcome=outcome):
                self._broke = outcome is Outcome.BROKEN
            case ProbeEnded(failure) if failure is not None:
                self._broke = True
            case _:
                pass

    async def run(self) -> None:
        """Tell the observers of the signs, with the program where the system tells. Cancelled, it just ends."""
        async for reason in self._heard:
            now = trio.current_time()
            again = self._since is not None and now - self._last <= QUIET
            if not again:
                self._since, self._program, self._looked = now, None, None
            self._last, self._reason = now, reason
            self._program = await self._who(now) or self._program
            self._observers.tell(BypassSeen(reason, self._program, again))

    def status(self, now: float) -> BypassStatus | None:
        """What there is to say of it at ``now``; None while there is nothing, or it was long ago."""
        if self._since is None or now - self._last > QUIET:
            return None
        return BypassStatus(reason=self._reason, program=self._program, since_s=now - self._since)

    def _compare(self, reported: Iterable[RunnerKey]) -> None:
        """A model that is loaded, was not before, and was not asked for by us, was asked for by somebody else.

        What is there at the first look was there before us.
        """
        new = {key.model for key in self._seat.contexts.translate(reported) - self._seat.resident}
        if self._shared and self._reported and new - self._asked:
            self._saw(LOADED)
        self._reported = True
        self._asked.clear()

    def _stays(self, slot: Occupant | None) -> bool:
        """True if the upstream should have kept the model of the slot loaded since its last answer."""
        if slot is None or self._lifetime <= STALE_AFTER:
            return False
        used = self._used.get(slot.key.model)
        return used is None or slot.since - used < self._lifetime

    def _saw(self, reason: str) -> None:
        with suppress(trio.WouldBlock):
            self._signs.send_nowait(reason)

    async def _who(self, now: float) -> str | None:
        if self._neighbours is None or (self._looked is not None and now - self._looked < LOOK_EVERY):
            return None
        self._looked = now
        try:
            return await self._neighbours()
        except Exception:  # systems and sandboxes refuse in many ways
            _log.debug("the programs that are connected to the upstream could not be looked up", exc_info=True)
            return None
