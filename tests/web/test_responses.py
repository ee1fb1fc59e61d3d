"""The Responses dialect over HTTP: answers, waiting, failures, and what is not stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.tickets import Place, Ticket
from llm_queue.errors import LineFull, Unfinished, UpstreamBroke, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.web.app import create_quart
from llm_queue.wire.shapes import Answer, Completion, Delta
from tests.web.test_stream import run, until

Serving = Callable[[], AbstractAsyncContextManager[Any]]

HELLO = {"model": "small", "input": "hello"}
STOP = Completion("stop", 10, 2)


def says(ticket: Ticket) -> None:
    run(ticket)
    ticket.settle(Answer(Delta(content="  hello\n"), STOP))


async def ask(line: Any, body: Any = HELLO, path: str = "/v1/responses", method: str = "POST") -> Any:
    client: Any = create_quart(Settings(model="small"), line).test_client()
    response = await client.open(path, method=method, data=msgspec.json.encode(body))
    response.parsed = msgspec.json.decode(await response.get_data())
    return response


def request(**fields: Any) -> bytes:
    body = msgspec.json.encode(HELLO | {"stream": True} | fields)
    return b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def events(data: bytes) -> list[Any]:
    """The events in a stretch of a stream that was sent in chunks."""
    return [json.loads(line.removeprefix(b"data: ")) for line in data.split(b"\n") if line.startswith(b"data: ")]


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
async def test_a_whole_answer_comes_back_verbatim(line: Any, path: str) -> None:
    line.script = says
    response = await ask(line, HELLO | {"tools": [{"type": "web_search"}], "service_tier": "flex"}, path)
    assert response.status_code == 200
    assert response.parsed["output"][0]["content"][0]["text"] == "  hello\n"
    assert (response.parsed["model"], response.parsed["service_tier"]) == ("small", "flex")
    assert response.headers["X-LLM-Queue-Dropped"] == "tools.web_search"
    assert response.headers["X-LLM-Queue-Job"] == "job_0"
    assert line.tickets[0].submission.lane is Lane.BACKGROUND


async def test_the_key_of_the_prompt_cache_is_the_session(line: Any) -> None:
    line.script = says
    await ask(line, HELLO | {"prompt_cache_key": "thread-7"})
    assert line.tickets[0].submission.session == "thread-7"


async def test_errors_have_openai_s_shape_and_their_status(line: Any) -> None:
    response = await ask(line, HELLO | {"previous_response_id": "resp_1"})
    assert response.status_code == 400
    error = response.parsed["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "previous_response_id")
    line.error = LineFull(retry_after=7)
    response = await ask(line)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
    ],
)
async def test_nothing_is_stored_and_who_asks_for_it_is_told_so(line: Any, method: str, path: str) -> None:
    response = await ask(line, path=path, method=method)
    assert response.status_code == 404
    assert response.parsed["error"]["type"] == "not_found_error"
    assert "resp_1" in response.parsed["error"]["message"]
    assert "store" in response.parsed["error"]["message"]


async def test_the_tokens_of_a_prompt_are_estimated_beside_the_line(line: Any) -> None:
    asked = HELLO | {"tools": [{"type": "web_search"}]}
    response = await ask(line, asked, "/v1/responses/input_tokens")
    assert response.parsed == {"object": "response.input_tokens", "input_tokens": 7}
    assert response.headers["X-LLM-Queue-Estimate"] == "tokens"
    assert response.headers["X-LLM-Queue-Dropped"] == "tools.web_search"
    assert line.tickets == []
    line.catalog.error = UpstreamUnreachable()
    response = await ask(line, path="/v1/responses/input_tokens")
    assert response.parsed["input_tokens"] == 7
    assert "X-LLM-Queue-Dropped" not in response.headers


async def test_the_tokens_of_a_bad_request_or_of_no_model_are_an_error(line: Any) -> None:
    assert (await ask(line, {}, "/v1/responses/input_tokens")).status_code == 400
    assert (await ask(line, HELLO | {"model": "none"}, "/v1/responses/input_tokens")).status_code == 404


async def test_a_stream_that_waits_hears_events_and_not_only_comments(clock: Any, line: Any, serving: Serving) -> None:
    async with serving() as server, await server.connect(request()) as stream:
        started = trio.current_time()
        data = await until(stream, b"event: response.queued")
        assert b"HTTP/1.1 200" in data
        assert b"text/event-stream" in data
        assert trio.current_time() - started == pytest.approx(10, abs=1)
        assert data.index(b"event: response.created") < data.index(b": queued, 3 ahead, about 40 s\n")
        line.where = Place(0, None, loading=True)
        data += await until(stream, b": loading\n")
        run(line.tickets[0])
        line.tickets[0].put(Delta(content="late"))
        line.tickets[0].settle(STOP)
        data += await until(stream, b"0\r\n\r\n")
    told = events(data)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    kinds = [event["type"].removeprefix("response.") for event in told]
    assert kinds[:4] == ["created", "queued", "in_progress", "output_item.added"]
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "late"
    assert b"[DONE]" not in data


@pytest.mark.parametrize(
    ("error", "code"),
    [(UpstreamBroke("It broke."), "server_error"), (Unfinished(retry_after=5), "rate_limit_exceeded")],
)
async def test_a_failure_after_the_headers_is_an_event(
    clock: Any, line: Any, serving: Serving, error: Any, code: str
) -> None:
    line.script = run
    async with serving() as server, await server.connect(request()) as stream:
        await line.submitted.wait()
        line.tickets[0].put(Delta(content="half"))
        await until(stream, b'"delta":"half"')
        line.tickets[0].settle(error)
        [failed] = events(await until(stream, b"0\r\n\r\n"))
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == code


async def test_a_failure_before_the_headers_has_its_real_status(clock: Any, line: Any, serving: Serving) -> None:
    line.script = lambda ticket: ticket.settle(UpstreamBroke())
    async with serving() as server, await server.connect(request()) as stream:
        head = await until(stream, b"upstream_broke")
    assert b"HTTP/1.1 502" in head
    assert b"x-should-retry: false" in head.lower()
