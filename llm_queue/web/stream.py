"""A streamed answer: what the dialect writes for the pieces as they come, and for a caller that waits."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Literal, Self

import structlog
from quart import Response
from quart.wrappers.response import ResponseBody

from llm_queue.core.jobs import State
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import QueueError
from llm_queue.web.headers import job_headers
from llm_queue.web.limits import TimeLimit
from llm_queue.wire.callers.dialect import Encoder, Progress
from llm_queue.wire.shapes import Completion, Piece

_log = structlog.get_logger("llm_queue.web")

QUIET: Final = 10.0
"""Seconds without a byte after which a caller hears where it stands: proxies and SDKs give up at 30 and more."""

MAX_BATCH: Final = 500
"""Pieces of an answer in one write: one send for all that lies there, without holding up everybody else."""


class IteratedBody(ResponseBody):
    """A response body that is asked for each piece.

    It is no generator, because nothing must depend on a generator being closed: a caller who leaves ends the request's
    tasks, and those close the ticket.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held that would need it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """The next piece, which must not be empty: that would end the body."""


class AnswerStream(IteratedBody):
    """The body of a streamed response. What has arrived by the time of a write leaves in one piece.

    After an error comes the dialect's error, never a made-up end.
    """

    def __init__(self, ticket: Ticket, encoder: Encoder, first: list[Piece | Completion], quiet: TimeLimit) -> None:
        """``first`` is what had arrived before the headers left: if nothing, they leave with word of where the job
        stands. ``quiet`` is the limit of :data:`QUIET`.
        """
        self._ticket = ticket
        self._encoder = encoder
        self._quiet = quiet
        self._arrived = deque(first)
        self._owes_word = not first
        self._begun = False
        self._ended = False

    async def __anext__(self) -> bytes:
        data = b""
        if not self._begun:
            self._begun = True
            data = self._encoder.begin()
            if self._owes_word:
                data += self._encoder.waiting(progress(self._ticket))
        while not data:  # an encoder may have nothing to say yet
            if self._ended:
                raise StopAsyncIteration
            data = await self._next()
        return data

    async def _next(self) -> bytes:
        if not self._arrived:
            try:
                with self._quiet.scope() as quiet:
                    self._arrived.extend(await self._ticket.receive())
            except QueueError as error:
                self._ended = True
                return self._encoder.error(error)
            if quiet.cancelled_caught:
                return self._encoder.waiting(progress(self._ticket))
        return self._encode()

    def _encode(self) -> bytes:
        pieces: list[Piece] = []
        while self._arrived and len(pieces) < MAX_BATCH:
            item = self._arrived.popleft()
            if isinstance(item, Completion):
                self._ended = True
                if item.truncated:
                    warn_truncated(self._ticket)
                return self._encoder.pieces(pieces) + self._encoder.end(item)
            pieces.append(item)
        return self._encoder.pieces(pieces)


async def streamed_answer(ticket: Ticket, encoder: Encoder, content_type: str, quiet: TimeLimit) -> Response:
    """The response whose headers leave with what arrives in the first :data:`QUIET` seconds, or without anything.
    ``quiet`` is the limit of that time.

    Raises the :class:`~llm_queue.errors.QueueError` that ended the job before a header was sent.
    """
    first: list[Piece | Completion] = []
    with quiet.scope():
        first = await ticket.receive()
    return begun(AnswerStream(ticket, encoder, first, quiet), ticket, content_type)


def begun(body: IteratedBody, ticket: Ticket, content_type: str) -> Response:
    """A response whose body comes in pieces, which nothing on the way is to gather."""
    response = Response(body, content_type=content_type)
    response.headers.update(job_headers(ticket.job))
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would gather them
    return response


def progress(ticket: Ticket) -> Progress:
    """Where the job stands."""
    if ticket.job.state is not State.QUEUED:
        return Progress("running")
    place = ticket.place()
    phase: Literal["queued", "loading", "paused"] = "paused" if place.paused else "queued"
    return Progress("loading" if place.loading else phase, place.ahead, place.seconds)


def warn_truncated(ticket: Ticket) -> None:
    """Say in the log that a prompt was probably cut."""
    num_ctx = ticket.job.key.num_ctx if ticket.job.key else 0
    _log.warning(
        "a prompt was probably cut to fit its context: ask with a larger numCtx", job=ticket.job.id, num_ctx=num_ctx
    )
