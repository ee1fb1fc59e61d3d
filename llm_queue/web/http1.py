"""HTTP/1.1 on one connection: hypercorn's protocol code, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import h11
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import H11SendableEvent

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.routes import dialect_of

MAX_HEADER: Final = 64 * 2**10
"""Bytes of request line and headers: enough for any cookie jar, too little to fill memory with."""

_RFC_9110: Final = {413: b"Content Too Large", 422: b"Unprocessable Content"}  # Python before 3.13 has older words
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | _RFC_9110
_CLASSES: Final = {4: b"Client Error", 5: b"Server Error"}


_ANSWER_FIRST: Final = (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL)  # type: ignore[attr-defined]  # its documents name it
"""A request has come whole, and another may follow. The second is that of one which asks for an upgrade, or is CONNECT:
neither gets what it wants here."""


class Requests(h11.Connection):
    """A server's side of h11, which never holds up who reads from the connection.

    What follows the last request of a connection is ignored. To h11 that is an error, and hypercorn answers an error at
    once, in place of the answer that is on its way. And what follows any other request is as if it had not come, until
    that one is answered: hypercorn would wait for it, and could not see a hang-up meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=MAX_HEADER)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event; none while a request that has come whole is not answered."""
        return h11.NEED_DATA if self.their_state in (*_ANSWER_FIRST, h11.MUST_CLOSE) else super().next_event()


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else. A response's headers leave together with the first piece of its body.

    A response that leaves before the whole request has arrived is the last on its connection, and says so, whoever made
    it: the rest of that request would otherwise lie in front of the next one.
    """

    connection: h11.Connection

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection = Requests()
        self._head = b""
        self._path = ""  # of the request at hand, as far as it was read
        self._busy = False

    @property
    def ahead(self) -> int:
        """Bytes that have come behind the request at hand, and wait until it is answered."""
        return len(self.connection.trailing_data[0]) if self.connection.their_state in _ANSWER_FIRST else 0

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self.connection.their_state is h11.MUST_CLOSE:
                return
            if self._between_requests() and not self.connection.trailing_data[0]:
                event = RawData(data=_without_empty_lines(event.data))
                if not event.data:
                    return
        await super().handle(event)

    async def answered(self) -> None:
        """Wait until the request at hand is answered."""
        await self.can_read.clear()
        await self.can_read.wait()

    async def _handle_events(self) -> None:
        """Take all requests and bodies that have come, in one task at a time: the reader's, or that of an answer."""
        if self._busy:
            return  # it goes on until nothing is left
        self._busy = True
        try:
            await super()._handle_events()
        finally:
            self._busy = False

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response):
            await self._send_head(event.status_code, event.headers)
        else:
            await super().stream_send(event)

    async def _maybe_recycle(self) -> None:
        """Make ready for the next request, which may be here; some clients send an empty line behind a body, which is
        not part of it.
        """
        await super()._maybe_recycle()
        if not self._between_requests():
            return
        waiting, _ = self.connection.trailing_data
        rest = _without_empty_lines(waiting)
        if rest != waiting:
            self.connection = Requests()
            if rest:
                self.connection.receive_data(rest)
        if rest:
            # The answer's task may be cancelled, and its last message has a limit. What was taken from h11 by then must
            # not be lost. Nothing here waits for anybody but a client that is told to send its body.
            with trio.CancelScope(shield=True):
                await self._handle_events()

    def _between_requests(self) -> bool:
        return self.connection.their_state is h11.IDLE

    async def _check_protocol(self, event: h11.Request) -> None:
        """No h2c: an ``Upgrade`` that is not taken up leaves a plain request."""

    async def _create_stream(self, request: h11.Request) -> None:
        self._path = request.target.decode("latin-1")
        size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        if size > MAX_HEADER:
            await self._refuse(431)
            return
        if not request.target.isascii():
            await self._refuse(400)
            return
        if not request.http_version.startswith(b"1."):
            await self._refuse(505)
            return
        if any(name == b"upgrade" for name, _ in request.headers):
            request = h11.Request(
                method=request.method,
                target=request.target,
                headers=[(name, value) for name, value in request.headers if name != b"upgrade"],
                http_version=request.http_version,
            )
        await super()._create_stream(request)

    async def _refuse(self, status: int) -> None:
        await self._send_error_response(status)
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        text = {
            431: f"The headers are larger than {MAX_HEADER // 1024} KiB.",
            505: "This service speaks HTTP/1.1.",
        }.get(status_code, "This is not a valid HTTP/1.1 request.")
        dialect = dialect_of(self._path)
        body = dialect.error_body(BadRequest(text), "")
        headers = [
            (b"content-type", dialect.error_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await self._send_head(status_code, headers)
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _send_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        head = [*headers, *self.config.response_headers("h11")]
        if self._is_last() and all(name.lower() != b"connection" for name, _ in head):
            head.append((b"connection", b"close"))
        reason = _REASONS.get(status) or _CLASSES.get(status // 100, b"")
        await self._send_h11_event(h11.Response(status_code=status, headers=head, reason=reason))

    def _is_last(self) -> bool:
        """True if the connection ends behind this response. Where the client has asked for it, h11 says so itself."""
        arriving = self.connection.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR)
        return arriving or self.context.terminated.is_set()

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if isinstance(event, h11.InformationalResponse):
            event = h11.InformationalResponse(
                status_code=event.status_code, headers=list(event.headers), reason=_REASONS.get(event.status_code, b"")
            )
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is h11.ERROR:
                return
            raise
        if isinstance(event, h11.Response):
            self._head = data
            return
        data, self._head = self._head + data, b""
        if data:
            await self.send(RawData(data=data))


def _without_empty_lines(data: bytes) -> bytes:
    """``data`` from the first request line on: RFC 9112, 2.2 has empty lines in front of it ignored."""
    return data.lstrip(b"\r\n")
