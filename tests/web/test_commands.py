"""Orders over HTTP: what each is answered, and who may give them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from llm_queue.core.jobs import Lane, State
from llm_queue.dispatch.status import JobReport
from llm_queue.errors import AlreadyEnded, AlreadyRunning, Draining
from llm_queue.settings import Settings
from llm_queue.web.app import create_app
from tests.web.conftest import FakeLine

CANCEL, MOVE = "/queue/jobs/job_0/cancel", "/queue/jobs/job_0/lane"
KEYS = ("owner=o", "cron=c lane=normal", "other=x lane=background", "n lane=normal")
ORDERS = [
    (CANCEL, b""),
    (MOVE, b'{"lane": "background"}'),
    ("/queue/pause", b""),
    ("/queue/resume", b""),
    ("/queue/drain", b""),
]


class Answer:
    """A response: its status, its headers, and its body as JSON."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
        self.json: Any = msgspec.json.decode(b"".join(one.get("body", b"") for one in messages[1:]))

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.json["error"]["code"]


async def order(
    line: FakeLine,
    path: str,
    body: bytes = b"",
    *,
    key: str = "",
    settings: Settings | None = None,
    peer: str = "127.0.0.1",
    **headers: str,
) -> Answer:
    """``POST`` through the gate, with nothing but what is given, and JSON for a type unless it says another."""
    sent = {"host": "localhost:11500", "content_type": "application/json"} | headers
    if key:
        sent["authorization"] = f"Bearer {key}"
    rows = [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items() if value != "(none)"]
    rows.append((b"content-length", b"%d" % len(body)))
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"headers": rows, "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    scope |= {"client": (peer, 5), "server": ("192.168.0.5" if peer.startswith("192") else "127.0.0.1", 11500)}
    messages: list[dict[str, Any]] = []
    request = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not request:
            await trio.sleep_forever()
        return request.pop()

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await create_app(settings or Settings(model="small", api_keys=KEYS if key else ()), line)(scope, receive, send)
    return Answer(messages)


# --- what each is answered ---


async def test_a_job_is_cancelled(line: FakeLine) -> None:
    answer = await order(line, CANCEL)
    assert (answer.status, answer.json) == (200, {"job": "job_0", "state": "cancelled"})
    assert answer.headers["content-type"] == "application/json"
    assert line.commands.ordered == [("cancel", "job_0")]


async def test_a_job_is_moved_and_its_report_comes_back(line: FakeLine) -> None:
    answer = await order(line, MOVE, b'{"lane": "background", "unknown": [1]}')
    assert (answer.status, answer.json["job"]) == (200, "job_0")
    assert line.commands.ordered == [("move", "job_0", Lane.BACKGROUND)]


@pytest.mark.parametrize(
    ("body", "unload"), [(b"", False), (b"{}", False), (b'{"unload": null}', False), (b'{"unload": true}', True)]
)
async def test_the_line_is_paused(line: FakeLine, body: bytes, unload: bool) -> None:
    answer = await order(line, "/queue/pause", body)
    assert (answer.status, answer.json) == (200, {"paused": {"since_s": 0.0, "unloaded": unload}})
    assert line.commands.ordered == [("pause", unload)]


async def test_the_line_is_resumed_and_drained(line: FakeLine) -> None:
    assert (await order(line, "/queue/resume")).json == {"paused": None}
    assert (await order(line, "/queue/drain")).json == {"draining": True, "jobs": 3}
    assert line.commands.ordered == [("resume",), ("drain",)]


@pytest.mark.parametrize("path", ["/queue/jobs/nothing/cancel", "/queue/jobs/nothing/lane"])
async def test_a_job_that_there_is_not_is_404(line: FakeLine, path: str) -> None:
    assert (await order(line, path, b'{"lane": "normal"}')).refusal == (404, "not_found")


async def test_what_cannot_be_done_any_more_is_409_and_not_worth_repeating(line: FakeLine) -> None:
    for error in (AlreadyRunning(), AlreadyEnded()):
        line.commands.error = error
        answer = await order(line, MOVE, b'{"lane": "normal"}')
        assert answer.refusal == (409, error.code)
        assert answer.headers["x-should-retry"] == "false"
    line.commands.error = Draining()
    assert (await order(line, "/queue/pause")).refusal == (503, "draining")


class Ended(FakeLine):
    """Its one job has ended."""

    def find(self, job_id: str) -> JobReport | None:
        found = super().find(job_id)
        return None if found is None else msgspec.structs.replace(found, state=State.EXPIRED.value)


@pytest.mark.parametrize("path", [CANCEL, MOVE])
async def test_a_job_that_has_ended_is_409(path: str) -> None:
    line = Ended()
    assert (await order(line, path, b'{"lane": "normal"}')).refusal == (409, "already_ended")
    assert line.commands.ordered == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (MOVE, b"", "lane"),
        (MOVE, b'{"lane": "urgent"}', "lane"),
        (MOVE, b'{"lane": 1}', "lane"),
        ("/queue/pause", b'{"unload": "yes"}', "unload"),
        ("/queue/pause", b"[]", None),
        ("/queue/pause", b"{", None),
        ("/queue/resume", b"7", None),
        (CANCEL, b'"x"', None),
        ("/queue/pause", b'{"a": [[[[[1]]]]]}', None),
    ],
)
async def test_a_wrong_body_is_400_and_names_the_field(
    line: FakeLine, path: str, body: bytes, param: str | None
) -> None:
    answer = await order(line, path, body)
    assert answer.refusal == (400, "invalid_request")
    assert answer.json["error"]["param"] == param
    assert line.commands.ordered == []


