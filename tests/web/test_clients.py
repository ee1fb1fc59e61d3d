"""Who is at the other end of a loopback connection."""

from __future__ import annotations

import math
import os
import socket
import threading

import pytest
import trio
from trio.testing import MockClock

from llm_queue.web.clients import HOLDS_FOR, Peers, find_program, program_name


class Process:
    def __init__(self, *words: str, folder: str = "/home/me") -> None:
        self._words = words
        self._folder = folder

    def cmdline(self) -> list[str]:
        return list(self._words)

    def name(self) -> str:
        return os.path.basename(self._words[0])

    def cwd(self) -> str:
        return self._folder


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/usr/bin/python3.11", "-u", "cron.py", "--all"], "/home/me/cron.py"),
        (["/usr/bin/node", "/srv/jobs.mjs"], "/srv/jobs.mjs"),
        (["/usr/bin/python3", "-m", "jobs.classify", "-v"], "jobs.classify"),
        (["/usr/bin/python3", "-c", "print(1)"], "python3 -c"),
        (["/usr/bin/python3"], "python3"),
        (["/opt/chat/chat-window", "--no-sandbox"], "chat-window"),
    ],
)
def test_a_script_is_named_rather_than_its_interpreter(words: list[str], name: str) -> None:
    assert program_name(Process(*words)) == name  # type: ignore[arg-type] # as much of a process as is asked for


def test_a_program_is_found_by_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()) as connection:
            for familiar in ((), (os.getpid(),)):
                found = find_program(connection.getsockname(), port, familiar)
                assert found is not None
                assert found[0] == os.getpid()
            assert find_program(connection.getsockname(), port + 1) is None


async def test_an_answer_is_remembered_for_the_connection() -> None:
    asked = []

    def find(peer: tuple[str, int], port: int, familiar: tuple[int, ...]) -> tuple[int, str]:
        asked.append(familiar)
        return 7, f"program {peer[1]}"

    known = Peers(find)
    for _ in range(3):
        assert await known.name(("127.0.0.1", 5000), 11500, patience=10) == "program 5000"
    assert asked == [()]
    assert await known.name(("127.0.0.1", 5001), 11500, patience=10) == "program 5001"
    assert asked == [(), (7,)]


async def test_another_machine_is_nobody_we_could_look_up() -> None:
    def find(peer: tuple[str, int], port: int, familiar: tuple[int, ...]) -> tuple[int, str]:
        raise AssertionError("asked")

    assert await Peers(find).name(("192.168.1.7", 5000), 11500, patience=10) is None
    assert await Peers(find).name(None, 11500, patience=10) is None


async def test_a_slow_system_costs_a_moment_and_is_known_the_next_time(autojump_clock: MockClock) -> None:
    answered = threading.Event()

    def find(peer: tuple[str, int], port: int, familiar: tuple[int, ...]) -> tuple[int, str]:
        answered.wait(10)
        return 7, "slow"

    known = Peers(find)
    assert await known.name(("127.0.0.1", 5000), 11500, patience=0.03) is None
    assert await known.name(("127.0.0.1", 5000), 11500, patience=0) is None
    assert trio.current_time() == pytest.approx(0.03)
    answered.set()
    autojump_clock.autojump_threshold = math.inf
    assert await known.name(("127.0.0.1", 5000), 11500, patience=10) == "slow"


async def test_a_search_that_fails_is_no_error() -> None:
    def find(peer: tuple[str, int], port: int, familiar: tuple[int, ...]) -> tuple[int, str]:
        raise RuntimeError

    assert await Peers(find).name(("127.0.0.1", 5000), 11500, patience=10) is None


async def test_an_address_belongs_to_a_program_only_for_a_while(autojump_clock: MockClock) -> None:
    asked = []

    def find(peer: tuple[str, int], port: int, familiar: tuple[int, ...]) -> tuple[int, str]:
        asked.append(peer)
        return 7, f"program {len(asked)}"

    known = Peers(find)
    autojump_clock.autojump_threshold = math.inf
    assert await known.name(("::1", 5000), 11500, patience=10) == "program 1"
    autojump_clock.jump(HOLDS_FOR + 1)
    assert await known.name(("::1", 5000), 11500, patience=10) == "program 2"
