"""What a process was given: its environment, and the memory of its machine."""

from __future__ import annotations

import psutil


def environment_of(process_id: int) -> dict[str, str] | None:
    """The variables that a process was started with; None where the system does not tell, as for other users' ones."""
    try:
        return psutil.Process(process_id).environ()
    except (psutil.Error, OSError):
        return None


def total_memory() -> int:
    """Bytes of memory that this machine has."""
    return int(psutil.virtual_memory().total)
