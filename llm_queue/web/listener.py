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
from collections.abc import Sequence
from typing import Final

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from llm_queue.web.backlog import STALL, Backlog
from llm_queue.web.door import Door
from llm_queue.web.facts import ConnectionFacts, keep_facts
from llm_queue.web.http1 import MAX_HEADER, Http1
from llm_queue.web.inbox import Handlers
from llm_queue.web.limits import TimeLimit

_log = structlog.get_logger("llm_queue.web")

BACKLOG: Final = 4096
"""Connections that may wait to be accepted. With 100, a burst of 2,000 takes 12 s; with 4,096, 0.2 s."""

KEEP_ALIVE: Final = 75.0
"""Seconds that an idle connection stays open, as nginx has it."""

HEADER_WAIT: Final = 30.0
"""Seconds from the first byte of a request to the end of its headers."""

READ_SIZE: Final = 64 * 2**10

READ_AHEAD: Final = 2**20
"""Bytes behind a request that are read before it has its answer; a client may send its next ones at once."""

FLOOD: Final = 30.0
"""Seconds that a client which has sent more than :data:`READ_AHEAD` is not read from, before its connection ends."""

LINGER: Final = 2.0
"""Seconds between two pieces of a request that is already answered. Its bytes are read and dropped, because bytes that
nobody reads turn the close into a reset, which may overtake our answer."""

LINGER_TOTAL: Final = 30.0
"""Seconds that this may go on."""

GRACE: Final = 1.0
"""Seconds that handlers get at shutdown; by then the drain has answered everybody who waited."""


