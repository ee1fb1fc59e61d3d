"""Tells watchers when what is shown of the line has changed. An observer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from llm_queue.core.seat import Seat
from llm_queue.dispatch.attempts import Entry
from llm_queue.dispatch.moments import Moment
from llm_queue.dispatch.observe import Observers

LOOKS: Final = 0.25
"""Seconds between two looks at how many pieces have come, while somebody watches and a job runs: pieces are counted
and told to nobody."""

GROWS_OLD: Final = 5.0
"""Seconds after which a line with jobs counts as changed though nothing has happened: estimates have."""

IDLE_GROWS_OLD: Final = 60.0
"""The same of a line without jobs: the last hour moves on, and what was noticed is over."""


class Changes:
    """Counts changes. It costs the line nothing but a flag while nobody waits here."""

    def __init__(self, seat: Seat, entries: Mapping[str, Entry], observers: Observers) -> None:
        """``entries`` are the jobs that live, by id."""
        self.number = 0
        self.ended = False
        self._seat = seat
        self._entries = entries
        self._pieces = 0
        self._changed_at = trio.current_time()
        self._news = trio.Event()
        observers.add(self)

    def __call__(self, _: Moment) -> None:
        self._change()

    def end(self) -> None:
        """Nothing changes any more: whoever waits here is told."""
        self.ended = True
        self._change()

    async def after(self, number: int) -> None:
        """Wait until there was a change after ``number``, or the end has come. Cancelled, it loses nothing."""
        await trio.lowlevel.checkpoint()
        while self.number <= number and not self.ended:
            with trio.move_on_after(LOOKS if self._seat.slot is not None else GROWS_OLD):
                await self._news.wait()
            self._look()

    def _look(self) -> None:
        """See what no moment tells of."""
        pieces = self._pieces_of_slot()
        old = trio.current_time() >= self._changed_at + (GROWS_OLD if self._entries else IDLE_GROWS_OLD)
        if pieces != self._pieces or old:
            self._pieces = pieces
            self._change()

    def _pieces_of_slot(self) -> int:
        slot = self._seat.slot
        entry = self._entries.get(slot.job.id) if slot is not None else None
        return entry.progress.pieces if entry is not None and entry.progress is not None else 0

    def _change(self) -> None:
        self.number += 1
        self._changed_at = trio.current_time()
        news, self._news = self._news, trio.Event()
        news.set()