async def test_a_long_body_is_413(line: FakeLine) -> None:
    answer = await order(line, "/queue/pause", b" " * 5000)
    assert answer.refusal == (413, "body_too_large")
    assert "4096" in answer.json["error"]["message"]


# --- from where ---


@pytest.mark.parametrize(("path", "body"), ORDERS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1:11500"},
        {"origin": "chrome-extension://abcdef"},
        {"origin": "vscode-webview://abcdef"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
async def test_another_page_of_this_machine_may_ask_and_not_order(
    line: FakeLine, path: str, body: bytes, headers: dict[str, Any]
) -> None:
    answer = await order(line, path, body, **headers)
    assert answer.refusal == (403, "forbidden")
    assert line.commands.ordered == []
    if "origin" in headers:
        assert "LLM_QUEUE_ORIGINS" in answer.json["error"]["message"]
        assert answer.headers["access-control-allow-origin"] == headers["origin"]


@pytest.mark.parametrize(("path", "body"), ORDERS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*"])
async def test_a_page_of_another_site_may_not_order_even_where_every_origin_may_ask(
    line: FakeLine, path: str, body: bytes, origin: str
) -> None:
    for origins in ((), ("*",), ("*", "null")):
        answer = await order(line, path, body, origin=origin, settings=Settings(model="small", origins=origins))
        assert answer.refusal == (403, "forbidden")
    assert line.commands.ordered == []


@pytest.mark.parametrize("path", ["/queue/pause", CANCEL])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:11500", "sec_fetch_site": "same-origin"},
        {"origin": "HTTPS://LocalHost:11500"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-origin"},
        {"origin": "https://desk.example"},
        {"origin": "chrome-extension://mine"},
    ],
)
async def test_no_browser_our_own_page_and_what_the_settings_name_may_order(
    line: FakeLine, path: str, headers: dict[str, Any]
) -> None:
    settings = Settings(model="small", origins=("*", "https://desk.example/", "chrome-extension://mine"))
    assert (await order(line, path, settings=settings, **headers)).status == 200


@pytest.mark.parametrize(("path", "body"), ORDERS)
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/plain;json"]
)
async def test_what_a_form_can_send_is_no_order(line: FakeLine, path: str, body: bytes, kind: str) -> None:
    answer = await order(line, path, body, content_type=kind)
    assert answer.refusal == (400, "invalid_request")
    assert "Content-Type: application/json" in answer.json["error"]["message"]
    assert line.commands.ordered == []


async def test_a_body_says_that_it_is_json_and_an_empty_one_need_not(line: FakeLine) -> None:
    assert (await order(line, "/queue/pause", b"{}", content_type="(none)")).status == 400
    assert (await order(line, "/queue/pause", content_type="(none)")).status == 200
    assert (await order(line, "/queue/pause", b"{}", content_type="Application/JSON; charset=utf-8")).status == 200


@pytest.mark.parametrize("host", ["evil.example", "(none)"])
async def test_a_name_that_was_rebound_orders_nothing(line: FakeLine, host: str) -> None:
    answer = await order(line, "/queue/drain", host=host, origin="http://evil.example")
    assert answer.refusal == (403, "forbidden")


@pytest.mark.parametrize(
    ("peer", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("192.168.0.5", 200), ("192.168.0.9", 403), ("::ffff:192.168.0.9", 403)],
)
async def test_without_keys_another_machine_may_not_order(line: FakeLine, peer: str, status: int) -> None:
    settings = Settings(model="small", host="0.0.0.0", allow_open=True)
    assert (await order(line, "/queue/resume", settings=settings, peer=peer)).status == status
    assert (await order(line, "/queue/resume", key="o", peer=peer)).status == 200


# --- with which key ---


@pytest.mark.parametrize(("path", "body"), ORDERS)
async def test_where_there_are_keys_an_order_needs_one_and_a_key_without_a_ceiling_may_give_all(
    line: FakeLine, path: str, body: bytes
) -> None:
    assert (await order(line, path, body, key="wrong")).refusal == (401, "invalid_api_key")
    assert line.commands.ordered == []
    assert (await order(line, path, body, key="o")).status == 200


@pytest.mark.parametrize("key", ["c", "x", "n"])
@pytest.mark.parametrize("path", ["/queue/pause", "/queue/resume", "/queue/drain"])
async def test_a_key_with_a_highest_lane_does_not_command_the_line(line: FakeLine, key: str, path: str) -> None:
    answer = await order(line, path, key=key)
    assert answer.refusal == (403, "forbidden")
    assert line.commands.ordered == []


@pytest.mark.parametrize(("key", "status"), [("c", 200), ("x", 403), ("n", 403)])
@pytest.mark.parametrize("path", [CANCEL, MOVE])
async def test_such_a_key_commands_the_jobs_of_its_own_name(line: FakeLine, key: str, status: int, path: str) -> None:
    answer = await order(line, path, b'{"lane": "background"}', key=key, x_llm_queue_client="cron")
    assert answer.status == status
    assert bool(line.commands.ordered) is (status == 200)


async def test_and_moves_none_above_its_highest_lane(line: FakeLine) -> None:
    answer = await order(line, MOVE, b'{"lane": "interactive"}', key="c")
    assert answer.refusal == (403, "forbidden")
    assert "normal" in answer.json["error"]["message"]
    assert (await order(line, MOVE, b'{"lane": "normal"}', key="c")).status == 200
    assert line.commands.ordered == [("move", "job_0", Lane.NORMAL)]
