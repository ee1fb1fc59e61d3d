"""What SECURITY.md promises of strangers. Each promise there names its tests here, or in the file next to this one."""

from __future__ import annotations

import ast
import hashlib
import hmac
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pytest
from trio.testing import MockClock

import llm_queue
from llm_queue.settings import Settings, WrongSetting, load
from llm_queue.web import gate
from llm_queue.web.app import create_app, create_quart
from llm_queue.web.gate import OPEN, Gate
from llm_queue.web.page import ADDRESSES as PAGE
from tests.harness import line as running_line
from tests.web.conftest import Caller, FakeLine
from tests.web.strangers import Stranger

ROOT: Final = Path(__file__).parents[2]
KEYS: Final = {"desk": "D3skKey", "cron": "cr0n-key", "open": "c2VjcmV0=="}
SETTINGS: Final = Settings(model="small", api_keys=tuple(f"{name}={key}" for name, key in KEYS.items()))
VALUES: Final = 10_000

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", "get")
NOWHERE: Final = (
    "/", "/nowhere", "/metrics", "/dashboard", "/openapi.json", "/favicon.ico", "/v1", "/.well-known/ai",
    "/Health", "/health/", "//health", "/health/..", "/health;x", "/health%2f", "/x/../health", "/health\x00",
    "/queue/", "//v1/models", "/api/tags", "/api/chat", "/api/pull", "/v1/messages/health", "/V1/CHAT/COMPLETIONS",
)  # fmt: skip
"""Addresses that there are not, and that look as if a check might be forgotten there."""


def addresses() -> list[tuple[str, str]]:
    """Every method at every path that there is, and at some that there are not."""
    rules = [re.sub(r"<[^>]*>", "small", rule.rule) for rule in create_quart(SETTINGS, FakeLine()).url_map.iter_rules()]
    assert len(rules) > 20
    return [(method, path) for path in dict.fromkeys([*rules, *NOWHERE, *PAGE]) for method in METHODS]


ADDRESSES: Final = addresses()


async def _nothing() -> Any:
    raise AssertionError("the gate reads nothing")


class Walk:
    """Requests to the app; what is behind its gate only notes that it was reached."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.app = cast(Gate, create_app(settings, FakeLine()))
        self.app._app = self._inside
        self.reached: list[tuple[str, str]] = []
        self.headers: dict[bytes, bytes] = {}
        """Those of the last answer."""

    async def _inside(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append((scope["method"], scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask(
        self, method: str, path: str, hosts: Sequence[str] = ("localhost",), headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status of the answer, and its body."""
        pairs = [(b"host", host.encode("utf-8")) for host in hosts]
        pairs += [(name.encode(), value.encode("utf-8")) for name, value in (headers or {}).items()]
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app({"type": "http", "method": method, "path": path, "headers": pairs}, _nothing, send)
        self.headers = dict(sent[0]["headers"])
        return sent[0]["status"], sent[-1]["body"]


@pytest.fixture
def stranger() -> Stranger:
    """Other values in each run: the seed of the run's order is theirs."""
    return Stranger(random.Random(random.random()))


# --- the whole map, and what strangers send ---


