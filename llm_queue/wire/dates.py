"""Moments as dates, for dialects that write them so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999, after which no date can be written."""


def time_stamp(unix: int) -> str:
    """A moment in RFC 3339. A server's nonsense becomes the nearest date that can be written: some count in
    milliseconds.
    """
    return datetime.fromtimestamp(min(max(unix, 0), _LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
