"""The live view: from events, by asking where there are none, and through an outage of the service."""

from __future__ import annotations

import builtins
import importlib.util
import json
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from llm_queue import running
from llm_queue.settings import Settings
from llm_queue.terminal.desk import Asked, Desk
from llm_queue.terminal.line import Line, NoAnswer
from llm_queue.terminal.paper import Paper, Row
from llm_queue.terminal.shapes import Queue
from llm_queue.terminal.top import follow, top, watch
from tests.terminal.desks import LINE, FakeService, Ran, Stream


class Stage:
    """A service in front of which a view is followed."""

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.seen: list[Queue | NoAnswer] = []

    async def follow(self, seconds: float) -> None:
        async with running.client("http://test", Settings(), self.service.transport) as http:
            desk = Desk(Line(http), Settings(), out=Stream(), err=Stream())
            with trio.move_on_after(seconds):
                await follow(desk, self.seen.append)

    @property
    def loads(self) -> list[int | str]:
        return [one.loads if isinstance(one, Queue) else "gone" for one in self.seen]


class Changes(httpx.AsyncByteStream):
    """Server-sent events with so many loads each, then the end of the connection."""

    def __init__(self, *loads: int) -> None:
        self.loads = loads

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, loads in enumerate(self.loads):
            event = "change" if number else "snapshot"
            yield f": alive\n\nid: {number}\nevent: {event}\ndata: {json.dumps({'loads': loads})}\n\n".encode()
            await trio.sleep(0.25)


async def test_each_change_is_shown_as_it_is_told(autojump_clock: trio.testing.MockClock) -> None:
    stage = Stage(FakeService({"GET /queue/events": lambda request: httpx.Response(200, stream=Changes(1, 2, 3))}))
    await stage.follow(0.7)
    assert stage.loads == [1, 2, 3]


async def test_a_connection_that_ends_is_made_again(autojump_clock: trio.testing.MockClock) -> None:
    stage = Stage(FakeService({"GET /queue/events": lambda request: httpx.Response(200, stream=Changes(1))}))
    await stage.follow(2.0)
    assert stage.loads == [1, 1]


async def test_an_older_service_is_asked_each_second(autojump_clock: trio.testing.MockClock) -> None:
    stage = Stage(FakeService({"GET /queue": {"loads": 7}}))
    await stage.follow(2.5)
    assert stage.loads == [7, 7, 7]
    assert stage.service.asked.count("GET /queue/events") == 1


async def test_a_service_that_is_gone_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    def come_back(request: httpx.Request) -> httpx.Response:
        if trio.current_time() < 1.5:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, stream=Changes(4))

    stage = Stage(FakeService({"GET /queue/events": come_back}))
    await stage.follow(2.1)
    assert stage.loads == ["gone", "gone", 4]


async def test_the_last_screen_stays_while_the_service_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    shown: list[str] = []

    def show(rows: list[Row]) -> None:
        shown.append(Paper().lines(rows))

    service = FakeService({"GET /queue/events": refuse})
    async with running.client("http://test", Settings(), service.transport) as http:
        with trio.move_on_after(0.5):
            await watch(Desk(Line(http), Settings(), out=Stream(), err=Stream()), show, Queue(loads=31))
    first, second = shown
    assert "31 loads" in first
    assert second.startswith("No service answers at http://test.")
    assert "upstream" in first or "waiting" in second


def test_what_is_no_terminal_gets_one_screen() -> None:
    ran = Ran("top")
    assert ran.code == 0
    assert "Claude Code" in ran.out
    assert "\x1b" not in ran.out
    assert "GET /queue/events" not in ran.service.asked


def test_without_rich_a_terminal_gets_one_screen_and_is_told_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    imported = builtins.__import__

    def without_rich(name: str, *others: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return imported(name, *others)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    ran = Ran("top", terminal=True, environ={"NO_COLOR": "1"})
    assert ran.code == 0
    assert "Claude Code" in ran.out
    assert "pip install rich" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_on_a_terminal_it_is_drawn_in_place_until_ctrl_c(
    number: signal.Signals, autojump_clock: trio.testing.MockClock
) -> None:
    out = Stream(terminal=True)

    def tell(request: httpx.Request) -> httpx.Response:
        signal.raise_signal(number)
        return httpx.Response(200, json={**LINE, "loads": 12_345})

    service = FakeService({"GET /queue/events": httpx.Response(404), "GET /queue": LINE})
    async with running.client("http://test", Settings(), service.transport) as http:
        desk = Desk(Line(http), Settings(), Asked(), {"TERM": "xterm"}, out, Stream())
        async with trio.open_nursery() as nursery:

            async def press() -> None:
                await trio.sleep(1.5)
                signal.raise_signal(number)

            nursery.start_soon(press)
            assert await top(desk) == 0
    text = out.text
    assert text.startswith("\x1b[?1049h"), "the alternate screen"
    assert text.endswith("\x1b[?25h\x1b[?1049l") or re.search(r"\x1b\[\?1049l.{0,12}$", text), "and back"
    assert "Claude Code" in text
