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
from llm_queue.traceparent import TraceContext


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
    the line, because its model runs elsewhere. ``operation`` is what is asked of the model, and ``trace`` where the
    request stands in a trace, if in one.
    """

    job: str
    client: str
    lane: Lane
    model: str
    size: int
    unknown_lane: bool
    remote: bool = False
    operation: str = "chat"
    trace: TraceContext | None = None


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
class PromptComputed:
    """The upstream told what the prompt of an answer took: of its ``tokens`` it found ``cached``, and computed the
    others in ``seconds``. It was ``cold`` if little was found of a prompt that was not short.

    ``new`` and ``changed_at`` are as in :class:`~llm_queue.dispatch.prefixes.Seen`: whether an earlier prompt began
    alike, and between which characters it differs from that one.
    """

    job: str
    client: str
    model: str
    tokens: int
    cached: int
    seconds: float
    cold: bool
    new: bool
    changed_at: tuple[int, int] | None


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
class JobMoved:
    """By hand: a job waits in another lane."""

    job: str
    client: str
    lane: Lane


@dataclass(frozen=True, slots=True)
class PauseStarted:
    """By hand: nothing more starts. ``unload``: what is loaded is to be unloaded."""

    unload: bool


@dataclass(frozen=True, slots=True)
class PauseEnded:
    """By hand: the line goes on, after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class UnloadFinished:
    """What was loaded has been unloaded in a pause; with an ``error``, not all of it."""

    error: Failure | None


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
    | PromptComputed
    | AttemptFinished
    | JobRequeued
    | JobEnded
    | HoldStarted
    | HoldFinished
    | UpstreamChanged
    | DrainStarted
    | JobMoved
    | PauseStarted
    | PauseEnded
    | UnloadFinished
    | BypassSeen
)
