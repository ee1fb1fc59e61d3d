"""The program at the other end of a connection within this machine.

On Linux the kernel is asked for that one connection's socket (sock_diag, which needs no privilege), and the processes
of the socket's user are searched for it: familiar ones first, then the newest, a slice of the loop's time at a time.
Where that is not to be had, psutil lists what the system lets it see, in a thread.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import psutil
import trio

from llm_queue.processes.programs import program_name

SLICE: Final = 0.0003
"""Seconds for which a search may keep the event loop at a stretch."""

FAMILIAR: Final = 8
"""Processes that are searched before all others: a new connection is often made by one that has been here before."""

NEIGHBOURS: Final = 5
"""Descriptors that are looked at first, from the last one found on: the system hands out the lowest free number.
So a program that opens thousands of connections is not searched from its first to its last for each."""

KEPT: Final = 16_384
"""Sockets whose process is remembered from a search, so that many new connections do not need a search each."""

NAMED: Final = 1.0
"""Seconds for which a process keeps the name that it was found to have: thousands of connections may come in one."""

Address = tuple[str, int]
"""Host and port."""

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REFUSED: Final = 2  # NLMSG_ERROR
_REQUEST: Final = 1  # NLM_F_REQUEST
_LISTENING: Final = 10  # TCP_LISTEN
_ANY: Final = 0xFFFFFFFF  # any state; no cookie


class Owners:
    """Names the programs behind connections. Long searches go one at a time; the others wait for their turn."""

    def __init__(self) -> None:
        self._familiar: OrderedDict[int, int] = OrderedDict()  # a process -> its descriptor that was found last
        self._places: dict[int, tuple[int, int]] = {}  # a socket -> its process, and its descriptor there
        self._names: dict[int, tuple[float, str]] = {}  # a process -> when it was named, in seconds, and its name
        self._turn = trio.Lock()
        self._left_over: Iterator[None] | None = None
        self._thread = trio.CapacityLimiter(1)

    async def program(self, near: Address, far: Address) -> str | None:
        """The name of the program whose end of the connection is ``near``; our end is ``far``.

        None where the system does not tell: the process has ended, or belongs to another user or another machine.
        Raises ``psutil.Error`` or ``OSError`` where the system refuses even to be asked. Cancelling it ends the search;
        a thread that cannot end at once is left to itself, and until it ends there is no second one.
        """
        try:
            found = socket_of(near, far)
        except (OSError, AttributeError):  # no such thing on this system, or not in this sandbox
            return await self._listed(near, far)
        process_id = await self._holder(*found) if found else None
        return None if process_id is None else self._name(process_id)

    def _name(self, process_id: int) -> str:
        now = trio.current_time()
        named, name = self._names.get(process_id, (-math.inf, ""))
        if now - named >= NAMED:
            name = program_name(psutil.Process(process_id))
            self._names = {one: known for one, known in self._names.items() if now - known[0] < NAMED}
            self._names[process_id] = now, name
        return name

    async def _holder(self, inode: int, user: int) -> int | None:
        """The process of ``user`` that holds the socket.

        Mostly one slice of time is enough to find it, and then this is no checkpoint. A search that was cancelled is
        taken up by whoever is next: when thousands of connections come at once, each of which waits for its own search
        only so long, one search finds them all, where many begun anew would find none.
        """
        if self._known(inode) is None and os.geteuid() in (0, user):
            searched = self._begin_search(inode, user)
            if searched:
                self._search_on()
            if not self._settled(inode, searched=searched):
                async with self._turn:
                    while not self._settled(inode, searched=searched):
                        searched |= self._begin_search(inode, user)
                        while self._search_on():
                            await trio.lowlevel.checkpoint()
        holder = self._known(inode)
        if holder is not None:
            self._remember(*self._places[inode])
        return holder

    def _settled(self, inode: int, *, searched: bool) -> bool:
        """True if the holder is known, or was ``searched`` for to the end."""
        return self._known(inode) is not None or (searched and self._left_over is None)

    def _begin_search(self, inode: int, user: int) -> bool:
        """Begin a search, unless one is unfinished; true if it was begun."""
        if self._left_over is not None:
            return False
        self._left_over = self._search(inode, user)
        return True

    def _search_on(self) -> bool:
        """Let the search go on for one slice of time; false if it has ended."""
        assert self._left_over is not None
        until = time.perf_counter() + SLICE
        unfinished = any(time.perf_counter() > until for _ in self._left_over)
        if not unfinished:
            self._left_over = None
        return unfinished

    def _known(self, inode: int) -> int | None:
        place = self._places.get(inode)
        return place[0] if place is not None and _target(*place) == inode else None

    def _search(self, inode: int, user: int) -> Iterator[None]:
        """Note which process holds which socket, until ``inode`` and all of its process are among them.

        Yields after each small step. Raises nothing.
        """
        for process_id in self._candidates():
            try:
                if os.stat(f"/proc/{process_id}").st_uid != user:
                    yield
                    continue
                for descriptor in self._neighbours(process_id):
                    if self._look(process_id, descriptor) == inode:
                        return
                held = False
                for name in os.listdir(f"/proc/{process_id}/fd"):
                    held |= self._look(process_id, int(name)) == inode
                    yield
            except OSError:
                continue  # it has ended, or may not be looked at
            if held:
                return

    def _look(self, process_id: int, descriptor: int) -> int | None:
        """The number of the socket that a descriptor of the process is, noted; None if it is none."""
        target = _target(process_id, descriptor)
        if target is not None:
            if len(self._places) >= KEPT:
                self._places.clear()
            self._places[target] = process_id, descriptor
        return target

    def _candidates(self) -> Iterator[int]:
        """Familiar processes, then the newest; our own, which has many descriptors, last."""
        familiar, own = list(reversed(self._familiar)), os.getpid()
        yield from familiar
        try:
            names = os.listdir("/proc")
        except OSError:  # no descriptor is left
            names = []
        newest = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
        yield from (process_id for process_id in newest if process_id not in familiar and process_id != own)
        if own not in familiar:
            yield own

    def _neighbours(self, process_id: int) -> Iterable[int]:
        """The descriptors that a new connection of a familiar process most likely has."""
        last = self._familiar.get(process_id)
        return () if last is None else range(last, last + NEIGHBOURS)

    def _remember(self, process_id: int, descriptor: int = 0) -> None:
        self._familiar[process_id] = descriptor
        self._familiar.move_to_end(process_id)
        while len(self._familiar) > FAMILIAR:
            self._familiar.popitem(last=False)

    async def _listed(self, near: Address, far: Address) -> str | None:
        found = await trio.to_thread.run_sync(
            _list, near, far, tuple(reversed(self._familiar)), abandon_on_cancel=True, limiter=self._thread
        )
        if found is None:
            return None
        self._remember(found[0])
        return found[1]


def socket_of(near: Address, far: Address) -> tuple[int, int] | None:
    """The number of the socket at ``near`` that is connected to ``far``, and the id of its user; None if it is gone.

    Raises ``OSError`` or ``AttributeError`` where the kernel cannot be asked. The kernel answers at once.
    """
    found = _ask(near, far)
    if found is None and _ask(far, near) is None:
        raise OSError(errno.ENOENT, "the kernel does not find our own end either, so it cannot be asked")
    return found if found and found[0] else None


def _ask(near: Address, far: Address) -> tuple[int, int] | None:
    """The socket's number, which is 0 if it belongs to no process any more, and its user's id."""
    family = socket.AF_INET6 if ":" in near[0] else socket.AF_INET
    hosts = [socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0") for host, _ in (near, far)]
    # struct inet_diag_req_v2, with its struct inet_diag_sockid
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _ANY)
    body += struct.pack("!HH", near[1], far[1]) + hosts[0] + hosts[1] + struct.pack("=III", 0, _ANY, _ANY)
    header = struct.pack("=IHHII", 16 + len(body), _BY_FAMILY, _REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.sendto(header + body, (0, 0))
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)
    if struct.unpack_from("=H", answer, 4)[0] == _REFUSED:
        (number,) = struct.unpack_from("=i", answer, 16)
        if -number == errno.ENOENT:
            return None
        raise OSError(-number, os.strerror(-number))
    user, inode = struct.unpack_from("=II", answer, 16 + 64)  # the last two of struct inet_diag_msg
    return 0 if answer[16 + 1] == _LISTENING else inode, user  # a listener stands in for a connection that is gone


def _target(process_id: int, descriptor: int) -> int | None:
    """The number of the socket that a descriptor of a process is, if it is one."""
    try:
        target = os.readlink(f"/proc/{process_id}/fd/{descriptor}")
    except OSError:
        return None
    return int(target[8:-1]) if target.startswith("socket:[") else None


def _list(near: Address, far: Address, familiar: tuple[int, ...]) -> tuple[int, str] | None:
    process_id = listed_owner(near, far, familiar, trio.from_thread.check_cancelled)
    return None if process_id is None else (process_id, program_name(psutil.Process(process_id)))


def listed_owner(
    near: Address, far: Address, familiar: tuple[int, ...], pause: Callable[[], None] = lambda: None
) -> int | None:
    """The process that holds the end at ``near``, found by listing connections, which may take long.

    ``pause`` is called between processes and may raise to end the search.
    """
    try:
        return next((one.pid for one in psutil.net_connections("tcp") if _is(one, near, far)), None)
    except (psutil.Error, OSError):
        pass  # macOS tells an ordinary user of one process at a time
    for process_id in (*familiar, *sorted(psutil.pids(), reverse=True)):
        pause()
        try:
            if any(_is(one, near, far) for one in psutil.Process(process_id).net_connections("tcp")):
                return process_id
        except (psutil.Error, OSError):
            continue
    return None


def _is(connection: object, near: Address, far: Address) -> bool:
    local, remote = getattr(connection, "laddr", None), getattr(connection, "raddr", None)
    if not local or not remote:
        return False
    return (_plain(local), _plain(remote)) == (_plain(near), _plain(far))


def _plain(address: Address) -> Address:
    """Without the prefix by which IPv6 carries an IPv4 address."""
    return address[0].removeprefix("::ffff:"), address[1]
