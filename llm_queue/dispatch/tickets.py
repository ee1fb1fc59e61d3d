"""What the HTTP handler holds while its job lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from llm_queue.core.jobs import Job, Lane
from llm_queue.dispatch.fingerprints import Fingerprint
from llm_queue.errors import Cancelled, QueueError, ReaderTooSlow
from llm_queue.traceparent import TraceContext
from llm_queue.upstream.protocol import Model
from llm_queue.wire.prompts import PromptSize
from llm_queue.wire.shapes import (
    Answer,
    ChatRequest,
    Completion,
    EmbedRequest,
    LoadRequest,
    Piece,
    Request,
    TextRequest,
    Vectors,
    fold,
)

MAX_UNREAD: Final = 8 * 2**20
"""Bytes of answer that may lie unread before the job is given up: some hours of text at reading speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One checked request, as the web hands it to the line.

    ``model`` is None when the upstream could not be asked for it; ``num_ctx`` is what the caller asked for, if
    anything; ``share`` is the client's; ``max_wait`` is in seconds; ``size`` is that of the request body in bytes;
    ``unknown_lane`` says that it named a lane that there is not; ``session`` is the caller's name for the conversation
    that it belongs to; ``prompt_size`` and ``fingerprint`` are those of ``request`` where it was looked at already;
    ``trace`` is where the request stands in a trace, if in one; ``supersede`` is the key by which it takes the place of
    an older one ("": it does not).
    """

    request: Request
    model: Model | None
    lane: Lane = Lane.NORMAL
    client: str = "unknown"
    share: float = 1.0
    stream: bool = False
    num_ctx: int | None = None
    max_wait: float | None = None
    size: int = 0
    request_id: str = ""
    unknown_lane: bool = False
    session: str | None = None
    prompt_size: PromptSize | None = None
    fingerprint: Fingerprint | None = None
    trace: TraceContext | None = None
    supersede: str = ""

    @property
    def remote(self) -> bool:
        """True if it goes beside the line, because its model runs elsewhere."""
        return self.model is not None and self.model.remote

    @property
    def operation(self) -> str:
        """What is asked of the model, by OpenTelemetry's names where it has one."""
        match self.request:
            case ChatRequest():
                return "chat"
            case TextRequest():
                return "text_completion"
            case EmbedRequest():
                return "embeddings"
            case LoadRequest(unload=unload):  # pragma: no branch - the last kind there is
                return "unload" if unload else "load"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a waiting job stands: how many go before it, and about how many seconds that takes (None: unknown).

    ``loading`` is true when it is its turn and its model is being loaded; ``paused`` while nothing starts.
    """

    ahead: int
    seconds: float | None
    loading: bool = False
    paused: bool = False


class Ticket:
    """The caller's end of a job. Closing it says that the caller is gone.

    ``close`` is synchronous, may be called any number of times and from a cancelled task, and never blocks. A cancelled
    ``receive`` or ``whole`` loses nothing: what it would have returned is there for the next one.
    """

    def __init__(
        self,
        job: Job,
        submission: Submission,
        *,
        leave: Callable[[Job, QueueError], None],
        place: Callable[[Job], Place],
    ) -> None:
        """``leave`` is told once that the caller of a job left, with the error that the job is to end with; ``place``
        says where a job stands.
        """
        self.job = job
        self.submission = submission
        self._leave = leave
        self._place = place
        self._pieces: list[Piece] = []
        self._unread = 0
        self._outcome: Answer | Completion | QueueError | None = None
        self._news = trio.Event()
        self._closed = False

    def place(self) -> Place:
        """Where the job stands now."""
        return self._place(self.job)

    async def receive(self) -> list[Piece | Completion]:
        """Wait until something has arrived, and return all that was not received yet.

        The last item ever is a :class:`~llm_queue.wire.shapes.Completion`. Raises the
        :class:`~llm_queue.errors.QueueError` that ended the job, after all that had arrived before it.
        """
        await self._news.wait()
        received: list[Piece | Completion] = [*self._pieces]
        self._pieces.clear()
        self._unread = 0
        if self._outcome is None:
            self._news = trio.Event()
        elif isinstance(self._outcome, Completion):
            received.append(self._outcome)
        elif isinstance(self._outcome, Answer):
            answer = self._outcome
            received += [Vectors(answer.vectors) if answer.vectors else answer.message, answer.completion]
        elif not received:
            raise self._outcome
        return received

    async def whole(self) -> Answer:
        """Wait for the end of the job and return its whole answer. Do not mix it with :meth:`receive`.

        Raises the :class:`~llm_queue.errors.QueueError` that ended the job.
        """
        while self._outcome is None:
            await self._news.wait()
            if self._outcome is None:
                self._news = trio.Event()
        if isinstance(self._outcome, QueueError):
            raise self._outcome
        if isinstance(self._outcome, Answer):
            return self._outcome
        return fold(self._pieces, self._outcome)

    def close(self, error: QueueError | None = None) -> None:
        """The caller is gone, or has all it wanted. A job that has not ended is cancelled, with ``error`` if given."""
        if not self._closed:
            self._closed = True
            if self._outcome is None:
                self._leave(self.job, error or Cancelled("The caller left."))

    # --- the dispatcher's side ---

    def put(self, piece: Piece) -> None:
        """Hand over a piece of a streamed answer. Raises :class:`~llm_queue.errors.ReaderTooSlow`."""
        self._unread += piece.size
        if self._unread > MAX_UNREAD:
            raise ReaderTooSlow
        self._pieces.append(piece)
        self._news.set()

    def settle(self, outcome: Answer | Completion | QueueError) -> None:
        """The job has ended: with its whole answer, or, if that was streamed, with its completion; or with an error."""
        self._outcome = outcome
        self._news.set()
