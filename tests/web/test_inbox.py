"""What a handler is told: all of it, in order, and what becomes of a handler that fails."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from llm_queue.web.inbox import AT_A_TIME, MOST_UNREAD, Handlers, Inbox


def piece(number: int) -> Any:
    return {"type": "http.request", "body": b"%d" % number, "more_body": True}


async def test_messages_come_in_order_whether_they_are_waited_for_or_not() -> None:
    inbox, received = Inbox(), []

    async def receive() -> None:
        received.extend([await inbox.receive() for _ in range(3)])
        received.extend([await inbox.receive()])
        received.extend([await inbox.receive() for _ in range(2)])

    for number in range(3):
        await inbox.put(piece(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert received == [piece(0), piece(1), piece(2)]
        await inbox.put(piece(3))
        await trio.testing.wait_all_tasks_blocked()
        assert received[3:] == [piece(3)]
        await inbox.put(piece(4))
        await inbox.put(piece(5))
    assert received == [piece(number) for number in range(6)]


async def test_a_cancelled_receive_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox()
    with trio.move_on_after(1):
        await inbox.receive()
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.put(piece(1))
    await inbox.put(piece(2))
    assert [await inbox.receive(), await inbox.receive()] == [piece(1), piece(2)]


async def test_who_puts_many_messages_lets_others_have_their_turn() -> None:
    inbox, put, seen = Inbox(), 0, [0]

    async def look() -> None:
        while put < 20 * AT_A_TIME:
            seen.append(put)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        for number in range(20 * AT_A_TIME):
            await inbox.put(piece(number))
            put += 1
    seen.append(put)
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 2 * AT_A_TIME


async def test_there_is_room_again_when_the_handler_has_read_on() -> None:
    inbox = Inbox()
    await inbox.put({"type": "http.request", "body": bytes(MOST_UNREAD), "more_body": True})
    await inbox.room()
    await inbox.put(piece(1))
    await inbox.put(piece(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.room)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await inbox.receive()


async def test_nothing_is_kept_or_waited_for_once_the_handler_has_ended() -> None:
    inbox = Inbox()
    for _ in range(2):
        await inbox.put({"type": "http.request", "body": bytes(MOST_UNREAD), "more_body": True})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.room)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()
    for _ in range(2):
        await inbox.put({"type": "http.request", "body": bytes(MOST_UNREAD), "more_body": True})
    await inbox.room()


@pytest.mark.parametrize("grouped", [False, True])
async def test_an_error_of_a_handler_is_logged_and_ends_nothing_else(
    grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("mine")
    sent: list[object] = []
    config = Config()
    config.errorlog = logging.getLogger("llm_queue.web")

    async def app(*_: object) -> None:
        raise ExceptionGroup("of a nursery", [error]) if grouped else error

    async def send(message: object) -> None:
        sent.append(message)

    async with trio.open_nursery() as nursery:
        await Handlers(nursery).spawn_app(app, config, {}, send)  # type: ignore[arg-type]
    assert sent == [None]
    assert "Error in ASGI Framework" in caplog.text
    assert "mine" in caplog.text


async def test_a_cancelled_handler_says_that_it_has_ended_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[object] = []

    async def app(_scope: object, receive: Any, *_: object) -> None:
        await receive()

    async def send(message: object) -> None:
        sent.append(message)

    async with trio.open_nursery() as nursery:
        await Handlers(nursery).spawn_app(app, Config(), {}, send)  # type: ignore[arg-type]
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sent == [None]
    assert not caplog.records
