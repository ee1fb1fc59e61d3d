"""What the HTTP handler holds while its job lives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from llm_queue.core.jobs import Job, Lane
from llm_queue.errors import Cancelled, QueueError, ReaderTooSlow
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import ChatRequest, Completion, Delta

MAX_UNREAD: Final = 8 * 2**20
"""Bytes of answer that may lie unread before the job is given up: some hours of text at reading speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One checked request, as the web hands it to the line.

    ``model`` is None when the upstream could not be asked for it; ``num_ctx`` is what the caller asked for, if
    anything; ``max_wait`` is in seconds; ``size`` is that of the request body in bytes; ``unknown_lane`` says that it
    named a lane that there is not.
    """

    request: ChatRequest
    model: Model | None
    lane: Lane = Lane.NORMAL
    client: str = "unknown"
    stream: bool = False
    num_ctx: int | None = None
    max_wait: float | None = None
    size: int = 0
    request_id: str = ""
    unknown_lane: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a waiting job stands: how many go before it, and about how many seconds that takes (None: unknown).

    ``loading`` is true when it is its turn and its model is being loaded.
    """

    ahead: int
    seconds: float | None
    loading: bool = False


class Ticket:
    """The caller's end of a job. Closing it says that the caller is gone.

    ``close`` is synchronous, may be called any number of times and from a cancelled task, and never blocks. A cancelled
    ``receive`` loses nothing: what it would have returned is there for the next one.
    """

    def __init__(
        self, job: Job, submission: Submission, *, leave: Callable[[QueueError], None], place: Callable[[], Place]
    ) -> None:
        self.job = job
        self.submission = submission
        self._leave = leave
        self._place = place
        self._send, self._receive = trio.open_memory_channel[Delta | Completion | QueueError](math.inf)
        self._unread = 0
        self._closed = False
        self._settled = False

    def place(self) -> Place:
        """Where the job stands now."""
        return self._place()

    async def receive(self) -> list[Delta | Completion]:
        """All that has arrived and was not received yet; waits for something to arrive.

        The last item ever is a :class:`~llm_queue.wire.shapes.Completion`. Raises the
        :class:`~llm_queue.errors.QueueError` that ended the job, after what had arrived before it.
        """
        items = [await self._receive.receive()]
        while True:
            try:
                items.append(self._receive.receive_nowait())
            except trio.WouldBlock:
                break
        received: list[Delta | Completion] = []
        for item in items:
            if isinstance(item, QueueError):
                if received:
                    self._send.send_nowait(item)  # it is the last one: hand out what came before, raise it next time
                    break
                raise item
            if isinstance(item, Delta):
                self._unread -= item.size
            received.append(item)
        return received

    def close(self, error: QueueError | None = None) -> None:
        """The caller is gone, or has all it wanted. ``error`` is what a job that has not ended ends with."""
        if not self._closed:
            self._closed = True
            if not self._settled:
                self._leave(error or Cancelled("The caller left."))

    # --- the dispatcher's side ---

    def put(self, delta: Delta) -> None:
        """Hand over a piece of a streamed answer. Raises :class:`~llm_queue.errors.ReaderTooSlow`."""
        self.job.committed = True
        self._unread += delta.size
        if self._unread > MAX_UNREAD:
            raise ReaderTooSlow
        self._send.send_nowait(delta)

    def settle(self, outcome: Completion | QueueError, answer: list[Delta] | None = None) -> None:
        """The job has ended: with ``answer``, if it was not streamed, and its completion; or with an error."""
        self._settled = True
        for delta in answer or ():
            self._unread += delta.size
            self._send.send_nowait(delta)
        self._send.send_nowait(outcome)
