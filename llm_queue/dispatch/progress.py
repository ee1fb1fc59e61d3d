"""How far the answer of a running attempt is: counted, not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class AnswerSoFar:
    """One attempt that began at ``began``, in seconds: how many pieces have come, and when the first one came."""

    began: float
    pieces: int = 0
    first_at: float | None = None

    def shown(self, now: float) -> dict[str, Any]:
        """The fields of :class:`~.status.JobStatus` that say so. Seconds."""
        since = 0.0 if self.first_at is None else now - self.first_at
        return {
            "tokens": self.pieces,
            "tokens_per_s": (self.pieces - 1) / since if self.pieces > 1 and since > 0 else None,
            "running_s": now - self.began,
            "first_token_s": None if self.first_at is None else self.first_at - self.began,
        }
