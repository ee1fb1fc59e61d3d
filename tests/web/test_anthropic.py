"""Anthropic's dialect through the app: what an answer's headers are, and what takes no place in the line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import h11
import msgspec
import pytest
import trio
import trio.testing

from llm_queue.core.jobs import Lane
from llm_queue.errors import (
    AttemptTimedOut,
    ConnectionLost,
    Draining,
    LineFull,
    PromptTooLong,
    QueueError,
    UpstreamRefused,
    UpstreamUnreachable,
    WaitExpired,
)
from llm_queue.settings import Settings
from llm_queue.upstream.protocol import Model
from llm_queue.web.app import create_quart
from llm_queue.web.stream import QUIET
from llm_queue.wire.callers.anthropic_answer import PINGS
from llm_queue.wire.shapes import ChatRequest, Completion, Delta
from tests.web.conftest import Caller
from tests.web.test_app import fails, says

HELLO = {"model": "small", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
VERSION = {"anthropic-version": "2023-06-01"}

Serving = Callable[[], AbstractAsyncContextManager[Caller]]


async def ask(line: Any, body: Any = HELLO, path: str = "/v1/messages", **settings: Any) -> Any:
    client = create_quart(Settings(model="small", **settings), line).test_client()
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    response: Any = await client.post(path, data=data, headers=VERSION)
    response.parsed = msgspec.json.decode(await response.get_data())
    return response


async def get(line: Any, path: str, headers: dict[str, str] = VERSION) -> tuple[int, Any]:
    response = await create_quart(Settings(model="small"), line).test_client().get(path, headers=headers)
    return response.status_code, msgspec.json.decode(await response.get_data())


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_a_whole_answer(line: Any) -> None:
    line.script = says("hi")
    response = await ask(line, path="/v1/messages?beta=true")
    assert response.status_code == 200
    assert response.parsed["content"] == [{"type": "text", "text": "hi"}]
    assert response.parsed["usage"]["input_tokens"] == 10
    assert response.headers["X-LLM-Queue-Job"] == "job_0"


async def test_what_the_body_says_to_the_line(line: Any) -> None:
    line.script = says("hi")
    more = {"service_tier": "priority", "metadata": {"user_id": "s-1"}, "context_management": {}}
    response = await ask(line, HELLO | more)
    submission = line.tickets[0].submission
    assert (submission.lane, submission.session) == (Lane.INTERACTIVE, "s-1")
    assert response.headers["X-LLM-Queue-Dropped"] == "context_management"


async def test_a_job_has_the_fingerprint_of_what_every_step_begins_with(line: Any) -> None:
    line.script = says("hi")
    billing = "x-anthropic-billing-header: cch={};\n"
    for turn, system in enumerate([billing.format("0a"), billing.format("1b"), "", "Else. "]):
        await ask(line, HELLO | {"system": system + "Be brief.", "messages": [{"role": "user", "content": f"{turn}"}]})
    first, second, third, fourth = (ticket.submission.fingerprint.fixed for ticket in line.tickets)
    assert first == second == third  # what differs in each conversation is left out
    assert fourth != first


@pytest.mark.parametrize(
    ("error", "status", "kind", "headers"),
    [
        (LineFull(retry_after=7), 429, "rate_limit_error", {"Retry-After": "7"}),
        (Draining(retry_after=3), 503, "overloaded_error", {"Retry-After": "3"}),
        (WaitExpired(), 503, "api_error", {"X-Should-Retry": "false"}),
        (AttemptTimedOut(), 504, "timeout_error", {"X-Should-Retry": "false"}),
        (UpstreamRefused("no", status=404), 404, "not_found_error", {}),
    ],
)
async def test_errors_are_in_anthropics_shape(
    line: Any, error: QueueError, status: int, kind: str, headers: dict[str, str]
) -> None:
    line.script = fails(error)
    response = await ask(line)
    assert (response.status_code, response.parsed["error"]["type"]) == (status, kind)
    assert {name: response.headers.get(name) for name in headers} == headers


async def test_a_prompt_that_is_too_long(line: Any) -> None:
    line.error = PromptTooLong(tokens=9000, maximum=8192)
    response = await ask(line)
    assert (response.status_code, response.parsed["error"]["message"]) == (
        400,
        "prompt is too long: 9000 tokens > 8192 maximum",
    )


async def test_a_wrong_request_is_refused_before_it_is_queued(line: Any) -> None:
    response = await ask(line, {"model": "small", "messages": HELLO["messages"]})
    assert (response.status_code, response.parsed["error"]["type"]) == (400, "invalid_request_error")
    assert response.parsed["error"]["message"].startswith("max_tokens")
    assert line.tickets == []


async def test_an_unknown_model_is_not_found(line: Any) -> None:
    response = await ask(line, HELLO | {"model": "claude-haiku-4-5"})
    assert (response.status_code, response.parsed["error"]["type"]) == (404, "not_found_error")


async def read_events(stream: trio.SocketStream, began: float, seen: list[tuple[float, str]]) -> None:
    """Keep what stands in each event's data, with the seconds since ``began``, until the answer ends."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    text = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Data):
            text += bytes(event.data)
            *whole, text = text.split(b"\n\n")
            now = trio.current_time() - began
            seen.extend((now, one.decode().partition("data: ")[2]) for one in whole)


