"""What a handler is told: all of it, in order, and what becomes of a handler that fails."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from llm_queue.web.inbox import AT_A_TIME, MESSAGE, MOST_UNREAD, Handlers, Inbox


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


def large() -> Any:
    return {"type": "http.request", "body": bytes(MOST_UNREAD), "more_body": True}


async def waits_for_room(inbox: Inbox, end: Callable[[], Awaitable[None]]) -> None:
    """Assert that there is no room until ``end`` was called, and that there is some then."""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.wait_for_room)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            await end()


async def test_there_is_room_again_when_the_handler_has_read_on() -> None:
    inbox = Inbox()
    await inbox.put(piece(1))
    await inbox.wait_for_room()
    await inbox.put(large())

    async def read() -> None:
        await inbox.receive()
        await inbox.receive()

    await waits_for_room(inbox, read)


async def test_small_pieces_fill_it_too() -> None:
    inbox = Inbox()
    for number in range(MOST_UNREAD // MESSAGE):
        await inbox.put(piece(number))

    async def read() -> None:
        for _ in range(MOST_UNREAD // MESSAGE // 2):
            await inbox.receive()

    await waits_for_room(inbox, read)


async def test_nobody_waits_for_room_once_the_request_is_over() -> None:
    inbox = Inbox()
    await inbox.put(large())

    async def leave() -> None:
        await inbox.put({"type": "http.disconnect"})

    await waits_for_room(inbox, leave)
    await inbox.wait_for_room()
    assert [(await inbox.receive())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]


class Message(dict[str, Any]):
    """One that can be seen to be freed."""


async def test_what_a_handler_has_not_read_is_dropped_when_it_ends() -> None:
    inbox, message = Inbox(), Message(piece(1))
    await inbox.put(message)  # type: ignore[arg-type]
    unread = weakref.ref(message)
    del message
    assert unread() is not None
    inbox.close()
    assert unread() is None


async def test_nobody_waits_for_room_once_the_handler_has_ended() -> None:
    inbox = Inbox()
    await inbox.put(large())

    async def close() -> None:
        inbox.close()

    await waits_for_room(inbox, close)


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


async def test_an_error_beside_a_cancellation_is_logged_and_the_cancellation_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = Config()
    config.errorlog = logging.getLogger("llm_queue.web")
    ended: list[str] = []

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("mine")

    async def app(*_: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_when_cancelled)

    async def send(message: object) -> None:
        ended.append("handler")

    async with trio.open_nursery() as nursery:
        await Handlers(nursery).spawn_app(app, config, {}, send)  # type: ignore[arg-type]
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert ended == ["handler"]
    assert "mine" in caplog.text
