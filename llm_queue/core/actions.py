"""What the scheduler tells the dispatcher to do. Whatever happens to a job is among these, in its order.

``seat`` is the id of the seat whose upstream is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_queue.core.jobs import Job
from llm_queue.core.keys import RunnerKey
from llm_queue.errors import QueueError


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Make the key resident, for this job; answer with :class:`~llm_queue.core.events.LoadEnded`."""

    job: Job
    key: RunnerKey
    seat: int = 0


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run the job; answer with :class:`~llm_queue.core.events.AttemptEnded`."""

    job: Job
    key: RunnerKey
    seat: int = 0


@dataclass(frozen=True, slots=True)
class Abort:
    """End the attempt that runs, and blame ``error``.

    Its :class:`~llm_queue.core.events.AttemptEnded` still comes, once it has really ended.
    """

    job: Job
    error: QueueError
    seat: int = 0


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
    """Ask whether the upstream is there, what it has loaded, and which models it has.

    Answer with :class:`~llm_queue.core.events.ProbeEnded`.
    """

    seat: int = 0


@dataclass(frozen=True, slots=True)
class AskResident:
    """Ask what is loaded; answer with :class:`~llm_queue.core.events.ResidentReported`."""

    seat: int = 0


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload all that is loaded, one model after the other; answer with :class:`~llm_queue.core.events.UnloadEnded`."""

    seat: int = 0


Action = StartLoad | StartAttempt | Abort | Requeued | Settle | Probe | AskResident | Unload
