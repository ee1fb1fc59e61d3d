"""Ollama's own API, for what has nothing to do with the line: questions about its models, and changing them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import h11
import httpx
import trio

from llm_queue.errors import ConnectionLost, QueueError, UpstreamUnreachable
from llm_queue.upstream.http import HttpApi, header_bytes
from llm_queue.upstream.protocol import NativeAnswer
from llm_queue.upstream.transport import CONNECT_TIMEOUT, RECEIVE_SIZE, Connect, open_stream

IDLE: Final = 600.0
"""Seconds without a byte in either direction after which a relayed request is given up. Ollama reports on a pull many
times a second, but says nothing while it looks through a large file that it was sent."""


class OllamaApi:
    """Implements :class:`~llm_queue.upstream.protocol.Native`."""

    def __init__(self, api: HttpApi, authorization: str | None = None, connect: Connect = open_stream) -> None:
        """``authorization`` is the value of that header, for a proxy in front of Ollama."""
        self._api = api
        self._authorization = authorization
        self._connect = connect

    async def ask(self, method: str, path: str, body: bytes = b"", *, program: str = "") -> NativeAnswer:
        headers = {"user-agent": program} if program else {}
        return NativeAnswer(*await self._api.ask_any(method, path, body, headers))

    async def relay(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        begin: Callable[[int, str], Awaitable[None]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        url = httpx.URL(self._api.url + path)
        own = {"host": url.netloc.decode("ascii"), "user-agent": "llm-queue", "connection": "close"}
        if self._authorization is not None:
            own["authorization"] = self._authorization
        request = h11.Request(method=method, target=url.raw_path, headers=header_bytes(own | dict(headers)))
        stream = await self._open(url)
        exchange = _Exchange(stream)
        failure: QueueError | None = ConnectionLost(f"{self._api.name} said nothing for {IDLE:g} s.")
        try:
            with exchange.patience:
                async with trio.open_nursery() as nursery:
                    # Ollama may refuse before it has the whole body, and reads no more of it then.
                    nursery.start_soon(exchange.send, request, body)
                    try:
                        await exchange.receive(begin, write)
                        failure = None
                    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
                        failure = ConnectionLost(f"{self._api.name} broke off its answer: {error}")
                    nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)
        if failure is not None:
            raise failure

    async def _open(self, url: httpx.URL) -> trio.abc.Stream:
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                return await self._connect(url)
        except (OSError, UnicodeError, trio.BrokenResourceError, trio.TooSlowError) as error:
            raise UpstreamUnreachable(
                f"{self._api.name} cannot be reached at {self._api.url}. Start it, or correct OLLAMA_URL."
            ) from error


class _Exchange:
    """One request on a connection of its own. ``patience`` ends it once neither side has said a word for long."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.patience = trio.CancelScope(deadline=trio.current_time() + IDLE)
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def send(self, request: h11.Request, body: AsyncIterator[bytes]) -> None:
        """The request, its body as it comes. What is said against it is in the answer."""
        try:
            await self._send(request)
            async for data in body:
                await self._send(h11.Data(data=data))
            await self._send(h11.EndOfMessage())
        except trio.BrokenResourceError:
            pass

    async def receive(
        self, begin: Callable[[int, str], Awaitable[None]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """The answer, handed on as it comes."""
        while True:
            event = self._http.next_event()
            match event:
                case h11.Response():
                    types = [value for name, value in event.headers if name == b"content-type"]
                    await begin(event.status_code, types[0].decode("latin-1") if types else "application/json")
                case h11.Data():
                    await write(bytes(event.data))
                case h11.EndOfMessage():
                    return
                case h11.NEED_DATA:
                    self._http.receive_data(bytes(await self._stream.receive_some(RECEIVE_SIZE)))
                    self._heard()

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)
            self._heard()

    def _heard(self) -> None:
        self.patience.deadline = trio.current_time() + IDLE
