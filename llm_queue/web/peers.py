"""Which program is at the other end of a loopback connection.

Two scripts that use the same library look alike by their headers, and would be one client to the line. The operating
system knows better. Asking it takes milliseconds and a thread, so a request waits for the answer only as long as
nobody would notice, and the connection's next request has it anyway.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Final

import psutil
import trio

PATIENCE: Final = 0.03
"""Seconds that a request waits to learn who sends it: a third of what feels like at once."""

KEPT: Final = 4096
"""Connections whose program is remembered."""

HOLDS_FOR: Final = 30.0
"""Seconds after its last request in which an address still belongs to the same program: the system hands a port out
again much later than that, unless it runs out of them."""

FAMILIAR: Final = 8
"""Processes that are looked at before all others: who comes on a new connection has often been here before."""

INTERPRETERS: Final = (
    "python",
    "pypy",
    "node",
    "nodejs",
    "bun",
    "deno",
    "ruby",
    "perl",
    "php",
    "java",
    "sh",
    "bash",
    "uv",
)
"""Programs that say nothing of what they run; their script does."""

Address = tuple[str, int]
"""Of a peer or of ours: host and port."""


class Peers:
    """Names of programs by the address they call from."""

    def __init__(self, find: Callable[[Address, int, tuple[int, ...]], tuple[int, str] | None] | None = None) -> None:
        """``find`` stands in for the operating system: see :func:`find_program`."""
        self._find = find or find_program
        self._names: OrderedDict[Address, tuple[str | None, float]] = OrderedDict()
        self._familiar: OrderedDict[int, None] = OrderedDict()
        self._looking = trio.CapacityLimiter(1)

    async def name(self, peer: Address | None, port: int) -> str | None:
        """What runs at ``peer``, which is connected to our ``port``; None if that is not to be had in time.

        Cancelled, or out of patience, it goes on looking in its thread, and the connection's next request has the name.
        """
        if peer is None or not _is_loopback(peer[0]):
            return None
        if peer not in self._names or self._names[peer][1] + HOLDS_FOR < trio.current_time():
            look = partial(self._look, peer, port, tuple(self._familiar), trio.lowlevel.current_trio_token())
            with trio.move_on_after(PATIENCE):
                await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._looking)
                await trio.lowlevel.checkpoint()  # what the thread has found comes in between
        name, _ = self._names.pop(peer, (None, 0.0))
        if name is not None:
            self._names[peer] = name, trio.current_time()
        return name

    def _look(self, peer: Address, port: int, familiar: tuple[int, ...], token: trio.lowlevel.TrioToken) -> None:
        found = self._find(peer, port, familiar)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(self._remember, peer, found)

    def _remember(self, peer: Address, found: tuple[int, str] | None) -> None:
        self._names[peer] = (found[1] if found else None), trio.current_time()
        while len(self._names) > KEPT:
            self._names.popitem(last=False)
        if found:
            self._familiar[found[0]] = None
            self._familiar.move_to_end(found[0])
            while len(self._familiar) > FAMILIAR:
                self._familiar.popitem(last=False)


def find_program(peer: Address, port: int, familiar: tuple[int, ...] = ()) -> tuple[int, str] | None:
    """The process that holds this end of a connection to our ``port``, and its program's name. May take long.

    None where the system does not tell, as for other users' processes.
    """
    for process_id in reversed(familiar):
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(process_id)
            if any(_is(connection, peer, port) for connection in process.net_connections("tcp")):
                return process_id, program_name(process)
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.pid and _is(connection, peer, port):
                return connection.pid, program_name(psutil.Process(connection.pid))
    return None


def program_name(process: psutil.Process) -> str:
    """What a person would call it: the script rather than its interpreter, with its folder."""
    words = process.cmdline()
    name = process.name()
    if not words or not name.lower().rstrip("0123456789.").removesuffix(".exe").startswith(INTERPRETERS):
        return name
    arguments = iter(words[1:])
    for word in arguments:
        if word == "-m":
            return next(arguments, name)
        if word == "-c":
            return f"{name} -c"
        if not word.startswith("-"):
            path = PurePath(word)
            return str(path) if path.is_absolute() else str(PurePath(process.cwd()) / path)
    return name


def _is(connection: object, peer: Address, port: int) -> bool:
    local, remote = getattr(connection, "laddr", None), getattr(connection, "raddr", None)
    return bool(local and remote and local.port == peer[1] and remote.port == port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