async def test_a_wait_of_330_seconds_ends_in_an_answer(
    line: Any, serving: Serving, clock: trio.testing.MockClock
) -> None:
    """Each piece of text with nothing in it is an event that Claude Code counts, and none is more than 30 s away."""
    seen: list[tuple[float, str]] = []
    async with serving() as caller:
        body = msgspec.json.encode(HELLO | {"stream": True})
        head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        began = trio.current_time()
        async with (
            await caller.connect(head % len(body) + body) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(read_events, stream, began, seen)
            await line.submitted.wait()
            await trio.sleep(330)
            line.tickets[0].put(Delta(thinking="hm"))
            line.tickets[0].put(Delta("hello"))
            line.tickets[0].settle(Completion("stop", 3, 1))
    counted = [when for when, event in seen if "_delta" in event]
    assert counted[0] <= QUIET * (PINGS + 1) + 1
    assert max(after - before for before, after in itertools.pairwise(counted)) <= QUIET + 1
    assert sum(event == '{"type":"ping"}' for _, event in seen) == PINGS
    blocks = [json.loads(event) for _, event in seen if "content_block_start" in event]
    assert [(block["index"], block["content_block"]["type"]) for block in blocks] == [
        (0, "text"),
        (1, "thinking"),
        (2, "text"),
    ]
    assert json.loads(seen[-1][1]) == {"type": "message_stop"}


# --- counting tokens --------------------------------------------------------------------------------------------------

COUNT = {"model": "small", "messages": HELLO["messages"]}
COUNT_PATH = "/v1/messages/count_tokens"


async def test_tokens_are_counted_where_the_engine_can(line: Any) -> None:
    line.counted = 12
    response = await ask(line, COUNT, COUNT_PATH)
    assert (response.status_code, response.parsed) == (200, {"input_tokens": 12})
    assert "X-LLM-Queue-Estimate" not in response.headers
    assert isinstance(line.asked_to_count[0], ChatRequest)


async def test_an_estimate_says_that_it_is_one(line: Any) -> None:
    response = await ask(line, COUNT | {"container": "c"}, COUNT_PATH)
    assert (response.status_code, response.parsed) == (200, {"input_tokens": 7})
    assert response.headers["X-LLM-Queue-Estimate"] == "tokens"
    assert response.headers["X-LLM-Queue-Dropped"] == "container"


async def test_fourteen_at_once_are_counted_while_the_slot_is_busy(line: Any) -> None:
    answers: list[Any] = []

    async def count() -> None:
        answers.append(await ask(line, COUNT, COUNT_PATH))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, line)  # whose job never runs
        await line.submitted.wait()
        async with trio.open_nursery() as counting:
            for _ in range(14):
                counting.start_soon(count)
        nursery.cancel_scope.cancel()
    assert [answer.parsed for answer in answers] == [{"input_tokens": 7}] * 14
    assert len(line.tickets) == 1


@pytest.mark.parametrize("error", [UpstreamUnreachable(), ConnectionLost()])
async def test_without_the_engine_tokens_are_estimated(line: Any, error: QueueError) -> None:
    line.catalog.error = error
    line.counted = 12
    assert (await ask(line, COUNT, COUNT_PATH)).parsed == {"input_tokens": 7}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (COUNT | {"messages": [{"role": "system", "content": ""}]}, 400),
        (COUNT | {"model": "missing"}, 404),
        (COUNT | {"max_tokens": 0}, 400),
        (COUNT | {"system": "x" * 2000}, 413),
        (b"nonsense", 400),
    ],
)
async def test_what_cannot_be_counted_is_refused_as_a_message_is(line: Any, body: Any, status: int) -> None:
    response = await ask(line, body, COUNT_PATH, max_body=1000)
    assert (response.status_code, response.parsed["type"]) == (status, "error")


async def test_bodies_that_are_counted_share_the_bound_on_what_arrives(line: Any) -> None:
    response = await ask(line, COUNT, COUNT_PATH, max_waiting_bytes=10)
    assert (response.status_code, response.parsed["error"]["type"]) == (429, "rate_limit_error")


# --- models -----------------------------------------------------------------------------------------------------------


async def test_models_are_listed_in_anthropics_shape_for_its_clients(line: Any) -> None:
    line.catalog.listed.append(Model("other", "sha2", created=8))
    status, body = await get(line, "/v1/models?limit=1")
    assert (status, [model["id"] for model in body["data"]], body["has_more"]) == (200, ["small"], True)
    assert body["data"][0]["max_input_tokens"] == 16384
    assert (await get(line, "/v1/models", {}))[1]["object"] == "list"
    status, body = await get(line, "/v1/models?after_id=nothing")
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


async def test_models_are_listed_from_memory_while_the_engine_is_away(line: Any) -> None:
    line.catalog.error = UpstreamUnreachable()
    assert [model["id"] for model in (await get(line, "/v1/models"))[1]["data"]] == ["small"]
    line.catalog.listed = []
    assert (await get(line, "/v1/models"))[0] == 502


async def test_one_model(line: Any) -> None:
    status, body = await get(line, "/v1/models/small")
    assert (status, body["id"], body["type"]) == (200, "small", "model")
    status, body = await get(line, "/v1/models/missing")
    assert (status, body["error"]["type"]) == (404, "not_found_error")
