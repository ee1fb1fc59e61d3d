"""What systemd is told: by a real datagram socket, and by the clock of the test."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from llm_queue.exits import Exit
from llm_queue.serve import serve
from llm_queue.settings import Settings
from llm_queue.systemd import STOP_RESERVE, Systemd
from llm_queue.testing import Hang, ScriptedUpstream
from tests.harness import line

if not hasattr(socket, "AF_UNIX"):
    pytest.skip("there is no systemd without Unix sockets", allow_module_level=True)

WATCHED = {"WATCHDOG_USEC": "20000000"}
"""systemd wants a sign of life every 20 s."""


class Ear:
    """systemd's end."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(address)

    def heard(self) -> list[dict[str, str]]:
        """What was said since the last time."""
        said: list[dict[str, str]] = []
        while True:
            try:
                lines = self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return said
            said.append(dict(line.split("=", 1) for line in lines))


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "notify"))
    with closing(ear.socket):
        yield ear


@pytest.fixture
def environ(tmp_path: Path, ear: Ear) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **WATCHED}


BEAT = {"WATCHDOG": "1"}


def test_it_is_told_that_we_serve_and_that_we_stop(environ: dict[str, str], ear: Ear) -> None:
    systemd = Systemd(environ)
    systemd.ready(["http://127.0.0.1:11500", "http://[::1]:11500"])
    assert ear.heard() == [{"READY": "1", "STATUS": "listening on http://127.0.0.1:11500 and http://[::1]:11500"}]
    systemd.stopping(30.0, 2)
    extended = str((30 + STOP_RESERVE) * 1_000_000)
    assert ear.heard() == [{"STOPPING": "1", "EXTEND_TIMEOUT_USEC": extended, "STATUS": "stopping: 2 jobs left"}]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_a_socket_in_the_abstract_namespace_is_no_file(tmp_path: Path) -> None:
    name = f"llm-queue-test-{os.getpid()}"
    ear = Ear(b"\0" + name.encode())
    with closing(ear.socket):
        Systemd({"NOTIFY_SOCKET": "@" + name}).ready(["somewhere"])
        assert [said["READY"] for said in ear.heard()] == ["1"]


@pytest.mark.parametrize("named", ["", "relative", "vsock:2:9999"])
def test_without_a_socket_of_a_kind_that_we_know_nothing_is_said(named: str) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": named, **WATCHED})
    systemd.ready(["somewhere"])
    assert systemd.beat_every is None


def test_a_socket_where_nobody_is_is_said_once_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    systemd.ready(["somewhere"])
    systemd.stopping(1.0, 0)
    assert capsys.readouterr().out.count("systemd cannot be told how this service is") == 1


def test_a_sign_of_life_waits_for_nothing(environ: dict[str, str], ear: Ear) -> None:
    systemd = Systemd(environ)
    for _ in range(5000):  # more than any buffer has
        systemd._beat()
    assert BEAT in ear.heard()
    systemd._beat()
    assert ear.heard() == [BEAT]


@pytest.mark.parametrize(
    ("watched", "every"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "7"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "8"}, None),  # another process of ours is the one
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({}, None),
    ],
)
def test_signs_of_life_are_due_at_half_the_time(
    watched: dict[str, str], every: float | None, tmp_path: Path, ear: Ear
) -> None:
    assert Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), **watched}, pid=7).beat_every == every


async def test_the_line_gives_signs_of_life_while_it_is_idle_and_while_a_job_hangs(
    environ: dict[str, str], ear: Ear, autojump_clock: trio.testing.MockClock
) -> None:
    async with line(ScriptedUpstream(default=Hang()), attempt_timeout=86400) as it, trio.open_nursery() as nursery:
        nursery.start_soon(Systemd(environ).give_signs, it.dispatcher.beat)
        await trio.sleep(35)
        assert ear.heard() == [BEAT] * 4  # at 0, 10, 20 and 30 s
        ticket = it.submit()
        await trio.sleep(30)
        assert ear.heard() == [BEAT] * 3
        ticket.close()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_a_line_that_is_stuck_gives_none(
    environ: dict[str, str], ear: Ear, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with line() as it, trio.open_nursery() as nursery:
        nursery.start_soon(Systemd(environ).give_signs, it.dispatcher.beat)
        await trio.sleep(15)
        assert ear.heard() == [BEAT] * 2

        async def stuck(*_: Any) -> None:
            await trio.sleep(1000)

        with monkeypatch.context() as patch:
            patch.setattr(it.dispatcher, "_perform", stuck)
            await trio.sleep(20)  # the beat that makes it take a step is the last
            assert ear.heard() == [BEAT]
            await trio.sleep(960)
            assert ear.heard() == []
        nursery.cancel_scope.cancel()


async def test_signs_of_life_go_on_while_the_line_drains(
    environ: dict[str, str], ear: Ear, autojump_clock: trio.testing.MockClock
) -> None:
    async with line(ScriptedUpstream(default=Hang()), attempt_timeout=1000, drain_timeout=95) as it:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Systemd(environ).give_signs, it.dispatcher.beat)
            it.submit()
            await it.dispatcher.drain()
            nursery.cancel_scope.cancel()
        assert ear.heard().count(BEAT) == 10  # at 0 s, 10 s and so on


@pytest.fixture
def signals() -> tuple[Callable[[int], None], trio.MemoryReceiveChannel[int]]:
    send, receive = trio.open_memory_channel[int](5)
    return send.send_nowait, receive


async def test_the_service_says_when_it_serves_and_when_it_stops(
    environ: dict[str, str],
    ear: Ear,
    signals: tuple[Callable[[int], None], trio.MemoryReceiveChannel[int]],
) -> None:
    send, receive = signals
    exits: list[Exit] = []

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        settings = Settings(host="127.0.0.1", port=(0,), model="scripted", drain_timeout=7.0)
        serving = partial(serve, upstream=ScriptedUpstream(), environ=environ, signals=receive)
        exits.append(await serving(settings, task_status=task_status))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(run)
            await trio.testing.wait_all_tasks_blocked(0.01)
            ready, *beats = ear.heard()
            assert ready == {"READY": "1", "STATUS": f"listening on {urls[0]}"}
            assert beats == [BEAT]
            send(signal.SIGTERM)
    assert ear.heard() == [{"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "22000000", "STATUS": "stopping: 0 jobs left"}]
    assert exits == [Exit.DRAINED]
