"""A whole answer, and word to its caller when it takes long.

SDKs, Node's fetch and proxies give up when no header has come for 300 s. So after :data:`PATIENCE` the headers leave
with status 200, and from then on white space, which JSON may begin with. An error can no longer have its own status
then: the dialect's error is written as the body, and the connection is broken off before the body's end, so that no
client takes it for an answer.
"""

from __future__ import annotations

from typing import Final

import trio
from quart import Response

from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import QueueError
from llm_queue.web.headers import job_headers
from llm_queue.web.limits import TimeLimit
from llm_queue.web.stream import IteratedBody, begun, warn_truncated
from llm_queue.web.visit import Visit
from llm_queue.wire.callers.dialect import JSON, Encoder, Operation
from llm_queue.wire.shapes import Answer

PATIENCE: Final = 240.0
"""Seconds after which the headers of a whole answer leave without it: a minute before clients give up, and late enough
for an error to have its status nearly always.
"""

WORD: Final = b" "
"""What says that the answer is still awaited."""


async def whole_answer(
    ticket: Ticket,
    encoder: Encoder,
    operation: Operation[object],
    visit: Visit,
    *,
    http_version: str,
    patience: TimeLimit,
    quiet: TimeLimit,
) -> Response:
    """The response with the whole answer, or with the beginning of one that takes its time.

    ``patience`` is the limit of :data:`PATIENCE`, and ``quiet`` that of :data:`~llm_queue.web.stream.QUIET`. Raises
    the :class:`~llm_queue.errors.QueueError` that ended the job before the headers had left.
    """
    # Without chunks, as in HTTP/1.0, nobody could tell a body that is broken off from one that has ended.
    may_begin = operation.whole_type.startswith(JSON) and http_version == "1.1"
    with patience.scope() if may_begin else trio.CancelScope():
        answer = await ticket.whole()
        response = Response(encoder.whole(answer), content_type=operation.whole_type)
        response.headers.update(job_headers(ticket.job))
        if answer.completion.truncated:
            response.headers["X-LLM-Queue-Truncated"] = "maybe"
            warn_truncated(ticket)
        return response
    return begun(LateAnswer(ticket, encoder, operation, visit, quiet), ticket, operation.whole_type)


class LateAnswer(IteratedBody):
    """The body of a whole answer whose headers have left before it."""

    def __init__(
        self, ticket: Ticket, encoder: Encoder, operation: Operation[object], visit: Visit, quiet: TimeLimit
    ) -> None:
        self._ticket = ticket
        self._encoder = encoder
        self._dialect = operation.dialect
        self._visit = visit
        self._quiet = quiet
        self._begun = False
        self._ended = False

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            return WORD
        try:
            with self._quiet.scope():
                answer = await self._ticket.whole()
                self._ended = True
                return self._encode(answer)
        except QueueError as error:
            self._ended = True
            self._visit.broken_off = True
            return self._dialect.error_body(error, self._visit.request_id)
        return WORD

    def _encode(self, answer: Answer) -> bytes:
        if answer.completion.truncated:
            warn_truncated(self._ticket)
        return self._encoder.whole(answer)
