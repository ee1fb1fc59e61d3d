"""Sockets, and HTTP/1.1 on them: hypercorn's protocol code under an accept loop of our own.

hypercorn's own server is not used, because there one connection can end the process, a client that stops reading holds
its handler for ever, and a hang-up goes unseen while unread bytes lie in front of it. House rules here: whatever goes
wrong in a connection ends that connection and nothing else; every wait on a client has a limit; the end of a client's
stream means that the client is gone, so that its handler is cancelled. HTTP/1.1 (and 1.0) only: an upgrade is ignored.
"""

from __future__ import annotations

import errno
import logging
import math
from functools import partial
from typing import Any, Final

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework, ConnectionState, H11SendableEvent, LifespanState
from hypercorn.utils import parse_socket_addr

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.openai import error_body

logger = logging.getLogger(__name__)

BACKLOG: Final = 4096
"""Connections that may wait to be accepted. With 100, a burst of 2,000 takes 12 s; with 4,096, 0.2 s."""

MAX_HEADER: Final = 64 * 2**10
"""Bytes of request line and headers: enough for any cookie jar, too little to fill memory with."""

KEEP_ALIVE: Final = 75.0
"""Seconds that an idle connection stays open, as nginx has it."""

HEADER_WAIT: Final = 30.0
"""Seconds from the first byte of a request to the end of its headers."""

STALL: Final = 30.0
"""Seconds in which a client must take, or have taken from it, at least one byte."""

LINGER: Final = 2.0
"""Seconds in which a client may read our last bytes before its own unread ones turn the close into a reset."""

GRACE: Final = 1.0
"""Seconds that handlers get at shutdown; by then the drain has answered everybody who waited."""

READ_SIZE: Final = 64 * 2**10
READ_AHEAD: Final = 16
"""Reads that may wait for the protocol: 1 MiB of body, or of what a client sends before it has its answer."""


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else. A response's headers leave together with the first piece of its body."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._head = b""

    async def _check_protocol(self, event: h11.Request) -> None:
        """No h2c: an ``Upgrade`` that is not taken up leaves a plain request."""

    async def _create_stream(self, request: h11.Request) -> None:
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
        body = error_body(BadRequest(text))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
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


