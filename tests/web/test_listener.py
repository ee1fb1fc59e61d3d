"""The listener on real loopback sockets, with ASGI applications of a few lines behind it."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.events import Updated

from llm_queue.web import backlog, http1, listener
from llm_queue.web.listener import open_all, open_listeners, serve_http

App = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing moves, but leaves the kernel a moment to carry bytes from socket to socket."""
    return trio.testing.MockClock(autojump_threshold=0.02)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and says hello."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    while (await receive()).get("more_body"):
        pass
    await reply(send, b"hello")


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def reply(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Server:
    """A served application, and clients of it."""

    def __init__(self, port: int, shutdown: trio.Event) -> None:
        self.port = port
        self.shutdown = shutdown
        self.stopped = trio.Event()

    async def connect(self, data: bytes = b"") -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        if data:
            await stream.send_all(data)
        return stream

    async def ask(self, data: bytes) -> bytes:
        """Everything that the server says to ``data`` until it ends the connection."""
        async with await self.connect(data) as stream:
            return await everything(stream)

    async def is_well(self) -> bool:
        answer = await self.ask(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"hello")


async def everything(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some(65536):
            data += more
    except trio.BrokenResourceError:
        return data + b"<reset>"
    return data


async def until(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = await stream.receive_some(65536)
        assert more, data
        data += more
    return data


@asynccontextmanager
async def serving(app: App, most: int | None = None) -> AsyncIterator[Server]:
    listeners, _ = await open_listeners("127.0.0.1", 0)
    server = Server(listeners[0].socket.getsockname()[1], trio.Event())

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await serve_http(app, listeners, shutdown=server.shutdown, most=most, task_status=task_status)
        server.stopped.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield server
        server.shutdown.set()


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"

HOSTILE = {
    "a WebSocket upgrade and more bytes": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x05hello",
    "a bad chunk size": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "the h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "an h2c upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "nothing but line ends": b"\r\n" * 500,
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "a path that is not ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET ?x=1 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_bytes_end_their_own_connection_only(clock: trio.testing.MockClock, hostile: bytes) -> None:
    async with serving(hello) as server:
        await server.ask(hostile)
        assert await server.is_well()


async def test_an_application_that_raises_ends_its_own_connection_only(clock: trio.testing.MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/raise":
            raise ExceptionGroup("bad", [ValueError("worse")])
        await hello(scope, receive, send)

    async with serving(app) as server:
        assert (await server.ask(b"GET /raise HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 500")
        assert await server.is_well()


async def test_a_bug_in_the_protocol_code_ends_its_own_connection_only(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = http1.Http1.handle

    async def buggy(self: http1.Http1, event: Any) -> None:
        if getattr(event, "data", b"").startswith(b"boom"):
            raise ZeroDivisionError
        await handle(self, event)

    monkeypatch.setattr(http1.Http1, "handle", buggy)
    async with serving(hello) as server:
        assert await server.ask(b"boom") in (b"", b"<reset>")
        assert await server.is_well()


@pytest.mark.parametrize("seed", range(4))
async def test_random_mutations_of_requests_do_not_hurt_the_server(clock: trio.testing.MockClock, seed: int) -> None:
    dice = random.Random(seed)
    seeds = [GET, POST, *HOSTILE.values()]
    async with serving(hello) as server:
        for _ in range(80):
            data = bytearray(dice.choice(seeds))
            for _ in range(dice.randint(1, 6)):
                place = dice.randrange(len(data) + 1)
                match dice.randrange(4):
                    case 0:
                        data[place:place] = dice.choice((b"\r\n", b"\x00", b":", b" ", b"\xff", b"0\r\n\r\n", GET))
                    case 1:
                        del data[place : place + dice.randint(1, 9)]
                    case 2:
                        data[place : place + 1] = bytes([dice.randrange(256)])
                    case _:
                        data += data[:place]
            async with await server.connect(bytes(data)) as stream:
                if dice.random() < 0.5:
                    with trio.move_on_after(0.1):
                        await stream.receive_some(65536)
        assert await server.is_well()


async def test_an_upgrade_is_ignored_and_answered_as_a_plain_request(clock: trio.testing.MockClock) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        await hello(scope, receive, send)

    async with serving(app) as server, await server.connect(HOSTILE["an h2c upgrade"]) as stream:
        assert (await until(stream, b"hello")).startswith(b"HTTP/1.1 200")
        async with await server.connect(HOSTILE["a WebSocket upgrade and more bytes"]) as other:
            assert (await until(other, b"hello")).startswith(b"HTTP/1.1 200")
    assert seen == ["lifespan", "http", "http"]


async def test_http2_is_refused_in_words(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        answer = await server.ask(HOSTILE["the h2 preface"])
    assert answer.startswith(b"HTTP/1.1 505")
    assert b"HTTP/1.1." in answer.partition(b"\r\n\r\n")[2]


async def test_bytes_that_are_no_http_get_400(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        assert (await server.ask(HOSTILE["TLS"])).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("header", [b"Big: " + b"x" * 70_000, b"\r\n".join(b"A%d: b" % n for n in range(10_000))])
async def test_headers_above_the_limit_get_431(clock: trio.testing.MockClock, header: bytes) -> None:
    async with serving(hello) as server:
        answer = await server.ask(b"GET / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431")
        assert await server.is_well()


async def test_headers_below_the_limit_pass(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        header = b"Big: " + b"x" * 60_000
        answer = await server.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")


async def test_connection_close_gets_its_end_at_once(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        started = trio.current_time()
        answer = await server.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.endswith(b"hello")
        assert trio.current_time() - started < 0.5


async def test_http_1_0_gets_its_end_at_once(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        started = trio.current_time()
        answer = await server.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"hello")
        assert trio.current_time() - started < 0.5


async def test_a_connection_is_kept_for_the_next_request_and_pipelined_ones_are_answered_in_order(
    clock: trio.testing.MockClock,
) -> None:
    async with serving(hello) as server, await server.connect(GET) as stream:
        await until(stream, b"hello")
        await stream.send_all(GET + GET + POST)
        data = b""
        while data.count(b"hello") < 3:
            data += await stream.receive_some(65536)
        assert data.count(b"HTTP/1.1 200") == 3


async def test_a_response_says_its_date_and_not_its_server(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server:
        head = (await server.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).lower()
        assert b"\r\ndate: " in head
        assert b"\r\nserver: " not in head


async def test_an_idle_connection_is_closed(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server, await server.connect(GET) as stream:
        await until(stream, b"hello")
        started = trio.current_time()
        assert await everything(stream) == b""
        assert trio.current_time() - started == pytest.approx(listener.KEEP_ALIVE, abs=1)


async def test_an_idle_connection_is_closed_though_another_went_while_its_last_message_was_on_its_way(
    clock: trio.testing.MockClock,
) -> None:
    writing = trio.Event()

    async def large(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"] != "/large":
            await hello(scope, receive, send)
            return
        writing.set()
        with trio.CancelScope(shield=True):
            await reply(send, bytes(64 * 2**20))

    async with serving(large) as server:
        stream = await server.connect(GET.replace(b"/ ", b"/large "))
        await writing.wait()
        await trio.sleep(1)
        await stream.aclose()
        await trio.sleep(1)
        async with await server.connect(GET) as other:
            await until(other, b"hello")
            started = trio.current_time()
            with trio.fail_after(2 * listener.KEEP_ALIVE):
                assert await everything(other) == b""
            assert trio.current_time() - started == pytest.approx(listener.KEEP_ALIVE, abs=1)


async def trickle(stream: trio.SocketStream) -> None:
    for n in range(1000):
        await trio.sleep(1)
        await stream.send_all(b"X%d: y\r\n" % n)


async def test_headers_that_trickle_in_are_cut_off(clock: trio.testing.MockClock) -> None:
    async with serving(hello) as server, await server.connect(b"GET / HTTP/1.1\r\n") as stream:
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await trickle(stream)
        assert trio.current_time() - started == pytest.approx(listener.HEADER_WAIT, abs=3)


class Waiting:
    """An application that waits for ever, and knows who left."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.left = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        if scope["path"] == "/health":
            return await hello(scope, receive, send)
        self.entered.set()
        try:
            await trio.sleep_forever()
        finally:
            self.left.set()


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n"
)
CONNECT = b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("extra", [b"", b"\r\n", GET, POST * 50], ids=["nothing", "a line end", "a request", "many"])
@pytest.mark.parametrize("request_", [POST, UPGRADE, CONNECT], ids=["POST", "an upgrade", "CONNECT"])
async def test_a_hang_up_cancels_the_handler_whatever_was_sent_before_it(
    clock: trio.testing.MockClock, request_: bytes, extra: bytes
) -> None:
    app = Waiting()
    async with serving(app) as server:
        stream = await server.connect(request_ + extra)
        await app.entered.wait()
        started = trio.current_time()
        await stream.aclose()
        with trio.fail_after(5):
            await app.left.wait()
        assert trio.current_time() - started < 0.5
        assert await server.is_well()


async def test_a_reset_cancels_the_handler(clock: trio.testing.MockClock) -> None:
    app = Waiting()
    async with serving(app) as server:
        stream = await server.connect(POST)
        await app.entered.wait()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stream.socket.close()
        with trio.fail_after(5):
            await app.left.wait()
        assert await server.is_well()


async def test_half_a_close_counts_as_gone(clock: trio.testing.MockClock) -> None:
    app = Waiting()
    async with serving(app) as server, await server.connect(POST) as stream:
        await app.entered.wait()
        await stream.send_eof()
        with trio.fail_after(5):
            await app.left.wait()
        assert await everything(stream) in (b"", b"<reset>")


async def test_a_client_that_floods_while_it_waits_is_dropped(clock: trio.testing.MockClock) -> None:
    app = Waiting()
    async with serving(app) as server, await server.connect(POST) as stream:
        await app.entered.wait()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(bytes(64 * 2**20))
        with trio.fail_after(1):
            await app.left.wait()


async def test_no_more_is_read_of_a_body_than_a_slow_handler_takes(clock: trio.testing.MockClock) -> None:
    size, sent, read = 128 * 2**20, 0, 0
    go_on = trio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            read, more = read + len(message["body"]), message["more_body"]
        await reply(send, b"hello")

    async def upload(stream: trio.SocketStream) -> None:
        nonlocal sent
        while sent < size:
            sent += await stream.socket.send(bytes(min(2**16, size - sent)))

    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    async with serving(slow) as server, await server.connect(head) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(upload, stream)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sent < size / 2  # what the system's buffers hold, and a little
        go_on.set()
        assert b"hello" in await stream.receive_some(65536)
    assert read == sent == size


async def test_what_is_sent_ahead_of_slow_answers_is_read_as_they_are_given(clock: trio.testing.MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await trio.sleep(listener.FLOOD / 3)  # less than what a client has for taking a byte
        await hello(scope, receive, send)

    large = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % listener.READ_AHEAD
    async with serving(slow) as server, await server.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, 4 * (large + bytes(listener.READ_AHEAD)))
        answers = b""
        while answers.count(b"hello") < 4:
            answers += await stream.receive_some(65536)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes are kept that have come and were not taken yet, in all connections."""
    made: list[http1.Requests] = []

    def requests() -> http1.Requests:
        made.append(real())
        return made[-1]

    real = http1.Requests
    monkeypatch.setattr(http1, "Requests", requests)
    return lambda: sum(len(connection.trailing_data[0]) for connection in made)


async def test_nothing_is_kept_of_what_follows_the_last_request(
    clock: trio.testing.MockClock, kept: Callable[[], int]
) -> None:
    app = Waiting()
    async with serving(app) as server:
        async with await server.connect(POST.replace(b"Host", b"Connection: close\r\nHost")) as stream:
            await app.entered.wait()
            await stream.send_all(bytes(16 * 2**20))
            assert kept() == 0
        await app.left.wait()


async def test_of_what_is_sent_ahead_no_more_is_kept_than_was_said_however_many_are_answered(
    clock: trio.testing.MockClock, kept: Callable[[], int]
) -> None:
    most, number = 0, 120_000

    async def hello_and_look(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        if scope["type"] == "http" and scope["path"] == "/look":
            most = max(most, kept())
        await hello(scope, receive, send)

    async with serving(hello_and_look) as server, await server.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, (GET * 99 + GET.replace(b"/ ", b"/look ")) * (number // 100))
        answered, end = 0, b""
        while answered < number // 20:
            data = end + await stream.receive_some(65536)
            answered += data.count(b"hello")
            end = data[-4:]
        nursery.cancel_scope.cancel()
    assert 0 < most <= listener.READ_AHEAD + 2 * listener.READ_SIZE


async def test_the_next_request_is_read_whole_though_the_last_message_of_the_answer_before_it_is_given_up(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[int] = []
    last = trio.CancelScope()
    real = listener.Connection._handle

    async def handle(self: listener.Connection, event: Any) -> None:
        await real(self, event)
        if isinstance(event, Updated) and event.idle:
            last.cancel()  # as by its limit, when it has just been sent

    async def count(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        bodies.append(size)
        if len(bodies) > 1:
            await reply(send, b"hello")
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await trio.sleep(1)
        with last:
            await send({"type": "http.response.body", "body": b"hello", "more_body": False})

    monkeypatch.setattr(listener.Connection, "_handle", handle)
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (b"3e8\r\n" + bytes(1000) + b"\r\n") * 20 + b"0\r\n\r\n"
    async with serving(count) as server, await server.connect(GET + chunked + pieces) as stream:
        answers = b""
        while answers.count(b"hello") < 2:
            answers += await stream.receive_some(65536)
    assert bodies == [0, 20_000]


async def test_a_client_that_is_gone_ends_even_a_last_message_that_is_shielded(clock: trio.testing.MockClock) -> None:
    over: list[float] = []

    async def large(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        size = 64 * 2**20
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        try:
            with trio.CancelScope(shield=True):
                await send({"type": "http.response.body", "body": bytes(size), "more_body": False})
        finally:
            over.append(trio.current_time())

    async with serving(large) as server, await server.connect(GET) as stream:
        await trio.sleep(0.5)
        await stream.send_eof()
        await trio.sleep(1)
        assert over
        assert over[0] < 1.5


async def talk_for_ever(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})


async def test_a_client_that_stops_reading_is_dropped(clock: trio.testing.MockClock) -> None:
    done = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await talk_for_ever(scope, receive, send)
        finally:
            if scope["type"] == "http":
                done.set()

    async with serving(app) as server, await server.connect(GET):
        started = trio.current_time()
        await done.wait()
        assert trio.current_time() - started == pytest.approx(backlog.STALL, abs=2)


async def test_a_client_that_stops_reading_does_not_hold_up_the_shutdown(clock: trio.testing.MockClock) -> None:
    async with serving(talk_for_ever) as server, await server.connect(GET):
        await trio.sleep(5)
        started = trio.current_time()
        server.shutdown.set()
        await server.stopped.wait()
        assert trio.current_time() - started <= listener.GRACE + 0.5


async def test_not_even_a_shielded_last_message_holds_up_the_shutdown(clock: trio.testing.MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        with trio.CancelScope(shield=True):
            await reply(send, bytes(64 * 2**20))

    async with serving(app) as server, await server.connect(GET):
        await trio.sleep(5)
        started = trio.current_time()
        server.shutdown.set()
        await server.stopped.wait()
        assert trio.current_time() - started <= listener.GRACE + 0.5


async def test_at_shutdown_idle_connections_go_at_once_and_busy_ones_get_their_answer(
    clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/slow":
            await trio.sleep(0.5)
        await hello(scope, receive, send)

    async with serving(app) as server, await server.connect(GET) as idle:
        await until(idle, b"hello")
        async with await server.connect(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") as busy:
            await trio.sleep(0.1)
            started = trio.current_time()
            server.shutdown.set()
            assert await everything(idle) == b""
            assert trio.current_time() - started < 0.1
            assert (await everything(busy)).endswith(b"hello")
        await server.stopped.wait()
        with pytest.raises(OSError, match="connect"):
            await server.connect()


async def test_an_answer_before_the_body_is_read_arrives_and_the_connection_ends(
    clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await trio.sleep(1)  # so that every buffer on the way is full
            await reply(send, b"too large", status=413)

    async with serving(app) as server:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n"
        answer = await server.ask(head + bytes(33_554_432))
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"too large")


async def test_the_listeners_are_closed_at_the_end() -> None:
    listeners, _ = await open_listeners("127.0.0.1", 0)
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_http, hello, listeners, shutdown=shutdown))
        shutdown.set()
    assert all(one.socket.fileno() == -1 for one in listeners)


async def test_both_loopback_addresses_listen_on_one_port() -> None:
    listeners, warning = await open_listeners(None, 0)
    ports = {one.socket.getsockname()[1] for one in listeners}
    addresses = [one.socket.getsockname()[0] for one in listeners]
    for one in listeners:
        await one.aclose()
    assert len(ports) == 1
    assert addresses == (["127.0.0.1", "::1"] if warning is None else ["127.0.0.1"])


async def test_a_taken_port_is_an_error_that_says_which() -> None:
    [first], _ = await open_listeners("127.0.0.1", 0)
    async with first:
        taken = first.socket.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}: .*in use"):
            await open_listeners(None, taken)


async def test_each_of_several_ports_has_both_loopback_addresses() -> None:
    listeners, warnings = await open_all(None, (0, 0))
    places = [one.socket.getsockname()[:2] for one in listeners]
    for one in listeners:
        await one.aclose()
    ports = list(dict.fromkeys(port for _, port in places))
    assert len(ports) == 2
    if not warnings:
        assert places == [(host, port) for port in ports for host in ("127.0.0.1", "::1")]


async def test_a_port_that_is_taken_leaves_none_of_the_others_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[trio.SocketListener] = []
    open_one = listener.open_listeners

    async def remember(host: str | None, port: int) -> tuple[list[trio.SocketListener], str | None]:
        found = await open_one(host, port)
        opened.extend(found[0])
        return found

    monkeypatch.setattr(listener, "open_listeners", remember)
    [first], _ = await open_one("127.0.0.1", 0)
    async with first:
        with pytest.raises(OSError, match="in use"):
            await open_all("127.0.0.1", (0, first.socket.getsockname()[1]))
    assert len(opened) == 1
    assert opened[0].socket.fileno() == -1


async def test_a_warning_about_the_machine_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def warn(host: str | None, port: int) -> tuple[list[trio.SocketListener], str | None]:
        await trio.lowlevel.checkpoint()
        return [], "[::1] is not there"

    monkeypatch.setattr(listener, "open_listeners", warn)
    assert await open_all(None, (1, 2)) == ([], ["[::1] is not there"])


async def test_a_port_that_is_taken_on_the_other_loopback_address_is_a_warning() -> None:
    try:
        [other] = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        [other] = await trio.open_tcp_listeners(0, host="127.0.0.2")  # no IPv6 here, which is a warning too
    async with other:
        listeners, warning = await open_listeners(None, other.socket.getsockname()[1])
        for one in listeners:
            await one.aclose()
    assert len(listeners) == 1
    assert "::1" in str(warning)
