"""One request as ASGI sees it: where a caller's leaving ends its job, and where a connection gets its proper end."""

from __future__ import annotations

from typing import Any, Final

import trio
from quart import Request
from quart_trio.asgi import TrioASGIHTTPConnection

from llm_queue.errors import ReaderTooSlow
from llm_queue.web.facts import connection_of
from llm_queue.web.visit import Receive, Send, Visit, visit_of

LAST_MESSAGE: Final = 2.0
"""Seconds for the last message of a response. Without a limit, a client that does not read would hold its task."""


class HttpConnection(TrioASGIHTTPConnection):
    """Quart's, which lets go of the job however the request ends.

    The ticket is closed here and not in the handler or in the stream's generator, because neither runs on when the
    client leaves while headers are being sent.
    """

    async def __call__(self, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(receive, finishing(send, visit_of(self.scope)))
        finally:
            ticket = visit_of(self.scope).ticket
            if ticket is not None:
                backlog = connection_of(self.scope).backlog
                ticket.close(_too_slow(backlog.limit) if backlog is not None and backlog.given_up else None)

    async def handle_messages(  # type: ignore[override]  # quart-trio's signature, which is not that of Quart
        self, nursery: trio.Nursery, request: Request, receive: Receive
    ) -> None:
        """A caller who leaves is a cancellation, and nothing else: newer versions of Quart would also raise an error of
        theirs in whatever reads or answers the request, where it looks like one of ours.
        """

        async def receive_until_left() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                nursery.cancel_scope.cancel()
                await trio.sleep_forever()
            return message

        await super().handle_messages(nursery, request, receive_until_left)


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
