"""The end of a request, with a server that behaves like hypercorn: it reports the end before it has come to it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from llm_queue.settings import Settings
from llm_queue.web.app import create_quart

SCOPE = {
    "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/health", "root_path": "",
    "query_string": b"", "headers": [(b"host", b"localhost")],
}  # fmt: skip


async def serve_one(line: Any, closing_takes: float) -> bool:
    """Serve one request; the server needs so many seconds to close. True if it came to its end."""
    over = trio.Event()
    closed = False

    async def receive() -> Any:
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal closed
        if message["type"] == "http.response.body" and not message["more_body"]:
            over.set()
            await trio.sleep(closing_takes)
            closed = True

    await create_quart(Settings(), line)(dict(SCOPE), receive, send)  # type: ignore[arg-type]  # a scope by hand
    return closed


async def test_the_last_message_is_not_cut_off_by_the_end_it_causes(
    line: Any, autojump_clock: trio.testing.MockClock
) -> None:
    assert await serve_one(line, 1.0)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health"])
async def test_a_caller_that_leaves_before_its_body_is_there_is_no_error(
    line: Any, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        await trio.testing.wait_all_tasks_blocked()
        return messages.pop(0)

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()

    scope = SCOPE | {"path": path, "method": "POST", "headers": [(b"host", b"localhost"), (b"content-length", b"9")]}
    await create_quart(Settings(), line)(scope, receive, send)  # type: ignore[arg-type]  # a scope by hand
    assert not caplog.records
    assert [code for code, _ in line.refused] in ([], ["method_not_allowed"])


async def test_a_last_message_that_nobody_takes_is_given_up(line: Any, autojump_clock: trio.testing.MockClock) -> None:
    assert not await serve_one(line, 1000.0)
    assert trio.current_time() == pytest.approx(2.0)


async def test_a_body_that_nobody_reads_is_dropped_while_the_response_is_sent(line: Any) -> None:
    received = 0

    async def receive() -> Any:
        nonlocal received
        await trio.lowlevel.checkpoint()
        received += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": received < 20}

    async def send(message: Any) -> None:
        await trio.testing.wait_all_tasks_blocked()

    scope = SCOPE | {"headers": [(b"host", b"localhost"), (b"content-length", b"20000")]}
    await create_quart(Settings(), line)(scope, receive, send)  # type: ignore[arg-type]  # a scope by hand
    assert received == 20


async def test_a_caller_that_leaves_while_a_body_is_dropped_ends_the_request(
    line: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def receive() -> Any:
        await trio.sleep(1)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            await trio.sleep(1000)

    await create_quart(Settings(), line)(dict(SCOPE), receive, send)  # type: ignore[arg-type]  # a scope by hand
    assert trio.current_time() == pytest.approx(1.0)
