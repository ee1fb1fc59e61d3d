"""Garbage collection that holds nobody up.

Python's collector walks, now and then, through every object that there is. With ten thousand waiting requests that
takes more than a second, in which nothing else is done, and it finds nothing: what a waiting request consists of is in
use. So whatever has outlived two of the small collections is left out of all later ones (``gc.freeze``, which costs
nothing), and looked at when nobody waits. Objects without cycles are freed at once, as ever; frozen or not.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from llm_queue.dispatch.moments import JobAccepted, JobEnded, Moment

DUE: Final = 1000
"""Finished jobs after which a collection of everything is worth its time, some 30 ms when nobody waits."""

OVERDUE: Final = 100_000
"""Finished jobs after which everything is collected even if some wait: a line that is never empty must not grow."""


class Collector:
    """Freezes what has grown old, and collects all of it at quiet moments. An observer of the line."""

    def __init__(self) -> None:
        self._live = 0
        self._ended = 0
        self._due = trio.Event()

    def __call__(self, moment: Moment) -> None:
        """Count the jobs that live, and those that have ended since the last collection."""
        if isinstance(moment, JobAccepted):
            self._live += 1
        elif isinstance(moment, JobEnded):
            self._live -= 1
            self._ended += 1
            # One that lives runs, and its upstream is busy for longer than this takes.
            if self._ended >= OVERDUE or (self._ended >= DUE and self._live <= 1):
                self._due.set()

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Collect all there is, and leave it and whatever grows old out of the collections until the block ends."""
        collect_everything()
        gc.callbacks.append(_freeze_the_old)
        try:
            yield
        finally:
            gc.callbacks.remove(_freeze_the_old)
            gc.unfreeze()

    async def run(self) -> None:
        """Collect everything whenever it is due, until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            self._ended = 0
            collect_everything()


def collect_everything() -> None:
    """Free all cycles there are, and freeze what is left."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _freeze_the_old(phase: str, info: dict[str, Any]) -> None:
    """Called by Python around each collection: what has survived one of the second generation is old."""
    if phase == "stop" and info["generation"] >= 1:
        gc.freeze()
