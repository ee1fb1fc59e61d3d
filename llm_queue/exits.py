"""With what the process ends."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """How the process ends; 2, 70 and 130 after sysexits.h and what shells expect."""

    DRAINED = 0
    JOBS_LOST = 1
    BAD_SETTING = 2
    BUG = 70
    INTERRUPTED = 130
