"""The life of a job, and of the line, as moments that can be watched.

A moment is a value. It carries names, numbers and what errors say, and never a request or an answer: what watches the
line cannot see what callers say. It carries no exception either, because the traceback of one leads to the request.
Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from llm_queue.core.events import Outcome
from llm_queue.core.jobs import Lane
from llm_queue.dispatch.status import JobReport
from llm_queue.errors import QueueError


@dataclass(frozen=True, slots=True)
class Failure:
    """An error: its code, its HTTP status, and its message without what was asked or answered."""

    code: str
    status: int
    message: str

    @classmethod
    def of(cls, error: QueueError) -> Self:
        """The error without its traceback."""
        return cls(error.code, error.http_status, error.discreet)


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """A request became a job. ``unknown_lane`` is true if it named a lane that there is not; ``remote``: it goes beside
    the line, because its model runs elsewhere.
    """

    job: str
    client: str
    lane: Lane
    model: str
    size: int
    unknown_lane: bool
    remote: bool = False


@dataclass(frozen=True, slots=True)
class RequestRejected:
    """A request was refused and made no job."""

    error: Failure
    client: str


@dataclass(frozen=True, slots=True)
class LoadStarted:
    """The upstream is told to load a model, for ``job``; ``fits_prompt``: at a size that its prompt made necessary."""

    job: str
    model: str
    num_ctx: int
    fits_prompt: bool = False


@dataclass(frozen=True, slots=True)
class LoadFinished:
    """The load has ended; ``error`` is None if it succeeded."""

    job: str
    model: str
    num_ctx: int
    seconds: float
    error: Failure | None


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The upstream is asked; ``attempt`` counts from 1."""

    job: str
    client: str
    model: str
    num_ctx: int
    attempt: int


@dataclass(frozen=True, slots=True)
class FirstPiece:
    """The first piece of an answer has come, ``seconds`` after its attempt began."""

    job: str
    seconds: float


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """The attempt has ended, and nothing of it runs upstream any more."""

    job: str
    outcome: Outcome
    seconds: float


@dataclass(frozen=True, slots=True)
class JobRequeued:
    """An attempt failed with ``error``, and the job waits again."""

    job: str
    client: str
    error: Failure


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has ended, as ``report`` says. ``error`` is None if it has its answer."""

    report: JobReport
    error: Failure | None


@dataclass(frozen=True, slots=True)
class HoldStarted:
    """The slot is kept free, because ``client`` is expected to ask again."""

    client: str


@dataclass(frozen=True, slots=True)
class HoldFinished:
    """The slot was kept free for ``client``, for ``seconds``."""

    client: str
    seconds: float


@dataclass(frozen=True, slots=True)
class UpstreamChanged:
    """The upstream is there (``reason`` is None), or is not, and ``reason`` says how that shows.

    It is a ``loop`` if the upstream is ourselves: nobody waits for the end of that.
    """

    reason: str | None
    loop: bool = False


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """No new work is taken; ``jobs`` have not ended yet."""

    jobs: int


@dataclass(frozen=True, slots=True)
class BypassSeen:
    """A sign that somebody uses the upstream past the line: ``reason`` is one of the few of
    :mod:`llm_queue.dispatch.bypass`, ``program`` who is connected to it besides us (None: not known). ``again``: a
    sign of the same kind was told not long ago.
    """

    reason: str
    program: str | None
    again: bool = False


Moment = (
    JobAccepted
    | RequestRejected
    | LoadStarted
    | LoadFinished
    | AttemptStarted
    | FirstPiece
    | AttemptFinished
    | JobRequeued
    | JobEnded
    | HoldStarted
    | HoldFinished
    | UpstreamChanged
    | DrainStarted
    | BypassSeen
)
