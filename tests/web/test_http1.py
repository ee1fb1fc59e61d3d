"""What HTTP/1.1 asks of a server on one connection, byte by byte, with the real app behind it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from llm_queue.core.jobs import State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import LineFull, UpstreamRefused
from llm_queue.testing import prompt_of
from llm_queue.wire.shapes import Answer, Completion, Delta
from tests.web.conftest import Caller, FakeLine

Serving = Callable[[], AbstractAsyncContextManager[Caller]]

BODY = b'{"messages": [{"role": "user", "content": "hello"}]}'
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(
    *headers: bytes, path: bytes = b"/v1/chat/completions", host: bytes = b"localhost", length: int = 500
) -> bytes:
    """The head of a POST whose body is still to come."""
    lines = (b"POST " + path + b" HTTP/1.1", b"Host: " + host, b"Content-Length: %d" % length, *headers, b"", b"")
    return b"\r\n".join(lines)


def answers(ticket: Ticket) -> None:
    """A line that answers at once."""
    ticket.job.key = RunnerKey("sha", 8192)
    ticket.job.move(State.RUNNING, 12.5)
    ticket.settle(Answer(Delta(content="hi"), Completion("stop", 10, 2)))


async def one_answer(stream: trio.SocketStream, seen: bytes = b"") -> tuple[bytes, bytes]:
    """The next whole answer with a length: its head, and what follows it."""
    while b"\r\n\r\n" not in seen:
        more = await stream.receive_some(65536)
        assert more, seen
        seen += more
    head, _, rest = seen.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(rest) < length:
        more = await stream.receive_some(65536)
        assert more, (head, rest)
        rest += more
    return head, rest[length:]


async def ends(stream: trio.SocketStream) -> bool:
    """True if the server ends the connection properly, without more to say."""
    return await stream.receive_some(1) == b""


async def repeat(stream: trio.SocketStream, data: bytes) -> None:
    """Send ``data`` once a second until the server has had enough."""
    while True:
        await stream.send_all(data)
        await trio.sleep(1)


EARLY: dict[str, tuple[bytes, bytes]] = {
    "a foreign Host": (post(host=b"evil.example"), b"403 Forbidden"),
    "a foreign Origin": (post(b"Origin: https://evil.example"), b"403 Forbidden"),
    "two Origins": (post(b"Origin: a", b"Origin: b"), b"400 Bad Request"),
    "no such address": (post(path=b"/v1/v1/chat/completions"), b"404 Not Found"),
    "a method that is not taken": (post(path=b"/v1/models"), b"405 Method Not Allowed"),
    "a body that is too large": (post(length=5000), b"413 Content Too Large"),
    "an encoding that is not read": (post(b"Content-Encoding: zstd"), b"415 Unsupported Media Type"),
    "a preflight with a body": (post().replace(b"POST", b"OPTIONS"), b""),
    "chunks": (
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"404 Not Found",
    ),
}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY.keys())
async def test_an_answer_before_the_whole_request_is_there_says_that_the_connection_ends(
    early: tuple[bytes, bytes], serving: Serving, clock: trio.testing.MockClock
) -> None:
    request, status = early
    async with serving() as caller, await caller.connect(request) as stream:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += await stream.receive_some(65536)
        head, _, rest = seen.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0].removeprefix(b"HTTP/1.1 ") == (status or b"204 No Content")
        assert head.lower().count(b"\r\nconnection: close") == 1
        await stream.send_all(bytes(500))  # what was under way already does no harm to the answer
        while more := await stream.receive_some(65536):
            rest += more
        assert rest.startswith(b"{") == bool(status)


async def test_a_refusal_of_a_whole_request_keeps_the_connection(
    line: FakeLine, serving: Serving, clock: trio.testing.MockClock
) -> None:
    line.error = LineFull(retry_after=1)
    async with serving() as caller, await caller.connect(b"") as stream:
        for _ in range(3):
            await stream.send_all(post(length=len(BODY)) + BODY)
            head, _ = await one_answer(stream)
            assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert b"connection: close" not in head.lower()
            await stream.send_all(HEALTH.replace(b"localhost", b"evil.example"))
            assert (await one_answer(stream))[0].startswith(b"HTTP/1.1 403 Forbidden\r\n")


async def test_a_client_that_sends_on_for_seconds_after_its_refusal_can_still_read_it(
    serving: Serving, clock: trio.testing.MockClock
) -> None:
    async with serving() as caller, await caller.connect(post(length=10**6)) as stream:
        for _ in range(10):
            await stream.send_all(bytes(1000))
            await trio.sleep(1)
        assert (await one_answer(stream))[0].startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_never_stops_sending_after_its_refusal_is_cut_off(
    serving: Serving, clock: trio.testing.MockClock
) -> None:
    async with serving() as caller, await caller.connect(post(length=10**9)) as stream:
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await repeat(stream, bytes(1000))
        assert trio.current_time() - started == pytest.approx(30, abs=3)


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\r\n\r\n"], ids=repr)
async def test_empty_lines_before_a_request_are_ignored(
    empty: bytes, serving: Serving, clock: trio.testing.MockClock
) -> None:
    async with serving() as caller:
        for pieces in ([empty + HEALTH], [empty, HEALTH], [*(empty[n : n + 1] for n in range(len(empty))), HEALTH]):
            async with await caller.connect(b"") as stream:
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
                assert (await one_answer(stream))[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_empty_lines_behind_a_body_and_between_requests_are_ignored(
    line: FakeLine, serving: Serving, clock: trio.testing.MockClock
) -> None:
    line.script = answers
    chat = post(length=len(BODY)) + BODY + b"\r\n"
    async with serving() as caller, await caller.connect(chat + chat + b"\r\n" + HEALTH + b"\r\n") as stream:
        rest = b""
        for _ in range(3):
            head, rest = await one_answer(stream, rest)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"\r\n" + HEALTH)
        assert (await one_answer(stream, rest))[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_flood_of_empty_lines_ends_with_the_time_for_headers(
    serving: Serving, clock: trio.testing.MockClock
) -> None:
    async with serving() as caller, await caller.connect(b"\r\n") as stream:
        started = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await repeat(stream, b"\r\n" * 1000)
        assert trio.current_time() - started == pytest.approx(30, abs=3)


async def test_a_compressed_body_is_read(line: FakeLine, serving: Serving, clock: trio.testing.MockClock) -> None:
    line.script = answers
    body = gzip.compress(BODY)
    request = post(b"Content-Encoding: gzip", length=len(body)) + body
    async with serving() as caller, await caller.connect(request) as stream:
        assert (await one_answer(stream))[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert prompt_of(line.tickets[0].submission.request) == "hello"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", b"505 HTTP Version Not Supported"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBig: " + b"x" * 70000, b"431 Request Header Fields Too Large"),
    ],
    ids=["version", "no HTTP", "headers"],
)
async def test_what_the_listener_refuses_has_a_reason_and_ends_the_connection(
    request_: bytes, status: bytes, serving: Serving, clock: trio.testing.MockClock
) -> None:
    async with serving() as caller, await caller.connect(request_) as stream:
        head, rest = await one_answer(stream)
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert head.lower().count(b"\r\nconnection: close") == 1
        assert rest == b""
        assert await ends(stream)


async def test_a_status_that_http_does_not_name_has_a_reason_too(
    line: FakeLine, serving: Serving, clock: trio.testing.MockClock
) -> None:
    def refuses(ticket: Ticket) -> None:
        ticket.settle(UpstreamRefused("gone", status=499))

    line.script = refuses
    async with serving() as caller, await caller.connect(post(length=len(BODY)) + BODY) as stream:
        assert (await one_answer(stream))[0].startswith(b"HTTP/1.1 499 Client Error\r\n")


async def test_an_answer_during_the_shutdown_says_that_the_connection_ends(
    line: FakeLine, serving: Serving, clock: trio.testing.MockClock
) -> None:
    waiting: list[Ticket] = []
    line.script = waiting.append
    async with serving() as caller:
        stream = await caller.connect(post(length=len(BODY)) + BODY)
        await line.submitted.wait()
        caller.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        answers(waiting[0])
        head, _ = await one_answer(stream)
        assert b"\r\nconnection: close" in head.lower()
        assert await ends(stream)
        await stream.aclose()


LAST: dict[str, tuple[bytes, bytes]] = {
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", b"200"),
    "a client that asks for the end": (HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"200"),
    "no path": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400",
    ),
}


@pytest.mark.parametrize("extra", [b"\r\n", HEALTH, b"\x81\x05hello"], ids=["a line end", "a request", "no HTTP"])
@pytest.mark.parametrize("last", LAST.values(), ids=LAST.keys())
async def test_what_follows_the_last_request_of_a_connection_does_not_take_its_answer_away(
    last: tuple[bytes, bytes], extra: bytes, serving: Serving, clock: trio.testing.MockClock
) -> None:
    request, status = last
    async with serving() as caller:
        for _ in range(5):  # the order of the server's tasks is not always the same
            async with await caller.connect(request + extra) as stream:
                head, rest = await one_answer(stream)
                assert head.startswith(b"HTTP/1.1 " + status)
                assert head.lower().count(b"\r\nconnection: close") == 1
                assert rest == b""
                assert await ends(stream)


async def test_an_upgrade_that_is_ignored_keeps_the_connection(serving: Serving, clock: trio.testing.MockClock) -> None:
    request = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    async with serving() as caller, await caller.connect(request) as stream:
        for _ in range(2):
            head, _ = await one_answer(stream)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close" not in head.lower()
            await stream.send_all(HEALTH)


async def test_a_client_that_waits_for_word_to_send_its_body_gets_it(
    line: FakeLine, serving: Serving, clock: trio.testing.MockClock
) -> None:
    line.script = answers
    async with serving() as caller, await caller.connect(post(b"Expect: 100-continue", length=len(BODY))) as stream:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += await stream.receive_some(65536)
        interim, _, rest = seen.partition(b"\r\n\r\n")
        assert interim.startswith(b"HTTP/1.1 100 Continue\r\n")
        await stream.send_all(BODY)
        assert (await one_answer(stream, rest))[0].startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_client_that_asks_for_the_end_gets_it(
    version: bytes, serving: Serving, clock: trio.testing.MockClock
) -> None:
    request = b"GET /health HTTP/" + version + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with serving() as caller, await caller.connect(request) as stream:
        head, _ = await one_answer(stream)
        assert head.lower().count(b"\r\nconnection: close") == 1
        assert await ends(stream)
