"""A server of models that fails as it is told to, on loopback, in the process of the test.

Killed, it does to its sockets what a system does to those of a process that dies: it closes them all, at once.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from tests.faults.wires import CUT, END, TOKENS, Wire

MOMENT: Final = 0.1
"""Seconds of the mock clock in which what was sent has arrived where it goes."""

AWAY: Final = 0.5
"""Seconds from its death to its next start."""

LETS_GO: Final = 0.3
"""Seconds for which it works on when it was left. Only then it closes its side, if it is no process of ours: the engine
of ours closes at once, and has to be asked."""

SHORT_OUTAGE: Final = 5.0
FROZEN: Final = 100.0
"""Seconds: longer than an attempt may be silent, shorter than two."""

FAILED: Final = "compute error"
DISK: Final = "no space left on device"

Strike = Callable[["Exchange"], Awaitable[None]]


class Process(Protocol):
    @property
    def alive(self) -> bool:
        """False once it is dead."""

    async def kill(self) -> None:
        """Kill it, and wait until it is dead."""


class Server:
    """``strikes`` are what the next requests for work meet, in order, and ``load_strikes`` the next loads; None, and
    all after that, is answered well. ``in_flight`` counts the requests that it works on.
    """

    def __init__(self, wire: Wire, nursery: trio.Nursery) -> None:
        self.wire = wire
        self.models = ["alpha", "beta"]
        self.resident: dict[str, int] = {}
        self.strikes: deque[Strike | None] = deque()
        self.load_strikes: deque[Strike | None] = deque()
        self.in_flight = 0
        self.most_in_flight = 0
        self.port = 0
        self.hangs = False
        self.process: Process | None = None
        """The process that it stands for, if that is one of ours: it comes back when it is started again."""
        self._nursery = nursery
        self._frozen = trio.Event()
        self._frozen.set()
        self._life = trio.CancelScope()

    @property
    def working(self) -> bool:
        """True if it works on anything."""
        return self.in_flight > 0 and (self.process is None or self.process.alive)

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._frozen.set()
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        self._life = trio.CancelScope()
        self._nursery.start_soon(self._live, self._life, listeners)

    def stop(self) -> None:
        """Close all sockets, those that listen too, and forget what was loaded."""
        self._life.cancel()
        self.resident.clear()

    def stop_for(self, seconds: float) -> None:
        self.stop()
        self._nursery.start_soon(self._start_after, seconds)

    def freeze(self, seconds: float) -> None:
        """Stand still as a whole for so long: nothing is read, and nothing is closed."""
        self._frozen = trio.Event()
        self._nursery.start_soon(self._thaw_after, self._frozen, seconds)

    async def connect(self, url: Any) -> trio.abc.Stream:
        """What upstreams connect with: while it ``hangs``, that has no end."""
        if self.hangs:
            await trio.sleep_forever()
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def _live(self, life: trio.CancelScope, listeners: list[trio.SocketListener]) -> None:
        with life:
            await trio.serve_listeners(self._serve, listeners)

    async def _start_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        await self.start()

    async def _thaw_after(self, frozen: trio.Event, seconds: float) -> None:
        await trio.sleep(seconds)
        frozen.set()

    async def thawed(self) -> None:
        await self._frozen.wait()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            while (request := await self._receive(stream)) is not None:
                path, body = request
                said = self.wire.question(path, body, self)
                if said is not None:
                    await stream.send_all(said)
                else:
                    await Exchange(self, stream).serve(body)
                if not self.wire.keeps:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the caller has left

    async def _receive(self, stream: trio.SocketStream) -> tuple[str, dict[str, Any]] | None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = await stream.receive_some()
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int((head.lower() + b"\r\n").partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        while len(body) < length:
            body += await stream.receive_some()
        if not self._frozen.is_set():
            await self._frozen.wait()
            if stream.socket.is_readable():
                return None  # whoever asked has hung up meanwhile
        return head.split()[1].decode(), json.loads(body or b"{}")


class Exchange:
    """One request for work, and what it meets."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        self.server = server
        self.stream = stream
        self.wire = server.wire
        self._over = False

    async def serve(self, body: dict[str, Any]) -> None:
        server, loads = self.server, self.wire.loads(body)
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            planned = server.load_strikes if loads else server.strikes
            strike = planned.popleft() if planned else None
            if strike is not None:
                await strike(self)
                return
            if self.wire.keeps:
                server.resident = {body["model"].removesuffix(":latest"): body["options"]["num_ctx"]}
            said = self.wire.whole([] if loads else TOKENS)
            await self.last(self.wire.head + said)
        finally:
            self._end()

    async def last(self, data: bytes) -> None:
        """The end of an answer: from its last byte on, the next request may be anywhere."""
        self._end()
        await self.stream.send_all(data)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.server.in_flight -= 1

    async def silence(self) -> None:
        """Nothing more, until the caller leaves, and a moment more of work."""
        while await self.stream.receive_some():
            pass
        if self.server.process is not None:
            await self.stream.aclose()
        await trio.sleep(LETS_GO)

    async def hang_up(self) -> None:
        """The end of the connection. An engine of ours works on: what it does with its sockets says nothing of that."""
        if self.server.process is None:
            self._end()
        await self.stream.aclose()
        if self.server.process is not None:
            await trio.sleep_forever()


def strike_of(name: str, *, begun: bool) -> Strike:
    """How the fault of that name strikes a request: at once, or when a token has been sent."""

    async def strike(at: Exchange) -> None:
        head = name not in ("silence", "frozen", "reset", "killed", "others", "killed-load") or begun
        if name in _STATUSES:
            await at.last(at.wire.refusal(*_STATUSES[name]))
            return
        if head:
            await at.stream.send_all(at.wire.head + (at.wire.half if begun else b""))
            await trio.sleep(MOMENT)
        await _ENDS[name](at)

    return strike


_STATUSES: Final = {
    "404": (404, "no such thing"),
    "429": (429, "too many requests"),
    "500": (500, FAILED),
    "503": (503, "server busy"),
    "disk": (500, DISK),
}


async def _garbage(at: Exchange) -> None:
    await at.last(at.wire.garbage)


async def _error(at: Exchange) -> None:
    await at.last(at.wire.error(FAILED))


async def _short(at: Exchange) -> None:
    await at.last(END)


async def _cut(at: Exchange) -> None:
    await at.stream.send_all(CUT)
    await at.hang_up()


async def _reset(at: Exchange) -> None:
    at.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await at.hang_up()


async def _frozen(at: Exchange) -> None:
    at.server.freeze(FROZEN)
    await at.server.thawed()


async def _killed(at: Exchange) -> None:
    server = at.server
    if server.process is not None:
        await server.process.kill()
        server.stop()
    else:
        server.stop_for(AWAY)
    await trio.sleep_forever()


async def _others(at: Exchange) -> None:
    at.server.models = ["beta"]
    await _killed(at)


_ENDS: Final[dict[str, Strike]] = {
    "silence": Exchange.silence,
    "stall": Exchange.silence,
    "frozen": _frozen,
    "garbage": _garbage,
    "error": _error,
    "short": _short,
    "cut": _cut,
    "reset": _reset,
    "killed": _killed,
    "others": _others,
    "killed-load": _killed,
}
