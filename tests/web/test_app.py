"""The app behind the gate, through Quart's own client; and the gate around every route that there is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import structlog
import structlog.testing
import trio
import trio.testing
from structlog.testing import capture_logs
from werkzeug.datastructures import Headers

from llm_queue.core.jobs import Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import (
    AttemptTimedOut,
    Draining,
    LineFull,
    QueueError,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamUnreachable,
    WaitExpired,
)
from llm_queue.settings import Settings
from llm_queue.upstream.protocol import Model
from llm_queue.web.app import create_app, create_quart
from llm_queue.web.clients import client_of
from llm_queue.web.gate import OPEN
from llm_queue.web.visit import Permit
from llm_queue.wire.shapes import Answer, Completion, Delta, EmbedRequest, TextRequest

HELLO = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}


def says(*words: str, completion: Completion | None = None) -> Any:
    """A line that runs the job at once and says these words."""

    def script(ticket: Ticket) -> None:
        job = ticket.job
        job.key = RunnerKey("sha", 8192)
        job.move(State.RUNNING, 12.5)
        job.busy_since = 12.5
        job.load_seconds = 0.5
        ticket.settle(Answer(Delta(content="".join(words)), completion or Completion("stop", 10, 2)))

    return script


def fails(error: QueueError) -> Any:
    return lambda ticket: ticket.settle(error)


async def ask(line: Any, body: Any = HELLO, headers: dict[str, str] | None = None, **settings: Any) -> Any:
    client = create_quart(Settings(model="small", **settings), line).test_client()
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    response: Any = await client.post("/v1/chat/completions", data=data, headers=headers or {})
    response.parsed = None
    if response.content_type == "application/json":
        response.parsed = msgspec.json.decode(await response.get_data())
    return response


async def test_a_whole_answer_comes_back_verbatim(line: Any) -> None:
    line.script = says("  hel", "lo\n")
    response = await ask(line)
    assert response.status_code == 200
    assert response.parsed["choices"][0]["message"]["content"] == "  hello\n"
    assert response.parsed["model"] == "small"


async def post(line: Any, path: str, body: Any) -> Any:
    client = create_quart(Settings(model="small"), line).test_client()
    response: Any = await client.post(path, data=msgspec.json.encode(body))
    response.text = (await response.get_data()).decode()
    return response


@pytest.mark.parametrize("path", ["/v1/completions", "/completions"])
async def test_a_text_goes_through_the_line_whole_and_streamed(line: Any, path: str) -> None:
    line.script = says(" upon a time")
    response = await post(line, path, {"prompt": "Once", "max_tokens": 3})
    assert msgspec.json.decode(response.text)["choices"][0]["text"] == " upon a time"
    assert line.tickets[0].submission.request == TextRequest("small", "Once", max_tokens=3)

    def streams(ticket: Ticket) -> None:
        ticket.put(Delta(" upon"))
        ticket.settle(Completion("stop", 10, 2))

    line.script = streams
    response = await post(line, path, {"prompt": "Once", "stream": True})
    assert response.content_type == "text/event-stream; charset=utf-8"
    assert '"text":" upon"' in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
async def test_texts_to_embed_go_through_the_line(line: Any, path: str) -> None:
    vectors = ((0.5, 1.0), (2.0, 0.25))
    line.script = lambda ticket: ticket.settle(Answer(Delta(), Completion("stop", 3), vectors))
    response = await post(line, path, {"input": ["a", "b"], "dimensions": 2, "priority": "background"})
    parsed = msgspec.json.decode(response.text)
    assert [item["embedding"] for item in parsed["data"]] == [[0.5, 1.0], [2.0, 0.25]]
    assert line.tickets[0].submission.request == EmbedRequest("small", ("a", "b"), 2)
    assert (line.tickets[0].submission.lane, response.headers["X-LLM-Queue-Lane"]) == (Lane.BACKGROUND, "background")


async def test_vectors_that_do_not_fit_the_texts_are_a_502(line: Any) -> None:
    line.script = lambda ticket: ticket.settle(Answer(Delta(), Completion("stop", 3), ()))
    response = await post(line, "/v1/embeddings", {"input": "a"})
    assert (response.status_code, msgspec.json.decode(response.text)["error"]["code"]) == (502, "upstream_broke")


async def test_the_headers_say_what_became_of_the_job(line: Any) -> None:
    line.script = says("hi")
    response = await ask(line, HELLO | {"num_gpu": 3})
    names = ("Job", "Lane", "Wait-Ms", "Load-Ms", "Attempts", "Num-Ctx", "Dropped")
    got = [response.headers[f"X-LLM-Queue-{name}"] for name in names]
    assert got == ["job_0", "normal", "2000", "500", "1", "8192", "num_gpu"]
    assert "X-LLM-Queue-Truncated" not in response.headers


async def test_a_prompt_that_was_probably_cut_is_reported(line: Any) -> None:
    line.script = says("hi", completion=Completion("stop", 8190, 1, truncated=True))
    with structlog.testing.capture_logs() as logs:
        response = await ask(line)
    assert response.headers["X-LLM-Queue-Truncated"] == "maybe"
    assert "numCtx" in logs[0]["event"]
    assert logs[0]["num_ctx"] == 8192


async def test_the_submission_says_what_the_caller_said(line: Any) -> None:
    line.script = says("hi")
    await ask(
        line, HELLO | {"priority": True, "numCtx": 16384}, {"X-LLM-Queue-Max-Wait": "2.5", "User-Agent": "curl/8"}
    )
    submission = line.tickets[0].submission
    assert (submission.lane, submission.num_ctx, submission.max_wait) == (Lane.INTERACTIVE, 16384, 2.5)
    assert (submission.client, submission.model.name) == ("curl", "small")


async def test_the_lane_header_wins_over_the_body(line: Any) -> None:
    line.script = says("hi")
    response = await ask(line, HELLO | {"priority": True}, {"X-LLM-Queue-Lane": "background"})
    assert line.tickets[0].job.lane is Lane.BACKGROUND
    assert response.parsed["service_tier"] == "flex"


async def test_a_request_without_a_model_gets_the_configured_one(line: Any) -> None:
    line.script = says("hi")
    response = await ask(line, {"messages": HELLO["messages"]})
    assert response.parsed["model"] == "small"


async def test_while_the_upstream_is_away_jobs_are_accepted(line: Any) -> None:
    line.script = says("hi")
    line.catalog.error = UpstreamUnreachable()
    assert (await ask(line)).status_code == 200
    assert line.tickets[0].submission.model is None


@pytest.mark.parametrize(
    ("error", "status", "should_retry"),
    [
        (AttemptTimedOut(), 504, "false"),
        (UpstreamBroke(), 502, "false"),
        (WaitExpired(), 503, "false"),
        (UpstreamRefused("no", status=418), 418, None),
        (Draining(retry_after=3), 503, None),
    ],
)
async def test_an_error_of_the_job_is_the_answer(
    line: Any, error: QueueError, status: int, should_retry: str | None
) -> None:
    line.script = fails(error)
    for body in (HELLO, HELLO | {"stream": True}):
        response = await ask(line, body)
        assert response.status_code == status
        assert response.parsed["error"]["code"] == error.code
        assert response.headers.get("x-should-retry") == should_retry
        assert response.headers["X-LLM-Queue-Job"].startswith("job_")
    assert line.refused == []


async def test_a_full_line_says_when_to_come_again(line: Any) -> None:
    line.error = LineFull(retry_after=17)
    response = await ask(line, headers={"User-Agent": "curl/8"})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "17")
    assert "x-should-retry" not in response.headers
    assert line.refused == [("line_full", "curl")]


async def test_a_bad_request_is_refused_and_counted_and_never_queued(line: Any) -> None:
    response = await ask(line, b"{", {"User-Agent": "curl/8"})
    assert (response.status_code, line.tickets) == (400, [])
    assert line.refused == [("invalid_request", "curl")]


async def test_an_unknown_model_is_404_before_the_line(line: Any) -> None:
    response = await ask(line, HELLO | {"model": "none"})
    assert (response.status_code, response.parsed["error"]["code"], line.tickets) == (404, "model_not_found", [])


@pytest.mark.parametrize("wait", ["", "x", "-1", "nan", "inf", "1e999"])
async def test_a_max_wait_that_is_no_number_of_seconds_is_400(line: Any, wait: str) -> None:
    response = await ask(line, HELLO, {"X-LLM-Queue-Max-Wait": wait})
    assert (response.status_code, response.parsed["error"]["param"]) == (400, "X-LLM-Queue-Max-Wait")


async def test_a_body_above_the_limit_is_413(line: Any) -> None:
    response = await ask(line, b"x" * 11, max_body=10)
    assert (response.status_code, response.parsed["error"]["code"]) == (413, "body_too_large")


async def test_a_body_above_the_limit_is_413_without_a_length_too(line: Any) -> None:
    client = create_quart(Settings(max_body=10), line).test_client()
    async with client.request("/v1/chat/completions", method="POST") as connection:
        await connection.send(b"x" * 6)
        await connection.send(b"x" * 6)
        await connection.send_complete()
    assert (await connection.as_response()).status_code == 413


async def test_bodies_that_are_still_arriving_count_as_waiting(
    line: Any, autojump_clock: trio.testing.MockClock
) -> None:
    client = create_quart(Settings(max_waiting_bytes=15), line).test_client()
    async with client.request("/v1/chat/completions", method="POST") as slow:
        await slow.send(b"x" * 10)
        await trio.testing.wait_all_tasks_blocked()
        full = await client.post("/v1/chat/completions", data=b"x" * 10)
        assert full.status_code == 429
        assert full.headers["Retry-After"] == "1"
        await slow.send_complete()
    assert (await slow.as_response()).status_code == 400
    assert (await client.post("/v1/chat/completions", data=b"x" * 10)).status_code == 400


async def test_a_body_that_stops_arriving_is_refused(line: Any, autojump_clock: trio.testing.MockClock) -> None:
    client = create_quart(Settings(), line).test_client()
    async with client.request("/v1/chat/completions", method="POST") as connection:
        await connection.send(b'{"model"')
    assert (await connection.as_response()).status_code == 400
    assert trio.current_time() == pytest.approx(30, abs=1)


async def test_a_bug_is_a_500_in_json(line: Any) -> None:
    line.script = lambda ticket: 1 / 0
    with capture_logs() as logs:
        response = await ask(line)
    assert (response.status_code, response.parsed["error"]["code"]) == (500, "internal_error")
    assert [type(one["exc_info"]) for one in logs if one["log_level"] == "error"] == [ZeroDivisionError]


async def get(line: Any, path: str, method: str = "GET") -> tuple[int, Any, Headers]:
    client: Any = create_quart(Settings(), line).test_client()
    response = await client.open(path, method=method)
    data = await response.get_data()
    parsed = msgspec.json.decode(data) if response.content_type == "application/json" else data
    return response.status_code, parsed, response.headers


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_are_listed(line: Any, path: str) -> None:
    status, parsed, _ = await get(line, path)
    assert (status, [model["id"] for model in parsed["data"]]) == (200, ["small"])


async def test_the_list_of_models_tells_the_context_that_the_line_uses(line: Any) -> None:
    small = line.catalog.listed[0]
    line.catalog.listed.append(msgspec.structs.replace(small, name="tiny", trained=2048))
    line.catalog.listed.append(Model("secret", "sha-2"))
    line.catalog.undescribed = {"secret"}
    _, parsed, _ = await get(line, "/v1/models")
    assert [(model["id"], model.get("context_length")) for model in parsed["data"]] == [
        ("small", 8192), ("tiny", 2048), ("secret", None),
    ]  # fmt: skip
    assert parsed["data"][0]["meta"] == {"n_ctx": 8192, "n_ctx_train": 32768}
    assert "meta" not in parsed["data"][2]
    assert (await get(line, "/models/tiny"))[1] == parsed["data"][1]


async def test_models_are_listed_from_memory_while_the_upstream_is_away(line: Any) -> None:
    line.catalog.error = UpstreamUnreachable()
    assert (await get(line, "/v1/models"))[0] == 200
    line.catalog.listed = []
    assert (await get(line, "/v1/models"))[0] == 502


async def test_one_model_is_described_by_its_name_with_slashes(line: Any) -> None:
    line.catalog.listed.append(msgspec.structs.replace(line.catalog.listed[0], name="hf.co/a/b:Q4"))
    assert (await get(line, "/v1/models/hf.co/a/b:Q4"))[1]["id"] == "hf.co/a/b:Q4"
    assert (await get(line, "/v1/models/none"))[0] == 404


async def test_health_is_plain_and_ready_has_a_reason(line: Any) -> None:
    assert (await get(line, "/health"))[:2] == (200, b"ok")
    assert (await get(line, "/ready"))[:2] == (200, {"ready": True})
    line.reason = "draining"
    assert (await get(line, "/ready"))[:2] == (503, {"ready": False, "reason": "draining"})


async def test_the_queue_and_its_jobs_can_be_looked_at(line: Any) -> None:
    status, queue = (await get(line, "/queue"))[:2]
    assert (status, queue["waiting"], queue["jobs"]) == (200, {"interactive": 0, "normal": 0, "background": 0}, [])
    status, job = (await get(line, "/queue/jobs/job_0"))[:2]
    assert (status, job["job"], job["state"], job["wait_s"]) == (200, "job_0", "queued", 1.5)
    assert "error" not in job
    assert (await get(line, "/queue/jobs/job_1"))[0] == 404


async def test_the_queue_lists_as_many_jobs_as_are_asked_for(line: Any) -> None:
    for limit in ("0", "7", "1000"):
        assert (await get(line, f"/queue?limit={limit}"))[0] == 200
    assert line.limits == [0, 7, 1000]
    for limit in ("", "-1", "1001", "x", "1e2", "%D9%A3", "9" * 5000):
        status, parsed, _ = await get(line, f"/queue?limit={limit}")
        assert (status, parsed["error"]["param"]) == (400, "limit"), limit
    assert line.limits == [0, 7, 1000]


async def test_errors_without_a_route_are_json(line: Any) -> None:
    status, parsed, _ = await get(line, "/nowhere")
    assert (status, parsed["error"]["code"]) == (404, "not_found")
    status, parsed, headers = await get(line, "/v1/chat/completions")
    assert (status, parsed["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in headers["Allow"]


@pytest.mark.parametrize(("query", "status"), [(b"x=%ff", 200), (b"%", 200), (b"a&&=%00", 200), (b"x=\xff", 400)])
async def test_a_query_string_of_any_kind_is_no_bug(line: Any, query: bytes, status: int) -> None:
    app = create_app(Settings(), line)
    sent: list[Any] = []
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/health", "root_path": "",
        "query_string": query, "headers": [(b"host", b"localhost")],
    }  # fmt: skip

    async def receive() -> Any:
        await trio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == status


async def test_every_route_is_behind_the_gate(line: Any) -> None:
    settings = Settings(api_keys=("k",))
    app = create_app(settings, line)
    rules = list(create_quart(settings, line).url_map.iter_rules())
    assert len(rules) > 8
    for rule in rules:
        for method in rule.methods or ():
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            scope = {"type": "http", "method": method, "path": rule.rule, "headers": [(b"host", b"localhost")]}
            if rule.rule in OPEN or method == "OPTIONS":
                continue
            await app(scope, lambda: None, send)
            assert sent[0]["status"] == 401, rule


@pytest.mark.parametrize(
    ("headers", "key_name", "client"),
    [
        ({"X-LLM-Queue-Client": "mine", "Origin": "app://x"}, None, "mine"),
        ({"X-LLM-Queue-Client": "mine", "Origin": "app://x"}, "ci", "ci"),
        ({"Origin": "app://x", "User-Agent": "curl/8"}, "ci", "ci"),
        ({"X-OpenWebUI-User-Id": "u1", "Origin": "app://x"}, None, "u1"),
        ({"Origin": "chrome-extension://abc", "User-Agent": "Mozilla/5.0 (X11)"}, None, "chrome-extension://abc"),
        ({"User-Agent": "OpenAI/Python 1.2.3"}, None, "OpenAI/Python"),
        ({"User-Agent": "curl/8.5.0"}, None, "curl"),
        ({"User-Agent": " "}, None, "unknown"),
        ({"X-LLM-Queue-Client": "\x7f\x85", "User-Agent": "curl/8"}, None, "curl"),
        ({"X-LLM-Queue-Client": "x" * 200}, None, "x" * 100),
        ({}, None, "unknown"),
    ],
)
def test_the_client_is_the_program_that_asks(headers: dict[str, str], key_name: str | None, client: str) -> None:
    assert client_of(Headers(headers), Permit(key_name or ""), {}) == client


@pytest.mark.parametrize("header", ["X-LLM-Queue-Client", "X-OpenWebUI-User-Id", "User-Agent"])
def test_who_claims_to_be_a_key_s_client_without_the_key_is_another(header: str) -> None:
    reserved = frozenset({"cron"})
    assert client_of(Headers({header: "cron"}), Permit(reserved=reserved), {}) == "cron (claimed)"
    assert client_of(Headers({header: "other"}), Permit(reserved=reserved), {}) == "other"
    assert client_of(Headers({header: "other"}), Permit("cron", reserved=reserved), {}) == "cron"


async def through_the_gate(line: Any, settings: Settings, path: str, headers: dict[str, str], body: Any) -> Any:
    """The answer of the app with the gate in front of it: its status and its headers."""
    sent: list[Any] = []
    rest = [{"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}]

    async def receive() -> Any:
        if not rest:
            await trio.sleep_forever()
        return rest.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in headers.items())]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": pairs, "scheme": "http", "http_version": "1.1", "root_path": "", "extensions": {}}  # fmt: skip
    await create_app(settings, line)(scope, receive, send)
    return sent[0]["status"], {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(
    ("key", "wish", "lane"),
    [
        ("day", {}, "normal"),
        ("day", {"priority": True}, "interactive"),
        ("night", {}, "background"),
        ("night", {"priority": True}, "background"),
        ("night", {"service_tier": "priority"}, "background"),
        ("middle", {"priority": True}, "normal"),
        ("middle", {"priority": "background"}, "background"),
    ],
)
async def test_a_key_s_lane_is_the_highest_that_its_jobs_get_and_the_answer_says_so(
    line: Any, key: str, wish: dict[str, Any], lane: str
) -> None:
    line.script = says("hi")
    settings = Settings(
        model="small", api_keys=("desk=day", "cron=night lane=background share=0.5", "middle lane=normal")
    )
    headers = {"authorization": f"Bearer {key}"}
    status, answered = await through_the_gate(line, settings, "/v1/chat/completions", headers, HELLO | wish)
    assert (status, answered["x-llm-queue-lane"]) == (200, lane)
    assert line.tickets[0].submission.lane.label == lane


async def test_no_header_lifts_a_job_above_its_key_s_lane(line: Any) -> None:
    line.script = says("hi")
    settings = Settings(model="small", api_keys=("cron=night lane=background share=0.5",))
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions", "/v1/embeddings"):
        line.tickets.clear()
        headers = {"x-api-key": "night", "x-llm-queue-lane": "interactive", "x-llm-queue-client": "somebody else"}
        body = HELLO | {"max_tokens": 5, "input": "x"} | ({} if path.endswith("responses") else {"prompt": "x"})
        await through_the_gate(line, settings, path, headers, body)
        submission = line.tickets[0].submission
        assert (submission.lane, submission.client, submission.share) == (Lane.BACKGROUND, "cron", 0.5)
