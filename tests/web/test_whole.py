"""Whole answers that take long, on real loopback sockets: when the headers leave, and what becomes of an error then."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import openai
import pytest
import trio

from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import QueueError, UpstreamBroke
from llm_queue.web import endpoint, whole
from llm_queue.web.stream import QUIET
from llm_queue.web.whole import PATIENCE
from llm_queue.wire.shapes import Answer, Completion, Delta
from tests.web.test_stream import everything, request, run, until

Serving = Callable[[], AbstractAsyncContextManager[Any]]

ANSWER = Answer(Delta(content="late"), Completion("stop", 1, 2))


async def settle_after(line: Any, seconds: float, outcome: Answer | Completion | QueueError) -> None:
    await line.submitted.wait()
    ticket: Ticket = line.tickets[0]
    run(ticket)
    await trio.sleep(seconds)
    if isinstance(outcome, Completion):
        ticket.put(Delta(content="late"))
    ticket.settle(outcome)


# --- on the wire ---


async def test_an_answer_that_comes_in_time_has_its_length_and_nothing_before_it(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(settle_after, line, PATIENCE - 1, ANSWER)
    async with serving() as server, await server.connect(request()) as stream:
        head, _, body = (await until(stream, b"}\n")).partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head.lower()
    assert body.startswith(b"{")


async def test_the_headers_of_a_late_answer_leave_before_clients_give_up_and_white_space_follows(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(settle_after, line, 329, ANSWER)
    async with serving() as server, await server.connect(request()) as stream:
        began = trio.current_time()
        head = await until(stream, b"\r\n\r\n")
        assert trio.current_time() - began == pytest.approx(PATIENCE, abs=1)
        assert b"HTTP/1.1 200" in head
        assert b"content-type: application/json" in head.lower()
        assert b"x-llm-queue-job: job_0" in head.lower()
        assert b"x-llm-queue-num-ctx: 8192" in head.lower()
        data = head.partition(b"\r\n\r\n")[2] + await until(stream, b"0\r\n\r\n")
        words = data.split(b"1\r\n \r\n")
        assert len(words) - 1 == (330 - PATIENCE) / QUIET
        assert trio.current_time() - began == pytest.approx(329, abs=1)
        assert json.loads(chunks(data).decode())["choices"][0]["message"]["content"] == "late"
    assert line.left == []


async def test_the_connection_of_a_late_answer_goes_on(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(settle_after, line, 300, ANSWER)
    async with serving() as server, await server.connect(request()) as stream:
        await until(stream, b"0\r\n\r\n")
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" in await until(stream, b"ok")


async def test_an_error_after_the_headers_is_in_the_body_which_has_no_end(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(settle_after, line, 330, UpstreamBroke("it broke"))
    async with serving() as server, await server.connect(request()) as stream:
        data = await everything(stream)
    body = data.partition(b"\r\n\r\n")[2]
    assert not body.endswith(b"0\r\n\r\n")
    assert json.loads(chunks(body).decode())["error"]["code"] == "upstream_broke"
    assert line.left == []


async def test_who_leaves_while_white_space_comes_has_left(clock: Any, line: Any, serving: Serving) -> None:
    async with serving() as server:
        async with await server.connect(request()) as stream:
            await until(stream, b"1\r\n \r\n")
            assert line.left == []
        await line.gone.wait()
    assert line.left == ["job_0"]


async def test_an_older_client_that_has_no_chunks_waits_for_the_true_status(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(settle_after, line, 330, UpstreamBroke("it broke"))
    async with serving() as server, await server.connect(request(version=b"1.0")) as stream:
        assert b" 502 " in (await everything(stream)).partition(b"\r\n")[0]


async def test_that_a_prompt_was_probably_cut_is_logged_also_when_it_is_too_late_for_a_header(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    warned: list[Ticket] = []
    nursery.start_soon(settle_after, line, 330, Answer(Delta(), Completion("stop", truncated=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "warn_truncated", warned.append)
        async with serving() as server, await server.connect(request()) as stream:
            await until(stream, b"0\r\n\r\n")
    assert warned == line.tickets


def chunks(body: bytes) -> bytes:
    """The content of a chunked body, whether it has an end or not."""
    content = b""
    while body and not body.startswith(b"0\r\n"):
        size, _, rest = body.partition(b"\r\n")
        content, body = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return content


# --- as a client sees it that gives up after 300 s of silence ---


def client_of(server: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="any", timeout=300.0, max_retries=0
    )


async def ask_whole(client: openai.AsyncOpenAI) -> str | None:
    answer = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "hello"}])
    return answer.choices[0].message.content


async def ask_stream(client: openai.AsyncOpenAI) -> str | None:
    stream = await client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    async with stream:
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # generators that the SDK leaves open
@pytest.mark.parametrize(("ask", "outcome"), [(ask_whole, ANSWER), (ask_stream, Completion("stop", 1, 2))])
async def test_openais_sdk_waits_330_seconds_for_its_answer(
    ask: Callable[[openai.AsyncOpenAI], Awaitable[str | None]],
    outcome: Answer | Completion,
    clock: Any,
    line: Any,
    serving: Serving,
    nursery: trio.Nursery,
) -> None:
    nursery.start_soon(settle_after, line, 330, outcome)
    async with serving() as server, client_of(server) as client:
        began = trio.current_time()
        assert await ask(client) == "late"
        assert trio.current_time() - began == pytest.approx(330, abs=1)


async def test_openais_sdk_takes_a_late_error_for_no_answer(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery
) -> None:
    nursery.start_soon(settle_after, line, 330, UpstreamBroke("it broke"))
    async with serving() as server, client_of(server) as client:
        with pytest.raises(openai.APIConnectionError):
            await ask_whole(client)


async def test_without_word_openais_sdk_would_have_given_up(
    clock: Any, line: Any, serving: Serving, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 1000.0)
    nursery.start_soon(settle_after, line, 330, ANSWER)
    async with serving() as server, client_of(server) as client:
        with pytest.raises(openai.APITimeoutError):
            await ask_whole(client)
