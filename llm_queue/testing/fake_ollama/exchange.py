"""The server's side of HTTP/1.1 on one connection, for the fake Ollama: h11 on a trio stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import h11
import trio

JsonObject = dict[str, Any]


class Exchange:
    """One request and its answer at a time; like Go's server, it takes the caller's end of file for its leaving."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.gone = False
        self.before_last: Callable[[], None] = _nothing
        """Called before the last byte of an answer leaves: after it, the next request may be anywhere."""
        self.farewell: tuple[int, str] = (499, "request canceled")
        """What a caller is told who leaves; one who has only stopped sending can still read it."""
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)
        self._head_only = False

    async def receive(self) -> tuple[h11.Request, bytes] | None:
        """The next request with its body, or None when no more comes. Raises h11.RemoteProtocolError."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            match event:
                case h11.Request():
                    head = event
                    self._head_only = event.method == b"HEAD"
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    assert head is not None
                    return head, bytes(body)
                case h11.ConnectionClosed():
                    return None
                case _:
                    self._http.receive_data(bytes(await self._stream.receive_some(65536)))

    async def watch(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the caller leaves. What it sends ahead is kept."""
        try:
            while data := await self._stream.receive_some(65536):
                self._http.receive_data(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.gone = True
        scope.cancel()

    async def head(self, status: int, content_type: str, length: int | None = None) -> None:
        """Send the head of the answer; without a length its body is chunked."""
        framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        await self._send(h11.Response(status_code=status, headers=[("Content-Type", content_type), framing]))

    async def body(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The answer is complete."""
        self.before_last()
        await self._send(h11.EndOfMessage())

    async def cut(self) -> None:
        """Leave in the middle of a chunk."""
        self.before_last()
        await self._stream.send_all(b"40\r\n{")
        self._http.send_failed()

    async def whole(self, status: int, content: JsonObject | str) -> None:
        """Send a whole answer: JSON, or text."""
        if isinstance(content, str):
            data, content_type = content.encode(), "text/plain; charset=utf-8"
        else:
            data, content_type = json.dumps(content, ensure_ascii=False).encode(), "application/json; charset=utf-8"
        self.before_last()
        await self.head(status, content_type, len(data))
        if not self._head_only:
            await self.body(data)
        await self.end()

    async def say_farewell(self) -> None:
        """The last words to a caller who has left, in whatever state the answer is."""
        status, text = self.farewell
        try:
            if self._http.our_state is h11.SEND_RESPONSE:
                await self.whole(status, {"error": text})
            elif self._http.our_state is h11.SEND_BODY:
                await self.body(json.dumps({"error": text}).encode() + b"\n")
                await self.end()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            return

    def next_cycle(self) -> bool:
        """True if the connection may be used again."""
        if self.gone or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)


def _nothing() -> None:
    pass