class Connection:
    """One client's connection. Its cancel scope is its life: every limit is a deadline of that scope."""

    _scope: trio.CancelScope

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        socket: trio.socket.SocketType,
        stall_limit: float,
        keep_alive: TimeLimit,
    ) -> None:
        """``keep_alive`` is the limit of :data:`KEEP_ALIVE`, which all connections share."""
        self._app = app
        self._config = config
        self._context = context
        self._socket = socket
        self._backlog = Backlog(self._socket, stall_limit)
        self._keep_alive = keep_alive
        self._state = ConnectionState({**state})
        keep_facts(self._state, ConnectionFacts(self._backlog))
        self._send_lock: trio.Lock | None = None  # none before there is something to send
        self._unused = True  # nothing has come of a request that the connection is kept open for
        self.idle_since = math.inf
        self._lingers_until = math.inf

    async def run(self) -> None:
        """Serve requests until either side has had enough. Lets nothing out but a cancellation from outside."""
        try:
            peer, own = self._socket.getpeername(), self._socket.getsockname()
        except OSError:  # a reset was faster
            self._socket.close()
            return
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                self._handlers = Handlers(nursery)
                self._keep_alive.begin(self._scope)
                self._protocol = Http1(
                    self._app,
                    self._config,
                    self._context,
                    self._handlers,
                    self._state,
                    False,
                    parse_socket_addr(self._socket.family, peer),
                    parse_socket_addr(self._socket.family, own),
                    self._handle,
                )
                try:
                    await self._read()
                finally:
                    self._socket.close()  # which ends even a last message that is shielded from cancellation
        except* Exception as group:
            _log.debug("a connection ended by an error of its own", exc_info=group)
        finally:
            self._keep_alive.end(self._scope)  # nothing is left that could begin it once more
            self._socket.close()

    def retire(self) -> None:
        """Go when the request at hand is answered: now, if there is none, and none lies there unread.

        One that has just come is about to send its first, and goes when that is answered, or with the rest.
        """
        closed = self._socket.fileno() < 0
        if closed or (self.idle_since < math.inf and not self._socket.is_readable()):
            self._scope.cancel()

    async def _read(self) -> None:
        """Read on while a request is served, so that the end of the stream is seen whatever lies in front of it.

        Only a body that its handler takes slowly is left unread for as long as that takes: an upload to Ollama.
        """
        while data := await self._receive():
            if self._lingers_until < math.inf:
                self._scope.deadline = min(self._lingers_until, trio.current_time() + LINGER)
                continue
            if self._unused:
                self._unused, self.idle_since = False, math.inf
                self._end_after(HEADER_WAIT)
            await self._protocol.handle(RawData(data=data))
            await self._handlers.wait_for_room()
            if not await self._caught_up():
                break
        self._scope.cancel()

    def _end_after(self, seconds: float) -> None:
        """Set another limit than :data:`KEEP_ALIVE` for what comes now."""
        self._keep_alive.end(self._scope)
        self._scope.deadline = trio.current_time() + seconds

    async def _caught_up(self) -> bool:
        """Wait while too much has come behind the request at hand. False if it is not answered within the limit."""
        while self._protocol.ahead > READ_AHEAD and self._lingers_until == math.inf:
            with trio.move_on_after(FLOOD) as patience:
                await self._protocol.answered()
            if patience.cancelled_caught:
                return False
        return True

    async def _receive(self) -> bytes:
        try:
            return await self._socket.recv(READ_SIZE)
        except (OSError, trio.ClosedResourceError):
            return b""

    async def _handle(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            if self._send_lock is None:
                self._send_lock = trio.Lock()
            async with self._send_lock:
                await self._write(event.data)
        elif isinstance(event, Updated):
            self._unused = event.idle
            self.idle_since = trio.current_time() if event.idle else math.inf
            if event.idle:
                self._keep_alive.begin(self._scope)
            else:
                self._end_after(math.inf)
        elif isinstance(event, Closed):
            self._lingers_until = trio.current_time() + LINGER_TOTAL
            self._end_after(LINGER)
            try:
                self._socket.shutdown(trio.socket.SHUT_WR)
            except OSError:
                self._scope.cancel()
            await self._protocol.handle(Closed())

    async def _write(self, data: bytes) -> None:
        """Send all of it, or end the connection: half a message is worth nothing to anybody."""
        rest = memoryview(data)
        blocked = False
        try:
            while rest:
                if self._backlog.stalled(blocked=blocked):
                    self._backlog.given_up = True
                    break
                with trio.move_on_after(self._backlog.limit) as patience:
                    size = await self._socket.send(rest)
                    self._backlog.sent(size)
                    rest = rest[size:]
                blocked = patience.cancelled_caught
        except (OSError, trio.ClosedResourceError):
            pass
        finally:
            if rest:
                self._scope.cancel()


async def serve_http(
    app: ASGIFramework,
    listeners: list[trio.SocketListener],
    *,
    shutdown: trio.Event,
    stall_limit: float = STALL,
    most: int | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on ``listeners`` until ``shutdown`` is set; then no new connections, :data:`GRACE`, and an end.

    ``stall_limit`` is the number of seconds in which a client must take at least one byte while some wait for it;
    ``most`` connections are open at once, and whoever comes then waits (None: what the system allows).
    Reports to ``task_status`` when it accepts. Cancelling it closes everything at once. Raises what the application's
    start raises, and never what a connection does.
    """
    config = _config()
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)
    door, keep_alive = Door(most), TimeLimit(KEEP_ALIVE)

    async def serve_one(socket: trio.socket.SocketType) -> None:
        connection = Connection(wrapped, config, context, state, socket, stall_limit, keep_alive)
        door.guests.add(connection)
        try:
            await connection.run()
        finally:
            door.guests.discard(connection)
            door.left()

    async with trio.open_nursery() as around:
        await around.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as serving:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(door.let_in, listener, lambda socket: serving.start_soon(serve_one, socket))
                task_status.started()
                await shutdown.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            for connection in list(door.guests):
                connection.retire()
            serving.cancel_scope.deadline = trio.current_time() + GRACE
        await lifespan.wait_for_shutdown()
        around.cancel_scope.cancel()


async def open_all(host: str | None, ports: Sequence[int]) -> tuple[list[trio.SocketListener], list[str]]:
    """Listen on each of ``ports`` as :func:`open_listeners` does: on all, or on none of them."""
    opened: list[trio.SocketListener] = []
    warnings: list[str] = []
    try:
        for port in ports:
            listeners, warning = await open_listeners(host, port)
            opened += listeners
            warnings += [warning] if warning else []
    except BaseException:
        for listener in opened:
            await trio.aclose_forcefully(listener)
        raise
    return opened, list(dict.fromkeys(warnings))


async def open_listeners(host: str | None, port: int) -> tuple[list[trio.SocketListener], str | None]:
    """Listen on ``host``; or, if that is None or ``localhost``, on 127.0.0.1 and [::1] with one port for both.

    Port 0 takes one that is free. The second value is a warning for the user when [::1] could not be had. Raises
    ``OSError``, with ``EADDRINUSE`` when the port is taken; its ``strerror`` says which address could not be had.
    """
    if host not in (None, "localhost"):
        return await _listen(host.strip("[]"), port), None
    while True:
        [first] = await _listen("127.0.0.1", port)
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


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error


def _config() -> Config:
    config = Config()
    config.include_server_header = False
    config.h11_max_incomplete_size = MAX_HEADER
    config.keep_alive_max_requests = 2**63
    config.errorlog = logging.getLogger("llm_queue.web")  # hypercorn's own words
    return config
