"""What an input consists of: steps on one connection, and what must come of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Send:
    """Bytes go out."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Nothing is done for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Leave:
    """The client is gone: by a reset of the connection, or by the end of its stream."""

    reset: bool


RESET: Final = Leave(reset=True)
HALF_CLOSE: Final = Leave(reset=False)

Step = Send | Pause | Leave


@dataclass(frozen=True)
class Expected:
    """What must come of an input, besides what holds for all.

    ``methods`` are those of its requests, each of which must have one whole answer, and none two; empty where nobody
    can say: ``most`` is then how many answers there may be. ``statuses`` are the allowed ones; empty for any. Unless it
    ``reads``, nobody takes the answer until the steps are done.
    """

    methods: tuple[bytes, ...] = ()
    statuses: frozenset[int] = frozenset()
    reads: bool = True
    most: int | None = None


@dataclass(frozen=True)
class Input:
    """One connection's worth. ``request_id`` is the only one that any answer on it may have of ours."""

    number: int
    kind: str
    steps: tuple[Step, ...]
    expected: Expected
    request_id: bytes

    def shown(self, most: int = 3000) -> str:
        """What it is, for people."""
        lines = [f"input {self.number} ({self.kind}), {self.expected}"]
        for step in self.steps if len(self.steps) < 12 or most > 3000 else self.steps[:6]:
            text = repr(step)
            lines.append("  " + (text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"))
        return "\n".join(lines)