class Connection:
    """One client's connection. Its cancel scope is its life: every limit is a deadline of that scope."""

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, state: LifespanState, stream: trio.SocketStream
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._state = state
        self._socket = stream.socket
        self._scope = trio.CancelScope(deadline=trio.current_time() + KEEP_ALIVE)
        self._inbox_in, self._inbox = trio.open_memory_channel[bytes](READ_AHEAD)
        self._send_lock = trio.Lock()
        self._idle = True

    async def run(self) -> None:
        """Serve requests until either side has had enough. Lets nothing out but a cancellation from outside."""
        try:
            with self._scope:
                async with TaskGroup() as tasks:
                    self._protocol = Http1(
                        self._app,
                        self._config,
                        self._context,
                        tasks,
                        ConnectionState({**self._state, "llm_queue.connection": {}}),  # see web/visit.py
                        False,
                        parse_socket_addr(self._socket.family, self._socket.getpeername()),
                        parse_socket_addr(self._socket.family, self._socket.getsockname()),
                        self._handle,
                    )
                    tasks.spawn(self._read)
                    try:
                        await self._feed()
                    except BaseException:
                        self._socket.close()  # which ends even a last message that is shielded from cancellation
                        raise
        except* Exception as group:
            logger.debug("a connection ended by an error of its own", exc_info=group)
        finally:
            self._socket.close()

    def retire(self) -> None:
        """Go when the request at hand is answered: now, if there is none."""
        if self._idle:
            self._scope.cancel()

    async def _read(self) -> None:
        """Read ahead, so that the end of the stream is seen whatever lies in front of it."""
        while data := await self._receive():
            if self._idle:
                self._scope.deadline = min(self._scope.deadline, trio.current_time() + HEADER_WAIT)
            with trio.move_on_after(STALL) as patience:
                try:
                    await self._inbox_in.send(data)
                except trio.BrokenResourceError:
                    continue  # all is said: what still comes is read, lest the close become a reset, and dropped
            if patience.cancelled_caught:
                break
        self._scope.cancel()

    async def _receive(self) -> bytes:
        try:
            return await self._socket.recv(READ_SIZE)
        except (OSError, trio.ClosedResourceError):
            return b""

    async def _feed(self) -> None:
        while True:
            try:
                data = await self._inbox.receive()
            except trio.ClosedResourceError:
                return
            await self._protocol.handle(RawData(data=data))

    async def _handle(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            async with self._send_lock:
                await self._write(event.data)
        elif isinstance(event, Updated):
            self._idle = event.idle
            self._scope.deadline = trio.current_time() + KEEP_ALIVE if event.idle else math.inf
        elif isinstance(event, Closed):
            self._inbox.close()
            self._scope.deadline = trio.current_time() + LINGER
            try:
                self._socket.shutdown(trio.socket.SHUT_WR)
            except OSError:
                self._scope.cancel()
            await self._protocol.handle(Closed())

    async def _write(self, data: bytes) -> None:
        """Send all of it, or end the connection: half a message is worth nothing to anybody."""
        rest = memoryview(data)
        try:
            while rest:
                with trio.fail_after(STALL):
                    rest = rest[await self._socket.send(rest) :]
        except (OSError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        finally:
            if rest:
                self._scope.cancel()


async def serve_http(
    app: ASGIFramework,
    listeners: list[trio.SocketListener],
    *,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on ``listeners`` until ``shutdown`` is set; then no new connections, :data:`GRACE`, and an end.

    Reports to ``task_status`` when it accepts. Cancelling it closes everything at once. Raises what the application's
    start raises, and never what a connection does.
    """
    config = _config()
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)
    connections: set[Connection] = set()

    async def serve_one(stream: trio.SocketStream) -> None:
        connection = Connection(wrapped, config, context, state, stream)
        connections.add(connection)
        try:
            await connection.run()
        finally:
            connections.discard(connection)

    async with trio.open_nursery() as around:
        await around.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as serving:
            async with trio.open_nursery() as accepting:
                serve = partial(trio.serve_listeners, serve_one, listeners, handler_nursery=serving)
                await accepting.start(serve)
                task_status.started()
                await shutdown.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            for connection in list(connections):
                connection.retire()
            serving.cancel_scope.deadline = trio.current_time() + GRACE
        await lifespan.wait_for_shutdown()
        around.cancel_scope.cancel()


async def open_listeners(host: str | None, port: int) -> tuple[list[trio.SocketListener], str | None]:
    """Listen on ``host``; or, if that is None or ``localhost``, on 127.0.0.1 and [::1] with one port for both.

    Port 0 takes one that is free. The second value is a warning for the user when [::1] could not be had. Raises
    ``OSError``, with ``EADDRINUSE`` when the port is taken.
    """
    if host not in (None, "localhost"):
        return await trio.open_tcp_listeners(port, host=host.strip("[]"), backlog=BACKLOG), None
    while True:
        [first] = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=BACKLOG)
        number = first.socket.getsockname()[1]
        try:
            return [first, *await trio.open_tcp_listeners(number, host="::1", backlog=BACKLOG)], None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [first], f"[::1] is not there ({error.strerror or error}): listening on 127.0.0.1 only"
            if port:
                return [first], (
                    f"[::1]:{port} is taken by another program, which is who callers of http://localhost:{port} may "
                    "reach: stop it, or let them call http://127.0.0.1"
                )
            await first.aclose()  # a port that is free on both is wanted, so take another


def _config() -> Config:
    config = Config()
    config.include_server_header = False
    config.h11_max_incomplete_size = MAX_HEADER
    config.keep_alive_max_requests = 2**63
    config.errorlog = logger
    # On a full queue, an application that answers before it has read all would wait for itself. Quart's has no bound.
    config.max_app_queue_size = 2**31
    return config
