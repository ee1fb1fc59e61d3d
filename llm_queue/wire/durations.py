"""Lengths of time as Ollama writes them: a number of seconds, or Go's durations such as "1h30m"."""

from __future__ import annotations

import math
import re
from typing import Final

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d+", re.ASCII)

LONGEST: Final = 2**63 / 1e9
"""Seconds that a duration of Go's can have, some 292 years."""


def seconds_in(duration: str) -> float:
    """The seconds of a duration in Go's notation, which needs a unit; below zero as it stands.

    Raises :class:`ValueError` in Go's words.
    """
    sign, rest = (-1.0, duration[1:]) if duration[:1] == "-" else (1.0, duration.removeprefix("+"))
    if rest == "0":
        return 0.0
    seconds, at = 0.0, 0
    while match := _PART.match(rest, at):
        number, unit = match.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{duration}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{duration}"')
        seconds, at = seconds + float(number) * _UNITS[unit], match.end()
    if not at or at < len(rest) or seconds > LONGEST:
        raise ValueError(f'time: invalid duration "{duration}"')
    return sign * seconds


def lifetime(said: str | float) -> float:
    """For how many seconds a model is to stay: infinity for what is below zero. Raises :class:`ValueError`."""
    try:
        seconds = seconds_in(said) if isinstance(said, str) else float(said)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
    return math.inf if seconds < 0 or seconds > LONGEST else seconds


def lifetime_setting(said: str) -> float:
    """The same where a setting says it: a whole number without a unit is one of seconds, as in Ollama's own variable.

    Raises :class:`ValueError`.
    """
    return lifetime(int(said) if _WHOLE.fullmatch(said) else said)
