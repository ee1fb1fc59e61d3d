"""Who is at a port: programs of this very machine, found by what the system lists."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from llm_queue.processes import connected
from llm_queue.processes.connected import HIDDEN, Neighbours, connected_to, listening_at


@pytest.fixture
def port() -> Iterator[int]:
    """One at which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_who_listens_is_found_by_address(port: int) -> None:
    found = listening_at(port)
    assert {address: one.process_id for address, one in found.items()} == {"127.0.0.1": os.getpid()}


def test_who_is_connected_is_found_and_may_be_left_out(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port))), closing(socket.create_connection(("127.0.0.1", port))):
        (found,) = connected_to("localhost", port)
        assert (found.process_id, found.sockets) == (os.getpid(), 2)
        assert connected_to("localhost", port, besides=(os.getpid(),)) == []
        assert connected_to("192.0.2.1", port) == [], "another machine"
    assert connected_to("localhost", port) == []


def test_a_name_that_leads_nowhere_has_no_neighbours() -> None:
    assert connected_to("no.such.host.invalid", 1) == []


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the system lists, in place of what it has."""
    sockets: list[Any] = []
    monkeypatch.setattr(psutil, "net_connections", lambda kind: sockets)
    return sockets


def one_socket(pid: int | None, far: tuple[str, int] | tuple[()], status: str = psutil.CONN_ESTABLISHED) -> Any:
    return SimpleNamespace(pid=pid, laddr=("127.0.0.1", 50000), raddr=far, status=status)


def test_only_open_connections_to_that_very_place_count(listed: list[Any]) -> None:
    listed += [
        one_socket(None, ("127.0.0.1", 11434)),
        one_socket(None, ("::ffff:127.0.0.1", 11434)),
        one_socket(None, ("127.0.0.1", 11435)),
        one_socket(None, ("192.0.2.9", 11434)),
        one_socket(None, ("127.0.0.1", 11434), psutil.CONN_TIME_WAIT),
        one_socket(None, (), psutil.CONN_LISTEN),
    ]
    (found,) = connected_to("localhost", 11434)
    assert (found.process_id, found.name, found.sockets) == (None, HIDDEN, 2)


def test_a_process_that_has_ended_meanwhile_has_no_name(listed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(process_id: int) -> psutil.Process:
        raise psutil.NoSuchProcess(process_id)

    monkeypatch.setattr(psutil, "Process", gone)
    listed.append(one_socket(7, ("127.0.0.1", 11434)))
    assert [one.name for one in connected_to("127.0.0.1", 11434)] == [HIDDEN]


def test_where_the_system_tells_of_one_process_at_a_time_each_is_asked(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kind: str) -> list[Any]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    monkeypatch.setattr(psutil, "pids", lambda: [1 << 22, os.getpid()])
    assert [one.process_id for one in listening_at(port).values()] == [os.getpid()]


async def test_neighbours_are_named_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connected_to(host: str, port: int, besides: tuple[int, ...]) -> list[connected.Program]:
        asked.append((host, port))
        assert besides == (os.getpid(),)
        return [connected.Program(1, "a"), connected.Program(2, "b"), connected.Program(3, "a")]

    monkeypatch.setattr(connected, "connected_to", connected_to)
    assert await Neighbours("http://localhost:11434").name() == "a and b"
    assert await Neighbours("https://ollama.example").name() == "a and b"
    assert await Neighbours("llama.cpp in a process of its own").name() is None
    assert asked == [("localhost", 11434), ("ollama.example", 443)]
