"""A client that stops reading in the middle of a stream, on real sockets with their real buffers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from llm_queue.core.jobs import State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.tickets import Ticket
from llm_queue.web import backlog
from llm_queue.web.backlog import STALL, Backlog, unacknowledged
from llm_queue.wire.shapes import Completion, Delta
from tests.web.conftest import Caller, FakeLine

LINUX = sys.platform == "linux"

BODY = b'{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
PIECE = Delta(content="x" * 10_000)


def starts(ticket: Ticket) -> None:
    """A line that begins to answer at once."""
    ticket.job.key = RunnerKey("sha", 8192)
    ticket.job.move(State.RUNNING, 12.5)
    ticket.put(Delta(content="first"))


async def speak(line: FakeLine, seconds: int) -> None:
    """A model that says 10 kB each second: in a minute, much less than what the kernel takes without a reader."""
    for _ in range(seconds):
        line.tickets[0].put(PIECE)
        await trio.sleep(1)


async def test_a_stream_that_is_not_read_ends_its_job_as_reader_too_slow(
    line: FakeLine, serving: Callable[[], AbstractAsyncContextManager[Caller]], clock: trio.testing.MockClock
) -> None:
    line.script = starts
    async with serving() as caller, await caller.connect(ASK) as stream, trio.open_nursery() as nursery:
        await line.submitted.wait()
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        nursery.start_soon(speak, line, 600)
        started = trio.current_time()
        await line.gone.wait()
        assert trio.current_time() - started < (60 if LINUX else 600)
        nursery.cancel_scope.cancel()
    assert line.leaving == ["reader_too_slow"]


async def test_a_client_that_reads_keeps_its_stream(
    line: FakeLine, serving: Callable[[], AbstractAsyncContextManager[Caller]], clock: trio.testing.MockClock
) -> None:
    line.script = starts
    async with serving() as caller, await caller.connect(ASK) as stream, trio.open_nursery() as nursery:
        await line.submitted.wait()

        async def read() -> None:
            seen = b""
            while b"[DONE]" not in seen:
                seen = seen[-10:] + await stream.receive_some(65536)

        nursery.start_soon(read)
        await speak(line, 60)
        line.tickets[0].settle(Completion("stop", 10, 2))
    assert line.leaving == []


async def test_a_client_that_waits_long_for_its_next_piece_keeps_its_stream(
    line: FakeLine, serving: Callable[[], AbstractAsyncContextManager[Caller]], clock: trio.testing.MockClock
) -> None:
    line.script = starts
    async with serving() as caller, await caller.connect(ASK) as stream:
        await line.submitted.wait()
        await trio.sleep(10 * STALL)
        line.tickets[0].settle(Completion("stop", 10, 2))
        seen = b""
        while b"[DONE]" not in seen:
            seen += await stream.receive_some(65536)
    assert line.leaving == []


async def test_a_client_that_leaves_has_left(
    line: FakeLine, serving: Callable[[], AbstractAsyncContextManager[Caller]], clock: trio.testing.MockClock
) -> None:
    line.script = starts
    async with serving() as caller:
        async with await caller.connect(ASK):
            await line.submitted.wait()
        await line.gone.wait()
    assert line.leaving == ["cancelled"]


async def test_the_kernel_tells_what_a_client_that_does_not_read_leaves_lying() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    where = listener.socket.getsockname()[:2]
    async with listener, await trio.open_tcp_stream(*where) as client, await listener.accept() as server:
        assert unacknowledged(server.socket) == (0 if LINUX else None)
        client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await server.socket.send(bytes(2**18))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ((unacknowledged(server.socket) or 0) > 0) == LINUX
    assert unacknowledged(server.socket) is None


class Kernel:
    """Says what a test wants it to say of a socket."""

    waiting: int | None = 0

    def __call__(self, socket: object) -> int | None:
        return self.waiting


@pytest.fixture
async def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(backlog, "unacknowledged", kernel)
    return kernel


async def test_one_byte_taken_within_the_limit_is_enough(kernel: Kernel, autojump_clock: object) -> None:
    lying = Backlog(None, 15)  # type: ignore[arg-type]  # the kernel of this test looks at no socket
    lying.sent(100)
    for waiting in range(100, 0, -1):
        kernel.waiting = waiting
        assert not lying.stalled(blocked=False)
        await trio.sleep(14)
    await trio.sleep(1)
    assert lying.stalled(blocked=False)


async def test_time_in_which_nothing_waited_does_not_count(kernel: Kernel, autojump_clock: object) -> None:
    lying = Backlog(None, 15)  # type: ignore[arg-type]
    lying.sent(100)
    await trio.sleep(1000)
    assert not lying.stalled(blocked=False)
    lying.sent(100)
    kernel.waiting = 100
    await trio.sleep(14)
    assert not lying.stalled(blocked=False)
    await trio.sleep(1)
    assert lying.stalled(blocked=False)


async def test_where_the_kernel_does_not_tell_a_send_that_waits_in_vain_does(
    kernel: Kernel, autojump_clock: object
) -> None:
    kernel.waiting = None
    lying = Backlog(None, 15)  # type: ignore[arg-type]
    for _ in range(3):
        await trio.sleep(100)
        assert not lying.stalled(blocked=False)
        lying.sent(100)
    await trio.sleep(100)
    assert not lying.stalled(blocked=False)
    await trio.sleep(15)
    assert lying.stalled(blocked=True)
