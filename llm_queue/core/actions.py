"""What the scheduler tells the dispatcher to do. Whatever happens to a job is among these, in its order."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from llm_queue.core.jobs import Job
from llm_queue.core.keys import RunnerKey
from llm_queue.errors import QueueError


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Make the key resident, for this job; answer with ``load_ended``."""

    job: Job
    key: RunnerKey


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run the job; answer with ``attempt_ended``."""

    job: Job
    key: RunnerKey


@dataclass(frozen=True, slots=True)
class Abort:
    """End the attempt that runs, and blame the error; it still answers with ``attempt_ended``, once it has ended."""

    job: Job
    error: QueueError


@dataclass(frozen=True, slots=True)
class Requeued:
    """Nothing to do but to tell: the attempt failed, and the job waits again."""

    job: Job
    error: QueueError


@dataclass(frozen=True, slots=True)
class Settle:
    """The job has ended; tell its caller the error, or (None) that its answer is whole."""

    job: Job
    error: QueueError | None


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask whether the upstream is there, what it has loaded, and which models it has; answer with ``probe_ended``."""


@dataclass(frozen=True, slots=True)
class AskResident:
    """Ask what is loaded; answer with ``resident_known``."""


Action = StartLoad | StartAttempt | Abort | Requeued | Settle | Probe | AskResident


class Outcome(enum.Enum):
    """How an attempt or a load ended."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """The upstream will say the same again: 4xx, no such model, no memory for it."""
    BROKEN = "broken"
    """It failed in a way that may pass: 5xx, a broken stream; a load: its connection was lost."""
    TIMED_OUT = "timed out"
    UNREACHABLE = "unreachable"
    """No connection was made: an outage, and not the job's fault."""
    BUSY = "busy"
    """The upstream serves somebody who bypasses the line: not the job's fault either."""
    CANCELLED = "cancelled"
    """It was aborted, or the caller could not follow."""
