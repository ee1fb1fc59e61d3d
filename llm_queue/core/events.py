"""What happens to the line, as values: everything that the scheduler ever hears of, but for the passing of time.

An event holds no request and no text of a caller, so a row of events can be kept and played again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.errors import QueueError


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
    """The upstream serves a program that bypasses the line: not the job's fault either."""
    CANCELLED = "cancelled"
    """It was aborted, or the caller could not follow."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The model that a job's name stands for, once the upstream could say so.

    ``model`` is its identity; ``trained`` is the context in tokens that it was trained for (None: unknown).
    """

    model: str
    trained: int | None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was accepted. With a max wait of 0 it runs now or never."""

    job: Job


@dataclass(frozen=True, slots=True)
class Left:
    """The caller left, or the job was cancelled by hand. ``error`` is what its caller is told, if it still listens."""

    job: Job
    error: QueueError


@dataclass(frozen=True, slots=True)
class Moved:
    """A waiting job goes to another lane by hand, and keeps its place among those of its client."""

    job: Job
    lane: Lane


@dataclass(frozen=True, slots=True)
class Paused:
    """Nothing more may start until :class:`Resumed`; ``unload``: what is loaded is unloaded as well."""

    unload: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """A pause is over."""


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """A load is over. ``reported`` is what the upstream says is loaded now (None: it did not say)."""

    job: Job
    outcome: Outcome
    error: QueueError | None = None
    reported: frozenset[RunnerKey] | None = None
    seat: int = 0


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt has really ended: nothing of it runs upstream.

    ``surprise_load`` is true if the upstream had to load a model that was taken for resident; ``committed`` is true if
    the caller has been given a piece of the answer, so that it cannot be begun anew; ``unloaded`` is true if the
    upstream has unloaded the model after the answer; ``needed_ctx`` is the larger context in tokens with which it may
    take what it has refused (None: there is none). ``prompt`` is what its prompt took (None: not reported), and
    ``ending`` how the answer ended, if it did.
    """

    job: Job
    outcome: Outcome
    error: QueueError | None = None
    surprise_load: bool = False
    committed: bool = False
    unloaded: bool = False
    needed_ctx: int | None = None
    prompt: PromptWork | None = None
    ending: Ending | None = None
    seat: int = 0


@dataclass(frozen=True, slots=True)
class ProbeEnded:
    """The upstream answered a probe (``failure`` is None) or did not.

    ``reported`` is what it has loaded; ``resolved`` has, by job id, what its catalogue says of jobs whose model was not
    known yet.
    """

    failure: QueueError | None
    reported: frozenset[RunnerKey] = frozenset()
    resolved: Mapping[str, Resolved | QueueError] = field(default_factory=dict)
    seat: int = 0


@dataclass(frozen=True, slots=True)
class ResidentReported:
    """The upstream was asked what it has loaded, and said ``reported`` (None: it did not say)."""

    reported: frozenset[RunnerKey] | None
    seat: int = 0


@dataclass(frozen=True, slots=True)
class UnloadEnded:
    """What was loaded has been unloaded, or, with an ``error``, not all of it.

    ``left`` is what is loaded still (None: not known).
    """

    outcome: Outcome
    error: QueueError | None = None
    left: frozenset[RunnerKey] | None = None
    seat: int = 0


@dataclass(frozen=True, slots=True)
class DrainBegan:
    """No more work is taken; what is here may finish. A pause is over."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing may finish any more: all that waits ends with ``error``, and what runs is aborted with it."""

    error: QueueError


SeatEvent = LoadEnded | AttemptEnded | ProbeEnded | ResidentReported | UnloadEnded
"""The events of one upstream; ``seat`` is the id of its seat."""

Event = Submitted | Left | Moved | Paused | Resumed | SeatEvent | DrainBegan | Stopped
