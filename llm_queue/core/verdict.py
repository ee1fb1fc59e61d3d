"""What the end of an attempt makes of its job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_queue.core.events import AttemptEnded, Outcome
from llm_queue.core.jobs import Job, State
from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    PromptTooLong,
    QueueError,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamUnreachable,
)

NOT_THE_JOBS_FAULT: Final = (Outcome.UNREACHABLE, Outcome.BUSY)
"""Ends that say nothing of the job: they are waited out, and not counted as an attempt."""


@dataclass(frozen=True)
class RetryLimits:
    """How often a job is tried, and how many seconds it waits for an upstream that is away.

    The settings of the same names say what they mean.
    """

    max_attempts: int = 2
    outage_wait: float = 60.0
    first_outage_wait: float = 10.0


def verdict(event: AttemptEnded, job: Job, max_attempts: int) -> tuple[State, QueueError | None]:
    """What an attempt's end makes of its job: the state that it goes to, queued if it is repeated, and the error."""
    outcome, error = event.outcome, event.error
    if outcome is Outcome.SUCCEEDED:
        return State.SUCCEEDED, None
    if job.cancel_requested or outcome is Outcome.CANCELLED:
        return State.CANCELLED, error or Cancelled()
    timed_out = outcome is Outcome.TIMED_OUT
    if event.needed_ctx is not None:
        return State.QUEUED, error or PromptTooLong()
    if outcome is Outcome.REFUSED or job.committed:
        return State.TIMED_OUT if timed_out else State.FAILED, error or UpstreamRefused()
    if outcome in NOT_THE_JOBS_FAULT:
        return State.QUEUED, error or UpstreamUnreachable()
    if job.attempts < max_attempts:
        return State.QUEUED, error or UpstreamBroke()
    if timed_out:
        return State.TIMED_OUT, error or AttemptTimedOut()
    return State.FAILED, error or UpstreamBroke()
