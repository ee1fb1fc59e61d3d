"""A pause that somebody has ordered: nothing starts at a seat, and, if wanted, nothing stays loaded there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pause:
    """It lasts since ``since``, in seconds of the caller's clock, until a resume or a drain.

    ``unload`` is true while what is loaded is still to be unloaded; ``unloaded`` is true once that was done. ``kept``
    is for people: why something stays loaded ("": nothing does, or it was not to be unloaded).
    """

    since: float
    unload: bool = False
    unloaded: bool = False
    kept: str = ""

    def order_unload(self) -> None:
        """What is loaded is to be unloaded, however often that was tried before."""
        self.unload, self.kept = True, ""

    def end_unload(self, kept: str) -> None:
        """It was tried, and nothing stays loaded, or ``kept`` says why."""
        self.unload, self.unloaded, self.kept = False, not kept, kept
