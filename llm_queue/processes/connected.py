"""Who is at a port of this machine: the programs that listen there, and those that are connected to it.

It is read from what the system lists, which can take a tenth of a second: nothing for the way of a request.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import trio

from llm_queue.processes.programs import program_name

HIDDEN: Final = "a program of another user"
"""What a process is called whose owner the system does not name."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program: its process (None: the system does not say), its name, and how many of its sockets count."""

    process_id: int | None
    name: str
    sockets: int = 1


def connected_to(host: str, port: int, besides: Collection[int] = ()) -> list[Program]:
    """The programs of this machine with an open connection to ``port`` of ``host``, most connections first.

    Processes ``besides`` are left out. Blocks. Raises nothing: where the system does not tell, there are none.
    """
    wanted = _addresses(host)
    ends = (
        process_id
        for process_id, one in _sockets()
        if one.status == psutil.CONN_ESTABLISHED and one.raddr and one.raddr[1] == port
        if _plain(one.raddr[0]) in wanted and process_id not in besides
    )
    return _programs(ends)


def listening_at(port: int) -> dict[str, Program]:
    """The programs that listen at ``port``, by the address at which they do. Blocks. Raises nothing."""
    found: dict[str, Program] = {}
    for process_id, one in _sockets():
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port:
            found.setdefault(one.laddr[0], Program(process_id, _name(process_id)))
    return found


class Neighbours:
    """The programs that are connected to an upstream besides this process."""

    def __init__(self, url: str) -> None:
        """``url`` is the upstream's address; one that is no URL has no neighbours."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        self._thread = trio.CapacityLimiter(1)

    async def name(self) -> str | None:
        """Their names, or None if there are none or the system does not tell. Takes a thread, which is left to itself
        on cancellation.
        """
        if not self._host or not self._port:
            return None
        found = await trio.to_thread.run_sync(
            connected_to, self._host, self._port, (os.getpid(),), abandon_on_cancel=True, limiter=self._thread
        )
        return " and ".join(dict.fromkeys(one.name for one in found)) or None


def _programs(process_ids: Iterable[int | None]) -> list[Program]:
    return [Program(one, _name(one), count) for one, count in Counter(process_ids).most_common()]


def _name(process_id: int | None) -> str:
    if process_id is None:
        return HIDDEN
    try:
        return program_name(psutil.Process(process_id))
    except (psutil.Error, OSError):
        return HIDDEN


def _sockets() -> Iterator[tuple[int | None, Any]]:
    """Every TCP socket that the system shows, and its process."""
    try:
        listed = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        yield from _sockets_of_each()  # macOS tells an ordinary user of one process at a time
        return
    for one in listed:
        yield one.pid, one


def _sockets_of_each() -> Iterator[tuple[int | None, Any]]:
    for process_id in psutil.pids():
        try:
            listed = psutil.Process(process_id).net_connections("tcp")
        except (psutil.Error, OSError):
            continue
        for one in listed:
            yield process_id, one


def _addresses(host: str) -> set[str]:
    """Every address that leads there. What listens on loopback often listens on all addresses of the machine."""
    try:
        found = {_plain(str(one[4][0])) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()
    if any(ip_address(one).is_loopback for one in found):
        own = (one.address for addresses in psutil.net_if_addrs().values() for one in addresses)
        found |= {_plain(one) for one in own if one} | {"127.0.0.1", "::1"}
    return found


def _plain(address: str) -> str:
    """Without a zone, and without the prefix by which IPv6 carries an IPv4 address."""
    return address.partition("%")[0].removeprefix("::ffff:")
