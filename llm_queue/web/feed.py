"""The line as server-sent events, for those who watch it: what is there first, and then each change.

All watchers share one snapshot. It is made by the one who needs it first, and seldom, so that watching costs the same
for one and for many. A watcher that reads slowly gets the latest when it comes back, and nothing is kept for it.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple, Self

import msgspec
import trio
from quart import Response

from llm_queue.errors import TooManyWatchers
from llm_queue.web.service import Service
from llm_queue.web.stream import IteratedBody

APART: Final = 0.25
"""Seconds between two snapshots: more often nobody can read them."""

FRESH: Final = 1.0
"""Seconds for which a snapshot of a line that does not change is given to new watchers: what it says of times grows
old."""

QUIET: Final = 15.0
"""Seconds without an event after which a comment says that the connection lives."""

WATCHERS: Final = 100
"""Watchers at once: each takes a connection, and nobody needs a hundred open pages."""

AGAIN: Final = 5
"""Seconds after which one that was refused may ask again."""

LONGEST_ID: Final = 20
"""Digits of an id: one that is longer is none of ours, and reading it would take time."""

END: Final = b"event: end\ndata: {}\n\n"
"""The last event: the service ends."""


class Snapshot(NamedTuple):
    """The line as JSON, under an id that grows with each snapshot; ``change`` is the change that it was made after."""

    id: int
    change: int
    at: float
    data: bytes

    def event(self, kind: str) -> bytes:
        """Itself as an event."""
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.id, kind.encode(), self.data)


class Feed:
    """The snapshots of one line, and how many watch them."""

    def __init__(self, line: Service, *, first_id: int | None = None) -> None:
        """``first_id`` is the id of the first snapshot. Else it is made of the time, so that no id comes twice, in the
        next process either.
        """
        self.watchers = 0
        self._line = line
        self._latest: Snapshot | None = None
        self._next_id = time.time_ns() // 1_000_000 if first_id is None else first_id

    def response(self, last_id: str | None, *, body: bool = True) -> Response:
        """All events from now on, for a watcher that has seen the one of ``last_id``; or (no ``body``) headers only.

        Raises :class:`~llm_queue.errors.TooManyWatchers`.
        """
        if self.watchers >= WATCHERS:
            raise TooManyWatchers(retry_after=AGAIN)
        known = last_id is not None and last_id.isascii() and last_id.isdecimal() and len(last_id) <= LONGEST_ID
        seen = int(last_id) if known and last_id is not None else None
        response = Response(Watcher(self, self._line, seen) if body else b"", content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"  # nginx would gather them
        return response

    async def latest(self, seen: int | None) -> Snapshot:
        """The line as it is now, or as it was a moment ago: no more than one snapshot is made in :data:`APART`.

        The one of id ``seen`` is given again if nothing has changed since.
        """
        while (latest := self._latest) is not None:
            unchanged, age = latest.change == self._line.changes.number, trio.current_time() - latest.at
            if unchanged and (latest.id == seen or age < FRESH):
                return latest
            if age >= APART:
                break
            await trio.sleep(APART - age)
        return self._make()

    def _make(self) -> Snapshot:
        change = self._line.changes.number
        data = msgspec.json.encode(self._line.status())
        self._latest = Snapshot(self._next_id, change, trio.current_time(), data)
        self._next_id += 1
        return self._latest


class Watcher(IteratedBody):
    """The events of one watcher. It counts while its body is being read, however that ends."""

    def __init__(self, feed: Feed, line: Service, seen: int | None) -> None:
        """``seen`` is the id of the last event that it has had from an earlier connection."""
        self._feed = feed
        self._line = line
        self._seen = seen
        self._change = -1
        self._kind = "snapshot"
        self._greeted = False
        self._ended = False

    async def __aenter__(self) -> Self:
        self._feed.watchers += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._feed.watchers -= 1

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        with trio.move_on_after(QUIET):
            while True:
                if self._kind == "change":
                    await self._line.changes.after(self._change)
                snapshot = await self._feed.latest(self._seen)
                kind, self._kind, self._change = self._kind, "change", snapshot.change
                self._ended = self._line.changes.ended
                known, self._seen = snapshot.id == self._seen, snapshot.id
                if not known:
                    return snapshot.event(kind) + (END if self._ended else b"")
                if self._ended:
                    return END
                if not self._greeted:
                    break  # the headers leave now, and not with the next change
        self._greeted = True
        return b": here\n\n"
