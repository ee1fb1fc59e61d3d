"""Who watches the line has the latest state, soon and seldom enough, and costs nothing when gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio

from llm_queue.errors import TooManyWatchers
from llm_queue.settings import Settings
from llm_queue.web.app import create_quart
from llm_queue.web.feed import AGAIN, APART, END, FRESH, QUIET, WATCHERS, Feed, Watcher
from tests.web.conftest import Caller, FakeLine

Serving = Callable[[], AbstractAsyncContextManager[Caller]]


@pytest.fixture
def feed(line: FakeLine) -> Feed:
    return Feed(line, first_id=100)


def parts(event: bytes) -> dict[str, str]:
    assert event.endswith(b"\n\n")
    return dict(row.split(": ", 1) for row in event.decode().strip().split("\n"))


async def test_the_first_event_is_a_snapshot_and_then_comes_each_change(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    async with Watcher(feed, line, None) as watcher:
        first = parts(await anext(watcher))
        assert (first["id"], first["event"]) == ("100", "snapshot")
        assert json.loads(first["data"])["waiting"] == {"interactive": 0, "normal": 0, "background": 0}
        line.changes.change()
        second = parts(await anext(watcher))
        assert (second["id"], second["event"]) == ("101", "change")
        assert json.loads(second["data"]) == json.loads(first["data"])


async def test_however_many_changes_there_are_no_more_than_four_snapshots_are_made_in_a_second(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    async def change() -> None:
        while True:
            line.changes.change()
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery, Watcher(feed, line, None) as watcher:
        nursery.start_soon(change)
        with trio.move_on_after(10.0):
            while True:
                await anext(watcher)
        nursery.cancel_scope.cancel()
    assert 10.0 / APART - 2 <= len(line.limits) <= 10.0 / APART + 1


async def test_all_watchers_share_one_snapshot(autojump_clock: Any, line: FakeLine, feed: Feed) -> None:
    got: list[list[bytes]] = []

    async def watch() -> None:
        async with Watcher(feed, line, None) as watcher:
            got.append([await anext(watcher), await anext(watcher)])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(watch)
        await trio.sleep(0.1)
        line.changes.change()
    assert len(line.limits) == 2
    assert all(each == got[0] for each in got)


async def test_a_slow_reader_gets_the_latest_state_and_nothing_is_kept_for_it(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    async with Watcher(feed, line, None) as slow, Watcher(feed, line, None) as quick:
        await anext(slow)
        await anext(quick)
        for _ in range(5):
            line.changes.change()
            await trio.sleep(1.0)
            latest = await anext(quick)
        assert await anext(slow) == latest
        assert parts(latest)["id"] == "105"


async def test_nothing_is_computed_while_nobody_watches_or_nothing_changes(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    line.changes.change()
    await trio.sleep(10.0)
    assert line.limits == []
    async with Watcher(feed, line, None) as watcher:
        await anext(watcher)
        for _ in range(10):
            assert await anext(watcher) == b": here\n\n"
    assert len(line.limits) == 1


async def test_a_quiet_line_sends_a_comment_every_fifteen_seconds(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    async with Watcher(feed, line, None) as watcher:
        await anext(watcher)
        began = trio.current_time()
        assert await anext(watcher) == b": here\n\n"
        assert trio.current_time() - began == QUIET


async def test_who_comes_back_with_the_latest_id_has_missed_nothing(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    async with Watcher(feed, line, None) as watcher:
        await anext(watcher)
    await trio.sleep(60.0)
    async with Watcher(feed, line, 100) as watcher:
        assert await anext(watcher) == b": here\n\n"
        line.changes.change()
        assert parts(await anext(watcher))["event"] == "change"


@pytest.mark.parametrize("seen", [99, 7, 1 << 70])
async def test_who_comes_back_with_another_id_gets_a_snapshot(
    autojump_clock: Any, line: FakeLine, feed: Feed, seen: int
) -> None:
    async with Watcher(feed, line, None) as watcher:
        await anext(watcher)
    async with Watcher(feed, line, seen) as watcher:
        assert parts(await anext(watcher))["event"] == "snapshot"


async def test_after_a_change_the_latest_id_is_not_the_latest_any_more(
    autojump_clock: Any, line: FakeLine, feed: Feed
) -> None:
    async with Watcher(feed, line, None) as watcher:
        await anext(watcher)
    line.changes.change()
    async with Watcher(feed, line, 100) as watcher:
        assert parts(await anext(watcher)) | {"data": ""} == {"id": "101", "event": "snapshot", "data": ""}


async def test_a_newcomer_gets_no_snapshot_whose_times_are_old(autojump_clock: Any, line: FakeLine, feed: Feed) -> None:
    for expected in (1, 1, 2):
        async with Watcher(feed, line, None) as watcher:
            await anext(watcher)
        assert len(line.limits) == expected
        await trio.sleep(0.6 * FRESH)


async def test_the_end_of_the_service_is_the_last_event(autojump_clock: Any, line: FakeLine, feed: Feed) -> None:
    async with Watcher(feed, line, None) as watcher:
        await anext(watcher)
        line.changes.change(end=True)
        last = await anext(watcher)
        assert last.startswith(b"id: 101\nevent: change\n")
        assert last.endswith(END)
        with pytest.raises(StopAsyncIteration):
            await anext(watcher)
    async with Watcher(feed, line, 101) as watcher:
        assert await anext(watcher) == END


def test_ids_of_a_later_process_are_larger(line: FakeLine) -> None:
    first, second = Feed(line), Feed(line)
    assert 0 < first._next_id <= second._next_id


async def test_watchers_are_bounded_and_who_is_refused_is_told_what_to_do(line: FakeLine, feed: Feed) -> None:
    feed.watchers = WATCHERS
    with pytest.raises(TooManyWatchers, match="GET /queue") as refused:
        feed.response(None)
    assert (refused.value.http_status, refused.value.retry_after) == (429, AGAIN)


@pytest.mark.parametrize("last_id", ["", "x", "-1", "\u0661", "9" * 30, "9" * 5000])
async def test_a_strange_last_event_id_is_none(line: FakeLine, feed: Feed, last_id: str) -> None:
    assert feed.response(last_id).status_code == 200


async def test_a_head_request_has_headers_and_ends(line: FakeLine) -> None:
    client = create_quart(Settings(model="small"), line).test_client()
    response = await client.head("/queue/events")
    assert (response.status_code, response.content_type) == (200, "text/event-stream")
    assert line.limits == []


async def test_a_watcher_that_goes_is_counted_no_more(clock: Any, line: FakeLine, serving: Serving) -> None:
    async with serving() as server:
        head = b"GET /queue/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(3):
            async with await server.connect(head) as stream:
                data = b""
                while b"event: snapshot" not in data:
                    data += await stream.receive_some(65536)
                assert b"text/event-stream" in data
                assert b"x-accel-buffering: no" in data.lower()
        streams = [await server.connect(head) for _ in range(WATCHERS + 1)]
        heads = [await stream.receive_some(65536) for stream in streams]
        assert sum(b"HTTP/1.1 200" in each for each in heads) == WATCHERS
        assert sum(b"HTTP/1.1 429" in each for each in heads) == 1
        for stream in streams:
            await stream.aclose()
        await trio.sleep(1.0)
        async with await server.connect(head) as stream:
            assert b"HTTP/1.1 200" in await stream.receive_some(65536)


async def test_over_http_the_stream_ends_with_the_service(clock: Any, line: FakeLine, serving: Serving) -> None:
    async with serving() as server:
        head = b"GET /queue/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        async with await server.connect(head) as stream:
            data = await stream.receive_some(65536)
            line.changes.change(end=True)
            while more := await stream.receive_some(65536):
                data += more
    assert END in data
