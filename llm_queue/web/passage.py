"""What changes Ollama, passed on to it (--allow-ollama-admin): pulls, pushes, new models, copies, deletions.

It stands in front of the app and behind the gate, because a model that is uploaded has gigabytes, which Quart would
gather. Nothing of it takes the slot.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import trio

from llm_queue.errors import QueueError
from llm_queue.upstream.protocol import Native
from llm_queue.web.clients import UNKNOWN
from llm_queue.web.connection import finishing
from llm_queue.web.headers import error_headers
from llm_queue.web.refusals import tell_refusal
from llm_queue.web.service import Service
from llm_queue.web.visit import App, Receive, Scope, Send, visit_of
from llm_queue.wire.callers.ollama import JSON, error_body

_CHANGES: Final = re.compile(
    r"(?:POST /api/(?:pull|push|create|copy)|DELETE /api/delete|(?:HEAD|POST) /api/blobs/[A-Za-z0-9:-]+)/?"
)
_PASSED: Final = (b"content-type", b"content-length", b"transfer-encoding")


class Passage:
    """ASGI middleware that takes what changes Ollama, and leaves the rest to the app."""

    def __init__(self, app: App, line: Service) -> None:
        self._app = app
        self._line = line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        native = self._line.models.native
        if scope["type"] != "http" or native is None or not _CHANGES.fullmatch(f"{scope['method']} {scope['path']}"):
            await self._app(scope, receive, send)
            return
        caller = _Caller(receive, finishing(send, visit_of(scope)))
        try:
            async with trio.open_nursery() as nursery:
                caller.left = nursery.cancel_scope.cancel
                nursery.start_soon(caller.listen)
                await self._relay(native, scope, caller)
                nursery.cancel_scope.cancel()
        finally:
            with suppress(QueueError), trio.CancelScope(shield=True):
                await self._line.catalog.refresh()  # a name may stand for other weights now

    async def _relay(self, native: Native, scope: Scope, caller: _Caller) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _PASSED}
        path = scope["path"].rstrip("/")
        try:
            await native.relay(scope["method"], path, headers, caller.body(), caller.begin, caller.write)
        except QueueError as error:
            tell_refusal(self._line, error, UNKNOWN, scope)
            await caller.fail(error)
        else:
            await caller.end()


class _Caller:
    """The caller's side of one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._pieces, self._arriving = trio.open_memory_channel[bytes](0)
        self._begun = False
        self.left: Any = None

    async def listen(self) -> None:
        """Take the body as it comes, as fast as Ollama takes it, and see the caller leave."""
        async with self._pieces:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.left()
                    return
                if message.get("body"):
                    await self._pieces.send(message["body"])
                if not message.get("more_body", False):
                    break
        await self._receive()  # nothing more comes but its end
        self.left()

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of its body."""
        async for piece in self._arriving:
            yield piece

    async def begin(self, status: int, media_type: str) -> None:
        """The head of its answer."""
        self._begun = True
        headers = [(b"content-type", media_type.encode("latin-1"))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """A piece of its answer."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last of its answer."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def fail(self, error: QueueError) -> None:
        """An answer that says what went wrong; once it has begun, its last line."""
        body = error_body(error)
        if not self._begun:
            length = (b"content-length", b"%d" % len(body))
            headers = [(b"content-type", JSON.encode()), length, *error_headers(error)]
            await self._send({"type": "http.response.start", "status": error.http_status, "headers": headers})
        await self.end(body)
