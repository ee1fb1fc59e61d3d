"""What a prompt took, and how its answer ended: all that the core hears of them."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

TELLING_TOKENS: Final = 32
"""Tokens from which on a number of them tells something. Every prompt has some new ones: fewer computed say nothing of
the time that one token takes, and make no prompt cold; fewer that could be found say nothing of what was lost.
"""


class Ending(enum.Enum):
    """How an answer ended. Programs pause differently after each: a tool call is answered in a moment, and what stops
    by itself is read by somebody.
    """

    TOOLS = "tools"
    STOP = "stop"
    LENGTH = "length"


class PromptWork(NamedTuple):
    """The prompt of one answer: how many ``tokens`` it had, how many of them the upstream found ``cached``, and the
    ``seconds`` that it took to compute the others.
    """

    tokens: int
    cached: int
    seconds: float

    @property
    def cold(self) -> bool:
        """True if less than half of it was in memory, and what was computed is worth a word."""
        return 2 * self.cached < self.tokens and self.tokens - self.cached >= TELLING_TOKENS
