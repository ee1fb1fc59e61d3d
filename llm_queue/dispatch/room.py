"""How much the line takes: its bounds in jobs and in bytes."""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_queue.errors import LineFull
from llm_queue.settings import Settings


class Room:
    """Counts the bytes of the requests that live, and refuses what would be too much.

    ``entering`` is the number of jobs that were accepted and are not yet among those that wait.
    """

    def __init__(self, settings: Settings, seconds_for: Callable[[int], float]) -> None:
        """``seconds_for`` says about how many seconds a number of jobs takes, for the advice when to ask again."""
        self._settings = settings
        self._seconds_for = seconds_for
        self._bytes = 0
        self.entering = 0

    def check_jobs(self, waiting: int) -> None:
        """Raises :class:`~llm_queue.errors.LineFull` if no more jobs may wait than the ``waiting`` that do."""
        if waiting + self.entering >= self._settings.max_waiting:
            raise LineFull(
                f"{waiting + self.entering} jobs are waiting, and --max-waiting allows no more. Ask again later.",
                retry_after=self._later(waiting),
            )

    def check_bytes(self, size: int, waiting: int) -> None:
        """Raises :class:`~llm_queue.errors.LineFull` if there is no room for a request of ``size`` bytes."""
        if self._bytes + size > self._settings.max_waiting_bytes:
            raise LineFull(
                "The waiting requests are as large as --max-waiting-bytes allows. Ask again later.",
                retry_after=self._later(waiting),
            )

    def take(self, size: int) -> None:
        """A request of that many bytes was accepted."""
        self._bytes += size

    def give_back(self, size: int) -> None:
        """It has ended."""
        self._bytes -= size

    def _later(self, waiting: int) -> int:
        return max(1, min(60, math.ceil(self._seconds_for(waiting + self.entering))))
