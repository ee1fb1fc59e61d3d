"""What happens when there is no room for one more connection."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from llm_queue.web.door import LOOK_AGAIN, SAID_AGAIN, Door
from tests.web.test_listener import GET, Server, clock, everything, hello, reply, serving, until

__all__ = ["clock"]

BYE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Slow:
    """An application whose answers are held back."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await hello(scope, receive, send)
            return
        self.asked += 1
        await self.answer.wait()
        await reply(send, b"hello")


async def test_whoever_finds_no_room_waits_and_is_served_when_another_has_gone(clock: trio.testing.MockClock) -> None:
    app = Slow()
    answers: list[bytes] = []

    async def ask(server: Server) -> None:
        answers.append(await server.ask(BYE))

    with structlog.testing.capture_logs() as logs:
        async with serving(app, most=3) as server, trio.open_nursery() as callers:
            for _ in range(20):
                callers.start_soon(ask, server)
            await trio.sleep(5)
            assert app.asked == 3
            assert answers == []
            app.answer.set()
    assert len(answers) == 20
    assert all(answer.endswith(b"hello") for answer in answers)
    assert app.asked == 20
    [said] = logs
    assert said["event"] == "no room for more callers: who comes now waits until another has gone"
    assert (said["connected"], said["reason"]) == (3, "the limit of open files")


async def test_connections_that_only_stay_open_make_room(clock: trio.testing.MockClock) -> None:
    async with (
        serving(hello, most=2) as server,
        await server.connect(GET) as first,
        await server.connect() as second,
    ):
        await until(first, b"hello")
        await trio.sleep(0.5)
        await second.send_all(GET)
        await until(second, b"hello")
        assert await server.is_well()
        with trio.move_on_after(0.1) as still_open:
            await second.receive_some(1)
        assert await everything(first) == b""  # the longest idle one had to go, and no other
        assert still_open.cancelled_caught
        await second.send_all(GET)
        await until(second, b"hello")


async def test_a_connection_with_a_request_does_not_make_room(clock: trio.testing.MockClock) -> None:
    app = Slow()
    async with serving(app, most=1) as server, await server.connect(GET) as busy, trio.open_nursery() as callers:
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await server.ask(BYE))

        callers.start_soon(ask)
        await trio.sleep(5)
        assert app.asked == 1
        app.answer.set()
        await until(busy, b"hello")
        await trio.sleep(5)
        assert len(answers) == 1


class Broken:
    """A listener on which ``accept`` fails as told, then finds nobody any more."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.closed = False
        self.socket = self

    def fileno(self) -> int:
        raise OSError(errno.EBADF, "closed")

    def close(self) -> None:
        self.closed = True

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if self.codes:
            code = self.codes.pop(0)
            raise OSError(code, f"error {code}")
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_system_without_descriptors_is_asked_again_and_said_once(
    code: int, autojump_clock: trio.testing.MockClock
) -> None:
    listener: Any = Broken(*[code] * 50)
    with structlog.testing.capture_logs() as logs, trio.move_on_after(100):
        await Door(None).let_in(listener, lambda stream: None)
    assert listener.codes == []
    assert listener.closed
    assert len(logs) == 1
    assert trio.current_time() >= 50 * LOOK_AGAIN


async def test_a_lack_that_comes_back_is_said_again(autojump_clock: trio.testing.MockClock) -> None:
    door = Door(None)
    with structlog.testing.capture_logs() as logs:
        for pause in (0.0, SAID_AGAIN + 1, 1.0):
            await trio.sleep(pause)
            with trio.move_on_after(1):
                listener: Any = Broken(errno.EMFILE)
                await door.let_in(listener, lambda stream: None)
    assert len(logs) == 2


async def test_whoever_is_at_the_door_when_it_closes_is_let_in_and_answered(clock: trio.testing.MockClock) -> None:
    server: Server
    async with serving(hello) as server, trio.open_nursery() as callers:
        assert await server.is_well()
        streams = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        server.shutdown.set()  # none of them was accepted yet, and most have sent nothing
        with ExitStack() as opened:
            for number, stream in enumerate(streams):
                opened.enter_context(stream)
                if number % 2:
                    stream.sendall(GET)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for stream in streams[::2]:
                stream.sendall(GET)
            for stream in streams:
                answer = await trio.to_thread.run_sync(stream.recv, 4096)
                assert answer.startswith(b"HTTP/1.1 200"), answer
        callers.cancel_scope.cancel()


async def test_a_listener_that_is_broken_is_an_error() -> None:
    listener: Any = Broken(errno.EBADF)
    with pytest.raises(OSError, match="error 9"):
        await Door(None).let_in(listener, lambda stream: None)
