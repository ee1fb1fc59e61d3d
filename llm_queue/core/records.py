"""What the scheduler keeps in mind, and what it has counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from llm_queue.core.jobs import Job, State
from llm_queue.core.keys import RunnerKey

PROBE_DELAYS: Final = (0.1, 1.0)
"""Seconds between probes of an upstream that is away: the first, doubling up to the last. They cost nothing."""


@dataclass(frozen=True)
class RetryLimits:
    """The scheduler's own knobs; the settings of the same names say what they mean. Seconds."""

    max_attempts: int = 2
    outage_wait: float = 60.0
    first_outage_wait: float = 10.0


@dataclass(slots=True)
class Outage:
    """The upstream cannot be reached. ``reason`` is for people."""

    since: float
    reason: str
    delay: float = PROBE_DELAYS[0]
    probe_at: float | None = None
    failed_probes: int = 0
    given_up: bool = False


@dataclass(slots=True)
class Counts:
    """What the scheduler has counted since the start. ``loads_first_come`` is what the same arrivals would have cost
    if each had run at its own wanted_ctx in the order of arrival.
    """

    loads: int = 0
    loads_failed: int = 0
    loads_first_come: int = 0
    load_seconds: float = 0.0
    surprise_loads: int = 0
    retries: int = 0
    outages: int = 0
    ended: dict[State, int] = field(default_factory=dict)

    @property
    def reloads_avoided(self) -> int:
        """How many loads the line has saved so far."""
        return max(0, self.loads_first_come - self.loads)


@dataclass(slots=True)
class Occupant:
    """What holds the slot: a job, and whether it is loading its key or running."""

    job: Job
    key: RunnerKey
    loading: bool
    since: float
