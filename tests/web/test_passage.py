"""What changes Ollama, passed on over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trio

from llm_queue.errors import ConnectionLost, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.upstream.protocol import NativeAnswer
from llm_queue.web.app import create_app
from llm_queue.web.listener import open_listeners, serve_http
from tests.web.conftest import Caller, FakeLine

Begin = Callable[[int, str], Awaitable[None]]
Write = Callable[[bytes], Awaitable[None]]


class FakeOllama:
    """Takes what it is sent; ``script`` answers."""

    def __init__(self, script: Callable[[Begin, Write], Awaitable[None]]) -> None:
        self.script = script
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        self.gave_up = trio.Event()

    async def ask(self, method: str, path: str, body: bytes = b"", *, program: str = "") -> NativeAnswer:
        raise NotImplementedError

    async def relay(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        begin: Begin,
        write: Write,
    ) -> None:
        received = b""
        try:
            async for piece in body:
                received += piece
            self.got.append((method, path, dict(headers), received))
            await self.script(begin, write)
        except trio.Cancelled:
            self.gave_up.set()
            raise


async def pulls(begin: Begin, write: Write) -> None:
    await begin(200, "application/x-ndjson")
    await write(b'{"status":"one"}\n')
    await write(b'{"status":"success"}\n')


async def asking(
    line: FakeLine, ollama: FakeOllama | None, data: bytes, *, until: bytes = b"", **settings: Any
) -> bytes:
    """What comes back for ``data``, up to ``until``; or to the end of the connection."""
    line.ollama = ollama
    listeners, _ = await open_listeners("127.0.0.1", 0)
    shutdown, answer = trio.Event(), b""
    async with trio.open_nursery() as nursery:
        app = create_app(Settings(model="small", max_body=1000, allow_ollama_admin=True, **settings), line)
        await nursery.start(partial(serve_http, app, listeners, shutdown=shutdown))
        caller = Caller(listeners[0].socket.getsockname()[1], shutdown)
        async with await caller.connect(data) as stream:
            while not (until and until in answer) and (piece := await stream.receive_some(65536)):
                answer += bytes(piece)
        if ollama is not None and until:
            with trio.fail_after(5):
                await ollama.gave_up.wait()
        shutdown.set()
    return answer


def request(method: str, path: str, body: bytes, *more: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


async def test_a_pull_is_streamed_both_ways(clock: Any, line: FakeLine) -> None:
    ollama = FakeOllama(pulls)
    body = b'{"model":"x"}'
    answer = await asking(line, ollama, request("POST", "/api/pull", body, "Authorization: Bearer any", "Cookie: a=b"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"content-type: application/x-ndjson" in answer
    assert b'{"status":"one"}' in answer
    assert b'{"status":"success"}' in answer
    assert ollama.got == [("POST", "/api/pull", {"content-length": "13"}, body)]
    assert line.tickets == []


async def test_a_file_larger_than_any_request_passes(clock: Any, line: FakeLine) -> None:
    async def created(begin: Begin, write: Write) -> None:
        await begin(201, "text/plain")

    ollama, body = FakeOllama(created), b"x" * 500_000
    answer = await asking(line, ollama, request("POST", "/api/blobs/sha256:ab", body))
    assert answer.startswith(b"HTTP/1.1 201")
    assert ollama.got[0][3] == body


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/copy/"), ("DELETE", "/api/delete"), ("HEAD", "/api/blobs/sha256:ab")]
)
async def test_what_else_is_passed_on(clock: Any, line: FakeLine, method: str, path: str) -> None:
    async def done(begin: Begin, write: Write) -> None:
        await begin(200, "text/plain")

    ollama = FakeOllama(done)
    assert (await asking(line, ollama, request(method, path, b"{}"))).startswith(b"HTTP/1.1 200")
    assert ollama.got[0][:2] == (method, path.rstrip("/"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/pull", 405),
        ("POST", "/api/delete", 405),
        ("POST", "/api/me", 404),
        ("POST", "/api/blobs/../me", 404),
    ],
)
async def test_nothing_else_is(clock: Any, line: FakeLine, method: str, path: str, status: int) -> None:
    ollama = FakeOllama(pulls)
    answer = await asking(line, ollama, request(method, path, b"{}"))
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert ollama.got == []


async def test_a_web_page_of_elsewhere_changes_nothing(clock: Any, line: FakeLine) -> None:
    ollama = FakeOllama(pulls)
    answer = await asking(line, ollama, request("POST", "/api/pull", b"{}", "Origin: https://evil.example"))
    assert answer.startswith(b"HTTP/1.1 403")
    assert ollama.got == []


async def test_where_there_is_no_ollama_nothing_is_passed_on(clock: Any, line: FakeLine) -> None:
    answer = await asking(line, None, request("DELETE", "/api/delete", b"{}"))
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"no Ollama" in answer


async def test_an_ollama_that_is_away_is_an_error_in_its_own_shape(clock: Any, line: FakeLine) -> None:
    async def away(begin: Begin, write: Write) -> None:
        await trio.lowlevel.checkpoint()
        raise UpstreamUnreachable("it is away")

    head, _, body = (await asking(line, FakeOllama(away), request("POST", "/api/pull", b"{}"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502")
    assert json.loads(body) == {"error": "it is away"}
    assert line.refused == [("upstream_unreachable", "unknown")]


async def test_what_breaks_in_the_middle_ends_in_a_line_that_says_so(clock: Any, line: FakeLine) -> None:
    async def breaks(begin: Begin, write: Write) -> None:
        await begin(200, "application/x-ndjson")
        await write(b'{"status":"one"}\n')
        raise ConnectionLost("it broke off")

    answer = await asking(line, FakeOllama(breaks), request("POST", "/api/pull", b"{}"))
    assert b'{"error":"it broke off"}' in answer


async def test_a_caller_who_leaves_ends_it(clock: Any, line: FakeLine) -> None:
    async def endless(begin: Begin, write: Write) -> None:
        await begin(200, "application/x-ndjson")
        await write(b'{"status":"one"}\n')
        await trio.sleep_forever()

    ollama = FakeOllama(endless)
    await asking(line, ollama, request("POST", "/api/pull", b"{}"), until=b"one")
    assert ollama.gave_up.is_set()
