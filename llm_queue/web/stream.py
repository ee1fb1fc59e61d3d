"""A streamed answer: server-sent events while the model speaks, and comments while the caller waits."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Self

import trio
from quart.wrappers.response import ResponseBody

from llm_queue.core.jobs import State
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import QueueError
from llm_queue.wire.callers.openai import ChatEncoder
from llm_queue.wire.shapes import Completion, Delta

QUIET: Final = 10.0
"""Seconds without a byte after which a caller hears where it stands: proxies and SDKs give up at 30 and more."""

MAX_BATCH: Final = 500
"""Pieces of an answer in one write: one send for all that lies there, without holding up everybody else."""


class EventStream(ResponseBody):
    """The body of a streamed response. What has arrived by the time of a write leaves in one piece.

    It is no generator, because nothing must depend on a generator being closed: a caller who leaves ends the request's
    tasks, and those close the ticket. After an error comes an error event and no ``[DONE]``, never a made-up end.
    """

    def __init__(
        self,
        ticket: Ticket,
        encoder: ChatEncoder,
        first: list[Delta | Completion],
        on_completion: Callable[[Completion], object],
    ) -> None:
        """``first`` is what had arrived before the headers left: if nothing, they leave with word of where the job
        stands. ``on_completion`` hears of the true end.
        """
        self._ticket = ticket
        self._encoder = encoder
        self._waiting = deque(first)
        self._on_completion = on_completion
        self._owes_word = not first
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held that would need it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if self._owes_word:
            self._owes_word = False
            return waiting_comment(self._ticket)
        if not self._waiting:
            try:
                with trio.move_on_after(QUIET) as quiet:
                    self._waiting.extend(await self._ticket.receive())
            except QueueError as error:
                self._ended = True
                return self._encoder.error_event(error)
            if quiet.cancelled_caught:
                return waiting_comment(self._ticket)
        return self._encode()

    def _encode(self) -> bytes:
        deltas: list[Delta] = []
        while self._waiting and len(deltas) < MAX_BATCH:
            item = self._waiting.popleft()
            if isinstance(item, Completion):
                self._ended = True
                self._on_completion(item)
                return self._encoder.chunks(deltas) + self._encoder.end(item)
            deltas.append(item)
        return self._encoder.chunks(deltas)


async def first_items(ticket: Ticket) -> list[Delta | Completion]:
    """What arrives in the first :data:`QUIET` seconds, or nothing: then the headers must leave without it.

    Raises the :class:`~llm_queue.errors.QueueError` that ended the job before a header was sent.
    """
    with trio.move_on_after(QUIET):
        return await ticket.receive()
    return []


def waiting_comment(ticket: Ticket) -> bytes:
    """Where the job stands, as a comment: clients skip it, and people who use curl read it."""
    if ticket.job.state is not State.QUEUED:
        return b": running\n\n"
    place = ticket.place()
    if place.loading:
        return b": loading\n\n"
    about = f", about {place.seconds:.0f} s" if place.seconds is not None else ""
    return f": queued, {place.ahead} ahead{about}\n\n".encode()
