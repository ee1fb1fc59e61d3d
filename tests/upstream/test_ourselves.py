"""Whether an address is one of ours: told without sending anything."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

from llm_queue.upstream.ourselves import LOOK_UP, is_ourselves

LOOPBACK = [("127.0.0.1", 11500), ("::1", 11500), ("127.0.0.1", 11434), ("::1", 11434)]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11500",
        "http://localhost:11434",
        "http://[::1]:11434/base",
        "http://[::ffff:127.0.0.1]:11500",
        "https://127.0.0.1:11500",
    ],
)
async def test_each_of_our_addresses_and_names_is_ours(url: str) -> None:
    assert await is_ourselves(url, LOOPBACK)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:11435", "http://127.0.0.2:11500", "http://localhost", "http://192.0.2.1:11500"]
)
async def test_other_ports_and_other_addresses_are_not(url: str) -> None:
    assert not await is_ourselves(url, LOOPBACK)


async def test_a_default_port_counts() -> None:
    assert await is_ourselves("http://127.0.0.1", [("127.0.0.1", 80)])
    assert await is_ourselves("https://127.0.0.1", [("127.0.0.1", 443)])


async def test_who_listens_everywhere_is_reached_by_every_address_of_this_machine() -> None:
    assert await is_ourselves("http://127.0.0.1:1", [("0.0.0.0", 1)])
    assert not await is_ourselves("http://192.0.2.1:1", [("0.0.0.0", 1)])
    assert not await is_ourselves("http://127.0.0.1:1", [("::", 1)])


async def test_a_name_that_leads_to_several_addresses_is_ours_if_one_of_them_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def look_up(host: str, port: int, **_: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        assert host == "llm.lan"
        return [(0, 0, 0, "", ("192.0.2.1", port)), (0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)
    assert await is_ourselves("http://llm.lan:11500", LOOPBACK)


async def test_a_name_that_is_not_known_or_not_in_time_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def unknown(*_: Any, **__: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(-2, "Name or service not known")

    async def slow(*_: Any, **__: Any) -> list[Any]:
        await trio.sleep(10 * LOOK_UP)
        raise AssertionError

    for look_up in (unknown, slow):
        monkeypatch.setattr(trio.socket, "getaddrinfo", look_up)
        assert not await is_ourselves("http://llm.lan:11500", LOOPBACK)
    assert trio.current_time() == pytest.approx(LOOK_UP)


async def test_without_a_common_port_no_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio.socket, "getaddrinfo")
    assert not await is_ourselves("http://llm.lan:1", LOOPBACK)
