"""One warm connection to the upstream, as an httpx transport for trio.

It carries strictly one request at a time, header and body in one send, and never lets go of a request silently: one
that ends before its answer was read to the end is *seen closed* first, so that the next request cannot overlap with
what is left of it at the upstream. (httpx's own pool closes without waiting, and loses slots when tasks that share it
are cancelled: httpcore #1093.)
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpx
import trio

from llm_queue.upstream.response import ArrivingResponse

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for name lookup, TCP and TLS together; httpx's own default for a connection."""

SEEN_CLOSED_TIMEOUT: Final = 2.0
"""Seconds to wait for the upstream's end of file. Ollama 0.33 closes within 1 ms of ours, 0.2 s while it loads."""

RECEIVE_SIZE: Final = 65536
"""Bytes asked of the socket at once."""

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

Connect = Callable[[httpx.URL], Awaitable[trio.abc.Stream]]
"""Opens a stream to a URL's origin. Raises OSError, or trio's BrokenResourceError when TLS fails."""


async def open_stream(url: httpx.URL) -> trio.abc.Stream:
    """A TCP stream to the URL's host, all its addresses tried (``localhost`` has two), in TLS for ``https``."""
    host = url.raw_host.decode("ascii")
    tcp = await trio.open_tcp_stream(host, url.port or (443 if url.scheme == "https" else 80))
    if url.scheme != "https":
        return tcp
    tls = trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=host, https_compatible=True)
    try:
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise
    return tls


class OneConnection(httpx.AsyncBaseTransport):
    """A transport that holds one connection and runs one request at a time.

    A second request before the first one's response is closed or read to its end raises RuntimeError: the caller's line
    is broken. Timeouts other than the connection's are the caller's, by trio's cancel scopes; those in a request's
    extensions are not looked at. Cancellation, in any phase, takes at most :data:`SEEN_CLOSED_TIMEOUT` seconds to come
    through. Raises httpx's exceptions only. A request is never sent twice, because nobody can know what became of it.
    """

    def __init__(self, connect: Connect = open_stream) -> None:
        self._connect = connect
        self._warm: _Connection | None = None
        self._busy = False
        self.closed_after = 0.0
        """Seconds that the upstream took to close its side of the connection, if the last request was given up before
        the end of its answer; infinity if it had not closed it after SEEN_CLOSED_TIMEOUT; else 0."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return as soon as the response's head is there; its body is read from its stream."""
        if self._busy:
            raise RuntimeError(
                "one request at a time: the response before this one is neither read to its end nor closed"
            )
        self._busy = True
        self.closed_after = 0.0
        try:
            content = await request.aread()
            connection = await self._take(request.url)
            try:
                await connection.send(request, content)
                head = await connection.receive_head()
            except BaseException:
                await self._see_closed(connection)  # noqa: ASYNC102 - shielded and bounded inside
                raise
        except BaseException:
            self._busy = False
            raise
        return httpx.Response(
            head.status,
            headers=head.headers,
            stream=_Body(connection, self._release),
            extensions={"http_version": b"HTTP/" + head.version.encode(), "reason_phrase": head.reason},
        )

    async def aclose(self) -> None:
        """Close the warm connection. A response still being read keeps its own until it is closed."""
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()

    async def _take(self, url: httpx.URL) -> _Connection:
        origin = (url.scheme, url.raw_host, url.port)
        warm, self._warm = self._warm, None
        if warm is not None:
            if warm.origin == origin and not warm.stale:
                return warm
            await warm.close()
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                return _Connection(await self._connect(url), origin)
        except trio.TooSlowError:
            raise httpx.ConnectTimeout(f"no connection within {CONNECT_TIMEOUT:g} s") from None
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(_reason(error)) from error

    async def _release(self, connection: _Connection) -> None:
        """The request on this connection has ended, one way or the other."""
        try:
            if connection.reusable:
                self._warm = connection
            elif connection.whole:
                await connection.close()
            else:
                await self._see_closed(connection)
        finally:
            self._busy = False

    async def _see_closed(self, connection: _Connection) -> None:
        try:
            await connection.see_closed()
        finally:
            self.closed_after = connection.closed_after