async def test_ten_thousand_values_of_strangers_reach_nothing_on_any_address(stranger: Stranger) -> None:
    walk = Walk()
    around = itertools.cycle(ADDRESSES)
    key = {"authorization": f"Bearer {KEYS['desk']}"}
    for number in range(VALUES // 3 + 1):
        method, path = next(around)
        hosts = stranger.hosts()
        status, _ = await walk.ask(method, path, hosts, key)
        assert status == 403, (method, path, hosts)
        origin = stranger.origin()
        status, _ = await walk.ask(method, path, headers=key | {"origin": origin})
        assert status == (204 if method == "OPTIONS" else 403), (method, path, origin)
        given = stranger.credentials(KEYS)
        if path not in OPEN:
            status, body = await walk.ask(method, path, headers=given)
            assert status == (204 if method == "OPTIONS" else 401), (method, path, given)
            assert not any(secret.encode() in body for secret in KEYS.values())
        assert walk.reached == [], (number, hosts, origin, given)


async def test_whoever_may_call_reaches_every_address() -> None:
    walk = Walk()
    for method, path in ADDRESSES:
        for headers in ({"authorization": f"Bearer {KEYS['cron']}"}, {"x-api-key": KEYS["open"], "origin": "app://x"}):
            await walk.ask(method, path, ("LocalHost:11500",), headers)
    assert walk.reached == [address for address in ADDRESSES if address[0] != "OPTIONS" for _ in range(2)]


async def test_health_and_the_files_of_the_page_are_all_that_wants_no_key() -> None:
    assert {"/health", *PAGE} == OPEN
    walk = Walk()
    for method, path in ADDRESSES:
        await walk.ask(method, path)
    assert {path for _, path in walk.reached} == OPEN


async def test_behind_the_gate_no_line_is_asked_and_no_job_is_made_for_a_stranger(stranger: Stranger) -> None:
    line = FakeLine()
    line.error = AssertionError("a job for a stranger")  # type: ignore[assignment]  # it must never be raised
    walk = Walk()
    walk.app = cast(Gate, create_app(SETTINGS, line))
    for method, path in ADDRESSES:
        for status, _ in [
            await walk.ask(method, path, stranger.hosts()),
            await walk.ask(method, path, headers={"origin": stranger.origin()}),
        ]:
            assert status in ((403, 204) if method == "OPTIONS" else (403,))
    assert line.tickets == []
    assert line.limits == []


# --- Host ---


@pytest.mark.parametrize(
    "path", ["/", "/queue", "/metrics", "/dashboard", "/health", "/v1/chat/completions", "/nowhere"]
)
@pytest.mark.parametrize("hosts", [[], [""], ["evil.example"], ["localhost", "localhost"], ["127.0.0.1.nip.io:11500"]])
async def test_an_empty_or_foreign_host_gets_403_everywhere_also_with_options(path: str, hosts: list[str]) -> None:
    walk = Walk(Settings())
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        status, body = await walk.ask(method, path, hosts)
        assert (status, walk.reached) == (403, [])
        assert b"LLM_QUEUE_HOSTS" in body


# --- Origin ---


@pytest.mark.parametrize("origin", ["chrome-extension://abc", "moz-extension://0-1", "safari-web-extension://x"])
async def test_an_extension_needs_no_set_up_and_its_preflight_passes_into_the_private_network(origin: str) -> None:
    walk = Walk(Settings())
    asks = {"origin": origin, "access-control-request-private-network": "true"}
    status, _ = await walk.ask("OPTIONS", "/v1/chat/completions", headers=asks)
    assert (status, walk.headers[b"access-control-allow-private-network"]) == (204, b"true")
    assert walk.headers[b"access-control-allow-origin"] == origin.encode()
    assert (await walk.ask("POST", "/v1/chat/completions", headers={"origin": origin}))[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json"])
async def test_a_page_of_another_site_gets_403_also_for_a_simple_request(origin: str, content_type: str) -> None:
    walk = Walk(Settings())
    status, body = await walk.ask(
        "POST", "/v1/chat/completions", headers={"origin": origin, "content-type": content_type}
    )
    assert (status, walk.reached) == (403, [])
    assert b"LLM_QUEUE_ORIGINS" in body


async def test_no_answer_allows_a_page_to_send_credentials() -> None:
    for settings in (Settings(), Settings(origins=("*",)), SETTINGS):
        walk = Walk(settings)
        for method, origin in itertools.product(
            ("GET", "OPTIONS", "POST"), ("https://evil.example", "app://x", "null")
        ):
            await walk.ask(method, "/health", headers={"origin": origin})
            assert walk.headers[b"access-control-allow-origin"] == origin.encode()
            assert b"access-control-allow-credentials" not in walk.headers


# --- keys ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.example"])
def test_other_machines_are_not_listened_to_without_keys_and_the_refusal_says_both_ways_out(host: str) -> None:
    with pytest.raises(WrongSetting, match=r"(?s)LLM_QUEUE_API_KEYS.*LLM_QUEUE_ALLOW_OPEN=1"):
        load({"host": host}, {})
    with pytest.raises(WrongSetting):
        load({"host": host, "api_keys": ","}, {})


async def test_without_keys_any_token_passes_and_only_loopback_is_listened_to() -> None:
    walk = Walk(Settings())
    assert (await walk.ask("GET", "/queue", headers={"authorization": "Bearer whatever"}))[0] == 200
    assert Settings().on_loopback


async def test_every_key_is_compared_in_constant_time_whichever_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    compare = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    walk = Walk()
    monkeypatch.setattr("llm_queue.web.gate.hmac.compare_digest", note)
    counts = set()
    for sent in (*KEYS.values(), "", "x", "y" * 5000):
        compared.clear()
        await walk.ask("GET", "/queue", headers={"authorization": f"Bearer {sent}"})
        counts.add(len(compared))
        assert {len(part) for pair in compared for part in pair} == {hashlib.sha256().digest_size}
    assert counts == {2 * len(KEYS)}


def test_no_key_is_in_what_the_gate_looks_like() -> None:
    shown = repr(create_app(SETTINGS, FakeLine())) + repr(gate.AccessRules.of(SETTINGS)) + repr(SETTINGS)
    assert not any(key in shown for key in KEYS.values())


# --- Ollama's own routes, and what is not there ---


CLOSED: Final = ("create", "push", "pull", "delete", "copy", "blobs/sha256:" + "0" * 64)


@pytest.mark.parametrize("path", [f"/api/{name}" for name in CLOSED])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
async def test_what_would_change_the_models_of_ollama_is_closed(line: Any, method: str, path: str) -> None:
    client = create_quart(Settings(model="small"), line).test_client()
    response = await getattr(client, method.lower())(path, data=b'{"model":"small","stream":false}')
    assert response.status_code in (403, 404, 405)
    assert line.tickets == []


# --- caps, before there is any work ---


def chat(**fields: Any) -> bytes:
    return msgspec.json.encode({"messages": [{"role": "user", "content": "x"}]} | fields)


TOO_MUCH: Final[dict[str, tuple[str, bytes, int]]] = {
    "bytes of a body": ("/v1/chat/completions", chat(x="y" * 2**20), 413),
    "depth": ("/v1/chat/completions", b'{"messages":' + b"[" * 100, 400),
    "messages": ("/v1/chat/completions", chat(messages=[{"role": "user", "content": "x"}] * 51), 400),
    "messages of Anthropic's": (
        "/v1/messages",
        chat(max_tokens=1, messages=[{"role": "user", "content": "x"}] * 51),
        400,
    ),
    "items": ("/v1/responses", msgspec.json.encode({"input": [{"role": "user", "content": "x"}] * 51}), 400),
    "texts": ("/v1/embeddings", msgspec.json.encode({"input": ["x"] * 51}), 400),
    "prompts": ("/v1/completions", msgspec.json.encode({"prompt": ["x"] * 51}), 400),
    "answers": ("/v1/chat/completions", chat(n=2), 400),
    "arrays and objects": ("/v1/chat/completions", chat(x=[[]] * 200_001), 400),
    "values": ("/v1/chat/completions", chat(x=[1] * 200_002), 400),
    "a model's name": ("/v1/chat/completions", chat(model="m" * 501), 400),
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_too_much_is_refused_before_it_is_queued(line: Any, what: str) -> None:
    path, body, status = TOO_MUCH[what]
    settings = Settings(model="small", max_body=2**20, max_messages=50)
    response = await create_quart(settings, line).test_client().post(path, data=body)
    assert response.status_code == status
    assert line.tickets == []


async def test_headers_have_a_bound(
    clock: MockClock, serving: Callable[[], AbstractAsyncContextManager[Caller]]
) -> None:
    async with serving() as caller:
        stream = await caller.connect(b"GET /queue HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 431 ")
        await stream.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.png", "https://evil.example/x.png", "file:///etc/passwd"])
async def test_no_address_that_a_client_sends_is_fetched(line: Any, url: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"content": [{"type": "image_url", "image_url": {"url": url}}]},
        "/v1/messages": {"content": [{"type": "image", "source": {"type": "url", "url": url}}]},
        "/v1/responses": {"content": [{"type": "input_image", "image_url": url}]},
    }
    client = create_quart(Settings(model="small"), line).test_client()
    for path, message in bodies.items():
        messages = [{"role": "user"} | message]
        body = {"model": "small", "max_tokens": 5, "messages": messages, "input": messages}
        response = await client.post(path, data=msgspec.json.encode(body))
        assert response.status_code == 400, path
    assert line.tickets == []


def calls(module: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module) if isinstance(node, ast.Call))


def test_nothing_of_ours_follows_a_redirect_or_a_proxy_of_the_environment() -> None:
    asked = 0
    for path in Path(llm_queue.__file__).parent.rglob("*.py"):
        for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            assert options.get("follow_redirects", "False") == "False", path
            if ast.unparse(call.func) in ("httpx.get", "httpx.post", "httpx.Client", "httpx.AsyncClient"):
                asked += 1
                assert options.get("trust_env") == "False", path
    assert asked >= 2


async def test_the_id_of_a_job_cannot_be_guessed(autojump_clock: MockClock) -> None:
    async with running_line() as held:
        tickets = [held.submit() for _ in range(50)]
        ids = {ticket.job.id for ticket in tickets}
        for ticket in tickets:
            await ticket.whole()
    assert len(ids) == 50
    assert min(map(len, ids)) >= 22  # 128 bits
    assert len({one[:4] for one in ids}) > 40


# --- the table ---


def test_every_promise_names_tests_that_there_are() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## What is promised")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE)[2:]
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for source in files for name in re.findall(r"def (test_\w+)", source)}
    assert len(rows) > 12
    for promise, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, promise
        assert set(named) <= there, promise
