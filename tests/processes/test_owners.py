"""Which program is at the other end of a connection within this machine; on real sockets."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing

from llm_queue.processes import owners
from llm_queue.processes.owners import Address, Owners, listed_owner, socket_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers for one connection")

CALLER = """
import socket, sys
for line in sys.stdin:
    connections = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(line))]
    print(*[connection.getsockname()[1] for connection in connections], flush=True)
"""


class Connected:
    """One connection within this process."""

    def __init__(self, family: socket.AddressFamily, listen: str, connect: str) -> None:
        self.server = socket.socket(family)
        if family is socket.AF_INET6:
            self.server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.server.bind((listen, 0))
        self.server.listen()
        self.caller = socket.create_connection((connect, self.server.getsockname()[1]))
        self.accepted, _ = self.server.accept()
        self.near: Address = self.accepted.getpeername()[:2]
        self.far: Address = self.accepted.getsockname()[:2]

    def close(self) -> None:
        for each in (self.caller, self.accepted, self.server):
            each.close()


@contextmanager
def connected(
    family: socket.AddressFamily = socket.AF_INET, listen: str = "127.0.0.1", connect: str = "127.0.0.1"
) -> Iterator[Connected]:
    try:
        one = Connected(family, listen, connect)
    except OSError as error:
        pytest.skip(f"no such address here: {error}")
    try:
        yield one
    finally:
        one.close()


class Caller:
    """A script that runs by itself, and connects when it is told to."""

    def __init__(self, script: Path, server: socket.socket) -> None:
        script.write_text(CALLER)
        host, port = server.getsockname()
        self._server = server
        self._process = subprocess.Popen(
            [sys.executable, script, host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def connect(self, number: int = 1) -> list[socket.socket]:
        """Our ends of ``number`` new connections of the script, which closes its ends of the last ones."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        accepted = [self._server.accept()[0] for _ in range(number)]
        self._process.stdout.readline()
        return accepted

    def end(self) -> None:
        self._process.communicate()


@contextmanager
def calling(*scripts: Path) -> Iterator[list[Caller]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        callers = [Caller(script, server) for script in scripts]
        try:
            yield callers
        finally:
            for caller in callers:
                caller.end()


async def program_of(known: Owners, accepted: socket.socket) -> str | None:
    return await known.program(accepted.getpeername(), accepted.getsockname())


each_family = pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
        (socket.AF_INET6, "::", "::1"),
    ],
    ids=["IPv4", "IPv6", "IPv4 within IPv6", "IPv6 at all addresses"],
)


@linux
@each_family
def test_the_kernel_knows_the_socket_at_the_other_end(family: socket.AddressFamily, listen: str, connect: str) -> None:
    with connected(family, listen, connect) as one:
        assert socket_of(one.near, one.far) == (os.fstat(one.caller.fileno()).st_ino, os.getuid())
        assert socket_of(one.far, one.near) == (os.fstat(one.accepted.fileno()).st_ino, os.getuid())


@linux
def test_a_caller_that_is_gone_has_no_socket() -> None:
    with connected() as one:
        one.caller.close()
        assert socket_of(one.near, one.far) is None


@linux
def test_a_connection_that_the_kernel_has_never_heard_of_is_an_error() -> None:
    with connected() as one, pytest.raises(OSError, match="cannot be asked"):
        socket_of((one.near[0], 1), (one.far[0], 2))


@linux
def test_a_listener_is_not_taken_for_a_connection_that_is_gone() -> None:
    with connected() as one:
        assert socket_of(one.far, (one.near[0], 1)) is None
        assert socket_of((one.near[0], 1), one.far) is None


@linux
def test_asking_leaves_no_descriptor_open() -> None:
    with connected() as one:
        before = os.listdir("/proc/self/fd")
        for _ in range(100):
            socket_of(one.near, one.far)
        assert len(os.listdir("/proc/self/fd")) == len(before)


@each_family
def test_a_listing_has_the_owner_too(family: socket.AddressFamily, listen: str, connect: str) -> None:
    with connected(family, listen, connect) as one:
        assert listed_owner(one.near, one.far, ()) == os.getpid()
        assert listed_owner((one.near[0], 1), one.far, ()) is None


