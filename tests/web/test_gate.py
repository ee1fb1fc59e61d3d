"""Who may call: the decisions as tables, and the gate in front of an app that says whether it was reached."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_queue.errors import BadRequest, Forbidden, QueueError, Unauthorized
from llm_queue.instance import Instance
from llm_queue.settings import Settings
from llm_queue.web.gate import AccessRules, Gate, preflight_headers
from llm_queue.web.visit import ANYONE, visit_of
from llm_queue.wire.wishes import SESSION_HEADERS

DOCS = Path(__file__).parents[2] / "docs" / "http.md"

LOCAL = AccessRules.of(Settings(hosts=("box.lan",), origins=("https://ui.example",)))
EVERYWHERE = AccessRules.of(Settings(host="gpu.example", api_keys=("k",)))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:11500",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1:11500",
        "127.8.9.1",
        "[::1]:11500",
        "box.lan",
        "Box.LAN:80",
    ],
)
def test_names_of_this_service_pass(host: str) -> None:
    LOCAL.check_host(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "::1",
        "localhost:",
        "localhost:1:2",
        "a@localhost",
        "localhost/x",
        "127.1",
        "2130706433",
        "[::1",
        "[::1]x",
        "localhost localhost",
        ".localhost",
        "a..localhost",
        "localhost..",
        "a" * 64 + ".localhost",
    ],
)
def test_other_hosts_are_refused_with_the_setting_that_would_allow_them(host: str | None) -> None:
    with pytest.raises(Forbidden, match="LLM_QUEUE_HOSTS"):
        LOCAL.check_host(host)


def test_the_name_that_the_service_is_bound_to_passes_and_no_other() -> None:
    EVERYWHERE.check_host("GPU.example:11500")
    with pytest.raises(Forbidden):
        EVERYWHERE.check_host("evil.example")


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "chrome-extension://abcdef",
        "moz-extension://0-1",
        "safari-web-extension://x",
        "http://localhost:3000",
        "https://127.0.0.1",
        "http://[::1]:8080",
        "http://0.0.0.0:8000",
        "http://tauri.localhost",
        "app://obsidian.md",
        "vscode-webview://x",
        "tauri://localhost",
        "https://ui.example",
        "HTTPS://UI.EXAMPLE",
        "http://box.lan:11500",
    ],
)
def test_extensions_and_pages_of_this_machine_may_call(origin: str | None) -> None:
    LOCAL.check_origin(origin, "box.lan:11500")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://evil.example:11500",
        "http://box.lan",
        "https://box.lan:11500",
        "http://ui.example",
        "https://ui.example.evil.example",
        "chrome-extension://",
        "file://",
        "http://localhost@evil.example",
        "chrome-extension:abc",
        "ftp://localhost",
        "http://127.0.0.1 evil.example",
    ],
)
def test_other_web_pages_are_refused_with_the_setting_that_would_allow_them(origin: str) -> None:
    with pytest.raises(Forbidden, match="LLM_QUEUE_ORIGINS"):
        LOCAL.check_origin(origin, "box.lan:11500")


@pytest.mark.parametrize("origin", ["null", "https://evil.example"])
def test_a_star_lets_every_page_in(origin: str) -> None:
    AccessRules.of(Settings(origins=("*",))).check_origin(origin, "localhost")


KEYED = AccessRules.of(Settings(api_keys=("ci=abc123", "plain", "c2VjcmV0==")))


@pytest.mark.parametrize(
    ("sent", "name"),
    [("Bearer abc123", "ci"), ("bearer  abc123 ", "ci"), ("Bearer plain", ""), ("Bearer c2VjcmV0==", "")],
)
def test_a_key_passes_and_gives_its_name(sent: str, name: str) -> None:
    assert KEYED.permit(sent).name == name


@pytest.mark.parametrize(
    "sent", [None, "", "abc123", "Bearer", "Bearer ci=abc123", "Bearer abc", "Basic abc123", "Bearer é"]
)
def test_anything_else_is_unauthorized(sent: str | None) -> None:
    with pytest.raises(Unauthorized):
        KEYED.permit(sent)


def test_without_keys_any_token_passes() -> None:
    assert LOCAL.permit("Bearer sk-whatever") == ANYONE
    assert LOCAL.permit(None) == ANYONE


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"a"), (b"Origin", b"a")],
        [(b"authorization", b"a"), (b"authorization", b"b")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_headers_that_can_be_read_in_two_ways_are_a_bad_request(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest):
        LOCAL.check_form("/", b"", headers)


@pytest.mark.parametrize("path", ["", "?x=1", "*", "x:80", "http://localhost/"])
def test_a_target_that_is_no_path_is_a_bad_request(path: str) -> None:
    with pytest.raises(BadRequest):
        LOCAL.check_form(path, b"", [])


def test_a_query_that_cannot_be_decoded_is_a_bad_request() -> None:
    LOCAL.check_form("/", b"x=%ff&%", [])
    with pytest.raises(BadRequest):
        LOCAL.check_form("/", b"x=\xff", [])


def test_a_preflight_answer_allows_what_was_asked_for() -> None:
    asked = {b"access-control-request-headers": b"x-anything, authorization"}
    assert dict(preflight_headers(asked))[b"access-control-allow-headers"] == b"x-anything, authorization"


@pytest.mark.parametrize("asked", [b"", b"a b", b"x\r\ny", b"a,,b", b"a\xe9"])
def test_a_preflight_that_asks_for_no_valid_list_gets_ours(asked: bytes) -> None:
    allowed = dict(preflight_headers({b"access-control-request-headers": asked}))[b"access-control-allow-headers"]
    for name in (
        b"authorization",
        b"content-type",
        b"x-llm-queue-lane",
        b"x-request-id",
        b"x-stainless-os",
        b"x-api-key",
        b"anthropic-version",
    ):
        assert name in allowed.split(b", ")


def test_the_private_network_header_answers_only_who_asks() -> None:
    name = b"access-control-allow-private-network"
    assert name not in dict(preflight_headers({}))
    assert dict(preflight_headers({b"access-control-request-private-network": b"true"}))[name] == b"true"


class Through:
    """One request through the gate, and what came back."""

    def __init__(self, rules: AccessRules, instance: Instance | None = None) -> None:
        self.reached = False
        self.refused: list[str] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.scope: dict[str, Any] = {}
        self.sent: list[Any] = []
        self._gate = Gate(self._app, rules, lambda error, scope: self.refused.append(error.code), instance)

    async def ask(self, method: str, path: str, **headers: str) -> Through:
        pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.scope = {"type": "http", "method": method, "path": path, "headers": pairs}
        await self._gate(self.scope, self._receive, self._send)
        return self

    async def open_websocket(self) -> None:
        await self._gate({"type": "websocket", "path": "/", "headers": []}, self._receive, self._send)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached = True
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _receive(self) -> None:
        raise AssertionError("the gate reads nothing")

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            self.body = message["body"]


async def test_a_page_of_another_site_is_stopped_before_the_app() -> None:
    got = await Through(LOCAL).ask("POST", "/v1/chat/completions", host="localhost", origin="https://evil.example")
    assert (got.status, got.reached, got.refused) == (403, False, ["forbidden"])
    assert "LLM_QUEUE_ORIGINS" in msgspec.json.decode(got.body)["error"]["message"]
    assert got.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "CONNECT"])
@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/v1/chat/completions"])
async def test_a_foreign_host_reaches_nothing(method: str, path: str) -> None:
    got = await Through(LOCAL).ask(method, path, host="evil.example")
    assert (got.status, got.reached) == (403, False)


async def test_a_request_that_can_be_read_in_two_ways_is_the_last_on_its_connection() -> None:
    got = await Through(LOCAL).ask("POST", "/", host="localhost", content_length="4", transfer_encoding="chunked")
    assert (got.status, got.reached, got.headers["connection"]) == (400, False, "close")


async def test_two_hosts_or_none_reach_nothing() -> None:
    got = Through(LOCAL)
    assert (await got.ask("GET", "/", host="localhost", HOST="localhost")).status == 403
    assert (await got.ask("GET", "/")).status == 403
    assert not got.reached


async def test_errors_of_the_app_carry_cors_headers_and_the_request_id() -> None:
    got = await Through(LOCAL).ask("GET", "/x", host="localhost", origin="chrome-extension://abc", x_request_id="r-1")
    assert (got.status, got.reached) == (404, True)
    assert got.headers["access-control-allow-origin"] == "chrome-extension://abc"
    assert "X-LLM-Queue-Job" in got.headers["access-control-expose-headers"]
    assert got.headers["vary"] == "Origin"
    assert got.headers["x-request-id"] == "r-1"
    assert "access-control-allow-credentials" not in got.headers


async def test_a_page_may_read_each_header_that_the_docs_name() -> None:
    got = await Through(LOCAL).ask("GET", "/x", host="localhost", origin="http://localhost:3000")
    exposed = set(got.headers["access-control-expose-headers"].split(", "))
    section = DOCS.read_text(encoding="utf-8").partition("## Headers of the answer")[2].partition("\n## ")[0]
    assert exposed == set(re.findall(r"^\| `(X-[A-Za-z-]+|Request-Id|Retry-After)`", section, re.MULTILINE))


@pytest.mark.parametrize("id", ["", "a b", "x" * 129, "é"])
async def test_a_request_id_that_is_not_sane_is_replaced(id: str) -> None:
    got = await Through(LOCAL).ask("GET", "/", host="localhost", x_request_id=id)
    assert got.headers["x-request-id"].startswith("req_")


async def test_a_preflight_is_answered_at_the_gate_without_a_key() -> None:
    got = await Through(KEYED).ask(
        "OPTIONS", "/v1/chat/completions", host="localhost", origin="chrome-extension://a",
        access_control_request_method="POST",
    )  # fmt: skip
    assert (got.status, got.reached, got.body) == (204, False, b"")
    assert got.headers["access-control-allow-origin"] == "chrome-extension://a"
    assert got.headers["access-control-max-age"] == "7200"
    assert "POST" in got.headers["access-control-allow-methods"]


async def test_without_its_key_only_health_is_open_and_the_refusal_can_be_read_by_a_page() -> None:
    assert (await Through(KEYED).ask("GET", "/health", host="localhost")).reached
    got = await Through(KEYED).ask("GET", "/v1/models", host="localhost", origin="http://localhost:3000")
    assert (got.status, got.reached) == (401, False)
    assert got.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_the_key_s_name_travels_with_the_request() -> None:
    got = await Through(KEYED).ask("GET", "/v1/models", host="localhost", authorization="Bearer abc123")
    assert visit_of(got.scope).permit.name == "ci"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"x_api_key": "abc123"}, "ci"),
        ({"x_api_key": " plain "}, ""),
        ({"x_api_key": "wrong", "authorization": "Bearer abc123"}, "ci"),
        ({"x_api_key": "abc123", "authorization": "Bearer wrong"}, "ci"),
    ],
)
async def test_a_key_may_come_as_anthropics_clients_send_it(headers: dict[str, str], name: str) -> None:
    got = await Through(KEYED).ask("POST", "/v1/messages", host="localhost", **headers)
    assert got.reached
    assert visit_of(got.scope).permit.name == name


async def test_a_wrong_key_is_refused_in_anthropics_words() -> None:
    got = await Through(KEYED).ask("POST", "/v1/messages", host="localhost", x_api_key="ci=abc123")
    assert (got.status, got.reached) == (401, False)
    body = msgspec.json.decode(got.body)
    assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
    assert body["request_id"] == got.headers["request-id"] == got.headers["x-request-id"]


async def test_the_header_that_anthropics_clients_send_decides_where_the_path_does_not() -> None:
    got = await Through(KEYED).ask("GET", "/v1/models", host="localhost", anthropic_version="2023-06-01")
    assert msgspec.json.decode(got.body)["error"]["type"] == "authentication_error"
    got = await Through(KEYED).ask("POST", "/v1/chat/completions", host="localhost", anthropic_version="2023-06-01")
    assert msgspec.json.decode(got.body)["error"]["code"] == "invalid_api_key"
    assert "request-id" not in got.headers


async def test_a_websocket_is_refused() -> None:
    got = Through(LOCAL)
    await got.open_websocket()
    assert [message["type"] for message in got.sent] == ["websocket.close"]
    assert not got.reached


def test_refusals_are_errors_of_our_tree() -> None:
    with pytest.raises(QueueError):
        LOCAL.check_host("evil.example")


def test_a_page_may_send_every_header_that_names_a_conversation() -> None:
    allowed = dict(preflight_headers({}))[b"access-control-allow-headers"].decode().split(", ")
    assert {name.lower() for row in SESSION_HEADERS for name in row} <= set(allowed)


async def test_a_request_of_our_own_is_a_loop_in_the_caller_s_dialect_whatever_else_is_wrong_with_it() -> None:
    us = Instance()
    for host in ("localhost", "evil.example"):
        got = await Through(KEYED, us).ask(
            "GET", "/v1/models", host=host, x_llm_queue_instance=f"{'0' * 32}, {us.name}"
        )
        assert (got.status, got.reached, got.refused) == (508, False, [])
        assert msgspec.json.decode(got.body)["error"]["code"] == "loop"
        assert got.headers["x-should-retry"] == "false"


async def test_another_llm_queue_is_told_what_it_asks_and_named_upstream_meanwhile() -> None:
    us, other = Instance(), Instance()
    got = await Through(LOCAL, us).ask("GET", "/v1/models", host="localhost", x_llm_queue_instance=other.name)
    assert got.reached
    assert got.headers["via"] == "1.1 llm-queue"
    assert us.header() == f"{other.name}, {us.name}"


async def test_nobody_else_is_told_what_we_are() -> None:
    us = Instance()
    got = await Through(LOCAL, us).ask("GET", "/v1/models", host="localhost")
    assert "via" not in got.headers
    assert us.name not in str(got.sent)
