"""Streams, waiting and leaving, on real loopback sockets through the real listener."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from llm_queue.core.jobs import State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.tickets import Place, Ticket
from llm_queue.errors import ReaderTooSlow, UpstreamBroke
from llm_queue.wire.shapes import Answer, Completion, Delta

Serving = Callable[[], AbstractAsyncContextManager[Any]]


def request(stream: bool = False, head: bytes = b"", version: bytes = b"1.1") -> bytes:
    body = msgspec.json.encode({"messages": [{"role": "user", "content": "hello"}], "stream": stream})
    start = b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n" % (version, len(body))
    return start + head + b"\r\n" + body


async def until(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = await stream.receive_some(65536)
        assert more, data
        data += more
    return data


async def everything(stream: trio.SocketStream) -> bytes:
    data = b""
    while more := await stream.receive_some(65536):
        data += more
    return data


def run(ticket: Ticket) -> None:
    ticket.job.key = RunnerKey("sha", 8192)
    ticket.job.move(State.RUNNING, 12.0)
    ticket.job.busy_since = 12.0


async def test_a_stream_arrives_piece_by_piece_and_ends_with_done(clock: Any, line: Any, serving: Serving) -> None:
    line.script = run
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        await line.submitted.wait()
        ticket: Ticket = line.tickets[0]
        ticket.put(Delta(content="one"))
        head = await until(stream, b'"one"')
        assert b"HTTP/1.1 200" in head
        assert b"text/event-stream" in head
        assert b"x-accel-buffering: no" in head.lower()
        assert b"x-llm-queue-wait-ms: 2000" in head.lower()
        ticket.put(Delta(content="two"))
        await until(stream, b'"two"')
        ticket.settle(Completion("stop", 1, 2))
        assert (await until(stream, b"0\r\n\r\n")).count(b"data: [DONE]\n\n") == 1
    assert line.left == []


async def test_what_has_arrived_leaves_in_one_piece(clock: Any, line: Any, serving: Serving) -> None:
    def script(ticket: Ticket) -> None:
        run(ticket)
        for _ in range(300):
            ticket.put(Delta(content="x"))
        ticket.settle(Completion("stop"))

    line.script = script
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        data = await until(stream, b"0\r\n\r\n")
    chunks = data.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert len([chunk for chunk in chunks if chunk.startswith(b"data:")]) == 1
    assert data.count(b'"x"') == 300


async def test_a_very_long_answer_is_written_in_bounded_pieces(clock: Any, line: Any, serving: Serving) -> None:
    def script(ticket: Ticket) -> None:
        run(ticket)
        for _ in range(1200):
            ticket.put(Delta(content="x"))
        ticket.settle(Completion("stop"))

    line.script = script
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        data = await until(stream, b"0\r\n\r\n")
    chunks = data.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert len([chunk for chunk in chunks if chunk.startswith(b"data:")]) == 3
    assert data.count(b'"x"') == 1200


async def test_a_waiting_stream_hears_where_it_stands(clock: Any, line: Any, serving: Serving) -> None:
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        started = trio.current_time()
        head = await until(stream, b": queued, 3 ahead, about 40 s\n\n")
        assert b"HTTP/1.1 200" in head
        assert trio.current_time() - started == pytest.approx(10, abs=1)
        line.where = Place(2, None)
        await until(stream, b": queued, 2 ahead\n\n")
        line.where = Place(2, None, paused=True)
        await until(stream, b": paused, 2 ahead\n\n")
        line.where = Place(0, None, loading=True)
        await until(stream, b": loading\n\n")
        run(line.tickets[0])
        await until(stream, b": running\n\n")
        line.tickets[0].settle(Answer(Delta(content="late"), Completion("stop")))
        assert b'"late"' in await until(stream, b"[DONE]")


async def test_an_error_after_the_headers_is_an_event_and_no_done(clock: Any, line: Any, serving: Serving) -> None:
    line.script = run
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        await line.submitted.wait()
        line.tickets[0].put(Delta(content="half"))
        await until(stream, b'"half"')
        line.tickets[0].settle(UpstreamBroke())
        end = await until(stream, b"0\r\n\r\n")
    assert b'data: {"error":{' in end
    assert b"[DONE]" not in end
    assert b"finish_reason" not in end


async def test_an_error_before_the_headers_has_its_real_status(clock: Any, line: Any, serving: Serving) -> None:
    line.script = lambda ticket: ticket.settle(UpstreamBroke())
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        head = await until(stream, b"upstream_broke")
    assert b"HTTP/1.1 502" in head
    assert b"x-should-retry: false" in head.lower()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("extra", [b"", b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_a_caller_who_hangs_up_leaves_the_line_at_once(
    clock: Any, line: Any, serving: Serving, streamed: bool, extra: bytes
) -> None:
    async with serving() as server:
        stream = await server.connect(request(streamed) + extra)
        await line.submitted.wait()
        started = trio.current_time()
        await stream.aclose()
        with trio.fail_after(5):
            await line.gone.wait()
        assert trio.current_time() - started < 0.5
    assert line.left == ["job_0"]


async def test_a_caller_who_hangs_up_in_the_middle_of_a_stream_ends_the_job(
    clock: Any, line: Any, serving: Serving
) -> None:
    line.script = run
    async with serving() as server:
        stream = await server.connect(request(stream=True))
        await line.submitted.wait()
        line.tickets[0].put(Delta(content="one"))
        await until(stream, b'"one"')
        await stream.aclose()
        with trio.fail_after(5):
            await line.gone.wait()
    assert line.left == ["job_0"]


async def pour(ticket: Ticket) -> None:
    for _ in range(100):
        ticket.put(Delta(content="x" * 2**20))
        await trio.sleep(0.01)


async def test_a_caller_who_stops_reading_holds_neither_job_nor_shutdown(
    clock: Any, line: Any, serving: Serving
) -> None:
    line.script = run
    async with serving() as server, await server.connect(request(stream=True)):
        await line.submitted.wait()
        ticket: Ticket = line.tickets[0]
        with pytest.raises(ReaderTooSlow):
            await pour(ticket)
        ticket.settle(ReaderTooSlow())
        started = trio.current_time()
    assert trio.current_time() - started < 5


@pytest.mark.parametrize(("head", "version"), [(b"Connection: close\r\n", b"1.1"), (b"", b"1.0")])
@pytest.mark.parametrize("streamed", [False, True])
async def test_who_asked_for_a_close_gets_it_with_the_answer(
    clock: Any, line: Any, serving: Serving, head: bytes, version: bytes, streamed: bool
) -> None:
    def script(ticket: Ticket) -> None:
        run(ticket)
        ticket.settle(Answer(Delta(content="hello"), Completion("stop")))

    line.script = script
    async with serving() as server, await server.connect(request(streamed, head, version)) as stream:
        started = trio.current_time()
        data = await everything(stream)
        assert trio.current_time() - started < 0.5
    assert b'"hello"' in data


async def test_a_connection_serves_one_request_after_the_other(clock: Any, line: Any, serving: Serving) -> None:
    def script(ticket: Ticket) -> None:
        run(ticket)
        ticket.settle(Answer(Delta(content="hello"), Completion("stop")))

    line.script = script
    async with serving() as server, await server.connect(request(stream=True)) as stream:
        await until(stream, b"0\r\n\r\n")
        for _ in range(3):
            await stream.send_all(request())
            await until(stream, b'"hello"')
    assert len(line.tickets) == 4
    assert line.left == []


async def test_a_body_above_the_limit_gets_its_413_and_the_end(clock: Any, line: Any, serving: Serving) -> None:
    async with serving() as server:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
        async with await server.connect(head + bytes(2_000_000)) as stream:
            data = await everything(stream)
    assert data.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in data


@pytest.mark.parametrize(
    "target", [b"?x=1", b"/nowhere?x=%ff&%", b"*", b"http://localhost/health", b"//nowhere", b"/%2e%2e/%00"]
)
async def test_odd_targets_are_the_caller_s_fault(clock: Any, line: Any, serving: Serving, target: bytes) -> None:
    data = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target
    async with serving() as server, await server.connect(data) as stream:
        assert (await until(stream, b"\r\n")).split()[1] in (b"400", b"404")


async def test_chunked_with_a_length_is_refused(clock: Any, line: Any, serving: Serving) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
    data = head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with serving() as server, await server.connect(data) as stream:
        assert (await until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert line.tickets == []
