"""Garbage collection that holds nobody up.

Python's collector walks, now and then, through every object that there is. With ten thousand waiting requests that
takes more than a second, in which nothing else is done, and it finds nothing: what a waiting request consists of is in
use. So whatever has outlived a collection of the second generation is left out of all later ones (``gc.freeze``, which
costs nothing), and looked at in quiet moments, when nobody waits and few connections are open, or in the end. Objects
without cycles are freed at once, as ever, frozen or not.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from llm_queue.dispatch.moments import JobAccepted, JobEnded, Moment

DUE: Final = 1000
"""Finished jobs after which a collection of everything is worth its time, some 30 ms when nobody waits."""

OVERDUE: Final = 100_000
"""Finished jobs after which everything is collected even if some wait: a line that is never empty must not grow."""

OLD: Final = 20
"""Small collections of the second generation after which one of everything is worth its time when nobody waits. There
is one for each 7,000 objects that are there to stay, or that only look so: connections and refused requests are no
jobs, and leave some hundred objects in cycles each. These make about 1 MiB."""

TOO_OLD: Final = 40
"""The same if some wait, beside those that the jobs which came have made."""

JOBS_IN_ONE: Final = 10
"""Jobs that bring about one small collection of the second generation by coming, with some 700 objects each. Were these
not allowed for, ten thousand that came would make a collection of everything due while they wait, which takes more than
a second.
"""

YOUNG: Final = 50
"""Finished jobs after which what is young is collected, in a millisecond or a few; each tenth time with the second
generation. Python counts how many more objects there are than before: while more is freed than made, as when thousands
wait and are answered, it collects nothing, and then 100,000 objects in one go, which takes 40 ms.
"""

DUE_FOR_EACH: Final = 100
"""Finished jobs for each that is here after which everything is collected though some wait. Each that waits makes that
0.06 ms longer, and may have had in cycles what was left out of later collections while it waited.
"""

MANY_TASKS: Final = 500
"""Tasks from which on no moment is a quiet one. Each open connection has one, and makes a collection of everything
longer: ten thousand that were answered and stay open make it half a second.
"""

PUT_OFF: Final = 1.0
"""Seconds until tasks are counted again. trio walks through all open sockets for that."""

LOOK: Final = 10.0
"""Seconds after which it is looked whether a collection is due, if no job and no refusal tells of one: a program that
asks how the line is makes neither."""


class Collector:
    """Freezes what has grown old, and collects all of it at quiet moments. An observer of the line."""

    def __init__(self) -> None:
        self._live = 0
        self._came = 0
        self._ended = 0
        self._aged = 0
        self._put_off_until = -math.inf
        self._calm = False
        self._due = trio.Event()

    def __call__(self, moment: Moment) -> None:
        """Count the jobs that live, and those that came and ended since the last collection of everything."""
        if isinstance(moment, JobAccepted):
            self._live += 1
            self._came += 1
        elif isinstance(moment, JobEnded):
            self._live -= 1
            self._ended += 1
            if self._ended % YOUNG == 0 and self._calm:
                gc.collect(0 if self._ended % (10 * YOUNG) else 1)
        if self._is_due():
            self._due.set()

    def _is_due(self) -> bool:
        # One that lives runs, and its upstream is busy for longer than this takes.
        quiet = self._live <= 1 and (self._ended >= DUE or self._aged >= OLD)
        if not quiet and not self._is_overdue(self._live):
            return False
        now = trio.current_time()
        if now < self._put_off_until:
            return False
        tasks = trio.lowlevel.current_statistics().tasks_living
        if tasks < MANY_TASKS or self._is_overdue(max(tasks, self._live)):
            return True
        self._put_off_until = now + PUT_OFF
        return False

    def _is_overdue(self, here: int) -> bool:
        """True if it cannot wait for a quiet moment, when as many requests or connections as ``here`` are there."""
        return (
            self._ended >= min(OVERDUE, DUE + DUE_FOR_EACH * here) or self._aged >= TOO_OLD + self._came / JOBS_IN_ONE
        )

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Leave all there is, and whatever grows old, out of the collections until the block ends.

        Nothing is collected first: a start leaves next to no garbage, and whoever comes first would wait for it.
        """
        gc.freeze()
        gc.callbacks.append(self._freeze_the_old)
        self._calm = True
        try:
            yield
        finally:
            self._calm = False
            gc.callbacks.remove(self._freeze_the_old)
            gc.unfreeze()

    async def run(self) -> None:
        """Collect everything whenever it is due, until cancelled."""
        while True:
            with trio.move_on_after(LOOK):
                await self._due.wait()
            self._due = trio.Event()
            if self._is_due():
                collect_everything()
                self._came = self._ended = self._aged = 0  # behind it: it is a collection, too

    def _freeze_the_old(self, phase: str, info: dict[str, Any]) -> None:
        """Called by Python around each collection: what has survived one of the second generation is old."""
        if phase == "stop" and info["generation"] >= 1:
            gc.freeze()
            self._aged += 1


def collect_everything() -> None:
    """Free all cycles there are, and freeze what is left."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
