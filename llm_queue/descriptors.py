"""How many files and sockets this process may have open: a caller who waits takes one.

The soft limit of a login shell is often 1,024, from times when more was a danger to programs that call ``select``. None
of ours does, and the system lets every process raise its own limit up to the hard one.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

if sys.platform != "win32":
    import resource

PLENTY: Final = 65_536
"""The limit that is taken where the hard one is higher, and more callers are not expected. Some libraries go through
all numbers that a descriptor may have, and hard limits of a thousand million have been seen in containers."""

OPEN_MAX: Final = 10_240
"""What macOS grants at most, whatever its hard limit says."""

RESERVE: Final = 64
"""Descriptors for all else: listeners, the upstream, 16 jobs beside the line, the log, the search for a caller."""

BEYOND: Final = 64
"""Callers that are to be heard while the line is full: to be told so, to ask how it is, or to go."""


def raise_limit(max_waiting: int) -> int | None:
    """Raise the soft limit, so that ``max_waiting`` callers fit if the hard one allows; never lower it.

    Returns the limit that is in force then; None where there is none. Where the system refuses, it stays as it was.
    """
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = max(PLENTY, max_waiting + BEYOND + RESERVE)
    for limit in (wanted, OPEN_MAX):
        target = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        if soft < target:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
                return target
    return soft


def most_connections(limit: int | None) -> int | None:
    """How many callers can be connected with ``limit`` descriptors; None where there is no limit."""
    return None if limit is None else max(limit - RESERVE, limit // 2)


def shortage(limit: int | None, max_waiting: int) -> str | None:
    """A warning for the user if ``max_waiting`` callers do not fit into ``limit`` descriptors; else None."""
    most = most_connections(limit)
    if most is None or most >= max_waiting:
        return None
    return (
        f"--max-waiting is {max_waiting}, and the system allows {limit} open files, which is room for {most} callers: "
        "whoever comes then waits until another has gone. Allow more (ulimit -Hn, LimitNOFILE=), or lower it"
    )