class _Connection:
    """A stream, and the response to the request that was sent on it last."""

    _response: ArrivingResponse

    def __init__(self, stream: trio.abc.Stream, origin: tuple[str, bytes, int | None]) -> None:
        self.origin = origin
        self.closed_after = math.inf
        self._closes = False
        self._stream = stream
        self._raw = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream

    @property
    def stale(self) -> bool:
        """True if the peer said something while nobody asked: that can only be its end of file."""
        return isinstance(self._raw, trio.SocketStream) and self._raw.socket.is_readable()

    @property
    def whole(self) -> bool:
        """True if all of the last response has arrived."""
        return self._response.whole

    @property
    def reusable(self) -> bool:
        """True if all of it has arrived, and nothing else, and neither side wants an end: then the next may be sent."""
        return self._response.whole and not self._response.last and not self._closes

    async def send(self, request: httpx.Request, content: bytes) -> None:
        self._response = ArrivingResponse(request.method)
        self._closes = request.headers.get("connection", "").lower() == "close"
        data = _head(request) + content
        with _as_httpx(httpx.WriteError):
            await self._stream.send_all(data)

    async def receive_head(self) -> ArrivingResponse:
        while not self._response.begun:
            await self._receive()
        return self._response

    async def receive_body(self) -> bytes | None:
        """All that has arrived of the body and was not returned yet, in one piece; None at the end of the answer.

        Waits for some if there is none. A model's tokens come in a chunk each: joined, they are decoded in one go.
        """
        while True:
            if body := self._response.take():
                return body
            if self._response.whole:
                return None
            await self._receive()

    async def _receive(self) -> None:
        with _as_httpx(httpx.ReadError):
            data = await self._stream.receive_some(RECEIVE_SIZE)
        if data:
            self._response.feed(data)
        else:
            self._response.end()

    async def close(self) -> None:
        """Close at once. Nothing is in flight, so there is nothing to wait for."""
        await trio.aclose_forcefully(self._stream)

    async def see_closed(self) -> None:
        """Say that we are gone, and wait until the peer is gone too: then it works for us no more.

        Not to be cancelled, but takes at most :data:`SEEN_CLOSED_TIMEOUT` seconds. ``closed_after`` says how long it
        took, and stays infinite if the peer did not close its side within that time.
        """
        started = trio.current_time()
        try:
            with trio.move_on_after(SEEN_CLOSED_TIMEOUT, shield=True) as waiting:
                # Under TLS too it is the end of file of TCP that counts: it needs no answer and no lock.
                if isinstance(self._raw, trio.abc.HalfCloseableStream):
                    await self._raw.send_eof()
                    while await self._raw.receive_some(RECEIVE_SIZE):
                        pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # a reset: it is gone
        finally:
            if not waiting.cancelled_caught:
                self.closed_after = trio.current_time() - started
            await self.close()  # noqa: ASYNC102 - forceful: it does not wait


class _Body(httpx.AsyncByteStream):
    """The rest of a response. An object and no generator: nothing is left suspended when a caller stops half-way."""

    def __init__(self, connection: _Connection, release: Callable[[_Connection], Awaitable[None]]) -> None:
        self._connection = connection
        self._release = release
        self._closed = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        try:
            data = await self._connection.receive_body()
        except BaseException:
            await self.aclose()
            raise
        if data is None:
            await self.aclose()
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Done with this response: keep the connection if it was read to its end, else see it closed."""
        if not self._closed:
            self._closed = True
            await self._release(self._connection)


def _head(request: httpx.Request) -> bytes:
    """The head of the request, as it is sent. Raises :class:`httpx.LocalProtocolError` if it would not be one head."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    for line in lines:
        if _CONTROL.search(line):
            raise httpx.LocalProtocolError("a header has a control character in it")
    return b"\r\n".join([*lines, b"", b""])


def _reason(error: BaseException) -> str:
    """What went wrong in the end: with the first of its addresses, if a name has several."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there: is it running?"
    return (isinstance(cause, OSError) and cause.strerror) or str(cause)


@contextmanager
def _as_httpx(broken: type[httpx.NetworkError]) -> Iterator[None]:
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise broken(str(error.__cause__ or error)) from error
