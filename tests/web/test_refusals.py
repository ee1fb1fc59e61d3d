"""A refusal is explained: to the log, to the caller, and to a page of another site."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from llm_queue.settings import Settings
from llm_queue.web.app import create_app
from llm_queue.web.refusals import LONGEST, printable

KEY = "sk-secret"


async def ask(line: Any, method: str, path: str, /, body: str = "", **headers: str) -> tuple[int, Any, dict[str, str]]:
    """One request through gate and app: status, parsed body, and headers of the answer."""
    sent: list[Any] = []
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    where, _, query = path.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": where, "root_path": "",
        "query_string": query.encode(), "headers": pairs,
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body.encode(), "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await create_app(Settings(model="small", api_keys=(KEY,), max_body=1000), line)(scope, receive, send)
    answered = b"".join(message.get("body", b"") for message in sent[1:])
    got = {name.decode().lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], msgspec.json.decode(answered) if answered else None, got


HERE = {"host": "localhost:11500", "authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code", "message"),
    [
        ("POST", CHAT, {"host": "evil.example"}, 403, "forbidden", "LLM_QUEUE_HOSTS"),
        ("POST", CHAT, HERE | {"origin": "https://a.example"}, 403, "forbidden", "LLM_QUEUE_ORIGINS"),
        ("GET", "/v1/models", {"host": "localhost"}, 401, "invalid_api_key", "LLM_QUEUE_API_KEYS"),
        ("GET", "/v1/v1/models", HERE, 404, "not_found", "/v1/models"),
        ("GET", CHAT, HERE, 405, "method_not_allowed", "POST"),
        ("POST", CHAT, HERE, 400, "invalid_request", "JSON"),
    ],
)
async def test_the_log_says_what_was_refused_and_why(
    line: Any, method: str, path: str, headers: dict[str, str], status: int, code: str, message: str
) -> None:
    with capture_logs() as logs:
        await ask(line, method, path + "?key=sk-secret", x_request_id="r-1", **headers)
    [refused] = [one for one in logs if one["event"] == "rejected"]
    assert (refused["status"], refused["code"]) == (status, code)
    assert (refused["method"], refused["path"], refused["request_id"]) == (method, path, "r-1")
    assert (refused["host"], refused.get("origin")) == (headers["host"], headers.get("origin"))
    assert message in refused["message"]
    assert KEY not in repr(refused)
    assert line.refused == [(code, refused["client"])]


async def test_the_log_has_nothing_of_a_refused_body(line: Any) -> None:
    body = '{"messages": [{"role": "my secret prompt", "content": "x"}]}'
    with capture_logs() as logs:
        status, _, _ = await ask(line, "POST", CHAT, body, **HERE)
    assert status == 400
    [refused] = [one for one in logs if one["event"] == "rejected"]
    assert "secret prompt" not in repr(refused)
    assert refused["message"].startswith("messages[0]")


@given(st.text(max_size=3 * LONGEST))
def test_a_logged_value_is_printable_and_bounded(value: str) -> None:
    shown = printable(value)
    assert shown.isprintable()
    assert len(shown) <= LONGEST
    assert shown == value or not value.isprintable() or len(value) > LONGEST


async def test_a_long_host_does_not_fill_the_log(line: Any) -> None:
    with capture_logs() as logs:
        await ask(line, "GET", "/" + "x" * 5000, host="a\x85" * 3000, origin="b" * 6000)
    assert len(repr(logs)) < 5 * LONGEST + 500


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/models", "/v1/models"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/x/chat/completions", "/chat/completions"),
        ("//v1//chat/completions", "/v1/chat/completions"),
        ("/V1/Chat/Completions", "/v1/chat/completions"),
        ("/v1/queue", "/queue"),
        ("/v1/health", "/health"),
    ],
)
async def test_a_404_names_the_address_and_the_one_that_was_meant(line: Any, path: str, meant: str) -> None:
    status, parsed, _ = await ask(line, "POST", path, **HERE)
    assert status == 404
    assert parsed["error"]["message"].startswith(f"There is nothing at {path}: did you mean {meant}?")
    assert ("once" in parsed["error"]["message"]) == ("/v1/v1" in path)


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/chat", "/a\nb"])
async def test_a_404_without_a_likely_address_names_the_chat_endpoint(line: Any, path: str) -> None:
    status, parsed, _ = await ask(line, "POST", path, **HERE)
    assert status == 404
    assert parsed["error"]["message"].startswith(f"There is nothing at {printable(path)}. ")
    assert "POST /v1/chat/completions" in parsed["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "right"), [("GET", CHAT, "POST"), ("DELETE", CHAT, "POST"), ("POST", "/v1/models", "GET")]
)
async def test_a_405_names_the_right_method(line: Any, method: str, path: str, right: str) -> None:
    status, parsed, headers = await ask(line, method, path, **HERE)
    assert status == 405
    assert parsed["error"]["message"] == f"{path} takes {right}, not {method}."
    assert right in headers["allow"].split(", ")


FOREIGN = {"host": "localhost:11500", "origin": "https://other.example"}


@pytest.mark.parametrize("path", [CHAT, "/queue", "/health", "/nowhere"])
async def test_a_page_of_another_site_can_read_why_it_is_refused_and_nothing_else(line: Any, path: str) -> None:
    status, parsed, headers = await ask(line, "POST", path, **FOREIGN, authorization=f"Bearer {KEY}")
    assert (status, parsed["error"]["code"], line.tickets) == (403, "forbidden", [])
    assert "LLM_QUEUE_ORIGINS" in parsed["error"]["message"]
    assert headers["access-control-allow-origin"] == "https://other.example"
    assert "access-control-allow-credentials" not in headers
    assert set(headers) == {
        "content-type", "content-length", "x-request-id", "vary", "access-control-allow-origin",
        "access-control-expose-headers",
    }  # fmt: skip


async def test_the_preflight_of_another_site_passes_so_that_its_request_can_be_refused_in_words(line: Any) -> None:
    status, _, headers = await ask(
        line, "OPTIONS", CHAT, **FOREIGN, access_control_request_method="POST",
        access_control_request_headers="content-type, authorization", access_control_request_private_network="true",
    )  # fmt: skip
    assert status == 204
    assert headers["access-control-allow-origin"] == "https://other.example"
    assert "authorization" in headers["access-control-allow-headers"]
    assert headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-credentials" not in headers


async def test_a_preflight_for_a_foreign_host_does_not_pass(line: Any) -> None:
    status, _, _ = await ask(line, "OPTIONS", CHAT, host="evil.example", origin="https://evil.example")
    assert status == 403