def test_where_all_connections_may_not_be_listed_those_of_each_process_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    pauses: list[None] = []
    with connected() as one:
        assert listed_owner(one.near, one.far, (), lambda: pauses.append(None)) == os.getpid()
        assert pauses
        pauses.clear()
        assert listed_owner(one.near, one.far, (os.getpid(),), lambda: pauses.append(None)) == os.getpid()
        assert len(pauses) == 1


async def test_two_scripts_are_two_programs_and_each_is_one(tmp_path: Path) -> None:
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    known = Owners()
    with calling(*paths) as callers:
        for _ in range(2):
            for path, caller in zip(paths, callers, strict=True):
                for accepted in caller.connect(3):
                    with accepted:
                        assert await program_of(known, accepted) == str(path)


@linux
async def test_a_process_keeps_its_name_for_a_second(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    asked: list[int] = []

    def name(process: psutil.Process) -> str:
        asked.append(process.pid)
        return f"name {len(asked)}"

    monkeypatch.setattr(owners, "program_name", name)
    known = Owners()
    with connected() as one, connected() as other:
        assert await known.program(one.near, one.far) == "name 1"
        await trio.sleep(owners.NAMED / 2)
        assert await known.program(other.near, other.far) == "name 1"
        await trio.sleep(owners.NAMED / 2)
        assert await known.program(other.near, other.far) == "name 2"


@linux
async def test_many_connections_of_one_program_take_one_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    target = owners._target

    def count(process_id: int, descriptor: int) -> int | None:
        looked_at.append(descriptor)
        return target(process_id, descriptor)

    known = Owners()
    with calling(tmp_path / "many.py") as [caller]:
        for accepted in caller.connect():
            with accepted:
                await program_of(known, accepted)
        accepted_all = caller.connect(200)
        monkeypatch.setattr(owners, "_target", count)
        for accepted in accepted_all:
            with accepted:
                assert await program_of(known, accepted) == str(tmp_path / "many.py")
    assert len(looked_at) < 200 * 10


@linux
async def test_a_long_search_lets_other_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "SLICE", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with connected() as one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            found = await Owners().program(one.near, one.far)
            nursery.cancel_scope.cancel()
    assert found is not None
    assert turns > 10


@linux
async def test_another_users_processes_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1000)
    monkeypatch.setattr(os, "scandir", None)
    with connected() as one:
        assert await Owners().program(one.near, one.far) is None


@linux
async def test_a_search_that_one_slice_is_enough_for_is_no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "SLICE", 60.0)
    with connected() as one, trio.testing.assert_no_checkpoints():
        assert await Owners().program(one.near, one.far) is not None


@linux
@pytest.mark.parametrize("passes", [0, 1, 2, 5])
async def test_a_search_that_is_cancelled_is_taken_up_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    monkeypatch.setattr(owners, "SLICE", 0.0)
    known = Owners()
    with connected() as one, connected() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(known.program, one.near, one.far)
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        found = []

        async def find(connection: Connected) -> None:
            found.append(await known.program(connection.near, connection.far))

        async with trio.open_nursery() as nursery:
            for connection in (other, one, other):
                nursery.start_soon(find, connection)
        assert len(found) == 3
        assert None not in found


@linux
async def test_without_a_descriptor_for_the_list_of_processes_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.listdir

    def full(path: str = ".") -> list[str]:
        if path == "/proc":
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    known = Owners()
    with connected() as one:
        monkeypatch.setattr(os, "listdir", full)
        assert await known.program(one.near, one.far) is not None  # our own process is searched in the end
        monkeypatch.setattr(os, "getpid", lambda: 2**22)
        assert await Owners().program(one.near, one.far) is None


@pytest.mark.parametrize("error", [PermissionError(), AttributeError("AF_NETLINK")])
async def test_where_the_kernel_may_not_be_asked_connections_are_listed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(near: Address, far: Address) -> None:
        raise error

    monkeypatch.setattr(owners, "socket_of", refuse)
    known = Owners()
    with connected() as one:
        assert await known.program(one.near, one.far) is not None
        assert await known.program((one.near[0], 1), one.far) is None
