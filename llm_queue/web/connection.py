"""One request as ASGI sees it: where a caller's leaving ends its job, and where a connection gets its proper end."""

from __future__ import annotations

from typing import Any, Final, Self

import trio
from quart_trio.asgi import TrioASGIHTTPConnection

from llm_queue.errors import ReaderTooSlow
from llm_queue.web.facts import connection_of
from llm_queue.web.visit import Receive, Send, Visit, visit_of

LAST_MESSAGE: Final = 2.0
"""Seconds for the last message of a response. Without a limit, a client that does not read would hold its task."""


class HttpConnection(TrioASGIHTTPConnection):
    """Quart's, in one task, which lets go of the job however the request ends.

    Quart reads each body in a task of its own, which then waits for the caller to leave. Here whoever reads the body
    asks for its pieces, and a caller who leaves is seen by the listener, which cancels this task.

    The ticket is closed here and not in the handler or in the stream's generator, because neither runs on when the
    client leaves while headers are being sent.
    """

    async def __call__(self, receive: Receive, send: Send) -> None:
        visit = visit_of(self.scope)
        try:
            with trio.CancelScope() as scope:
                request = self._create_request_from_scope(send)
                body = ArrivingBody(receive, scope)
                request.body = body  # type: ignore[assignment]  # what reads it here iterates over it
                response = await self.app.handle_request(request)
                await self._send_beside(body, finishing(send, visit), response)
        finally:
            ticket = visit.ticket
            if ticket is not None:
                backlog = connection_of(self.scope).backlog
                ticket.close(_too_slow(backlog.limit) if backlog is not None and backlog.given_up else None)

    async def _send_beside(self, body: ArrivingBody, send: Send, response: Any) -> None:
        """Send the response. What nobody wanted of the body is dropped meanwhile, or it would lie in memory."""
        if body.complete:
            await self._send_response(send, response)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body.drop)
            await self._send_response(send, response)
            nursery.cancel_scope.cancel()


class ArrivingBody:
    """The body of a request, in the pieces in which it arrives: an asynchronous iterator of bytes.

    ``complete`` is true once all of it was received.
    """

    def __init__(self, receive: Receive, caller: trio.CancelScope) -> None:
        """``receive`` is ASGI's. ``caller`` is cancelled when the client leaves before the body is complete: a caller
        who leaves is a cancellation, and no error.
        """
        self._receive = receive
        self._caller = caller
        self.complete = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self.complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._caller.cancel()
                await trio.sleep_forever()
            self.complete = not message.get("more_body", False)
            if data := message.get("body", b""):
                return bytes(data)
        raise StopAsyncIteration

    async def drop(self) -> None:
        """Receive the rest, or until the caller leaves, and keep nothing."""
        async for _ in self:
            pass


def _too_slow(limit: float) -> ReaderTooSlow:
    return ReaderTooSlow(
        f"The caller took nothing of its answer for {limit:g} s (--stall-limit), so the job was cancelled. "
        "Close a stream that is not read to its end."
    )


def finishing(send: Send, visit: Visit) -> Send:
    """Let the last message through undisturbed; or keep it back, if the response is to be broken off: a body without
    its end is what tells the client, and the server closes the connection behind it.

    While it is being sent, the server reports the request as over, and quart-trio takes that for a client who left: it
    cancels the very task that has yet to close the connection, or to make it ready for the next request.
    """

    async def send_message(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            if visit.broken_off:
                return
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_MESSAGE):
                await send(message)
        else:
            await send(message)

    return send_message
