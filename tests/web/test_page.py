"""The live page as it is served: to whom, under which headers, and that its files are what they promise to be."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from llm_queue.settings import Settings
from llm_queue.web.app import create_app, create_quart
from llm_queue.web.page import ADDRESSES, FILES, INDEX, POLICY, wants_page
from tests.web.conftest import FakeLine

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
SCRIPTS = {name: file.body.decode() for name, file in FILES.items() if name.endswith(".js")}
MOST_LINES = 400


async def ask(path: str, method: str = "GET", **headers: str) -> Any:
    client: Any = create_quart(Settings(), FakeLine()).test_client()
    return await client.open(path, method=method, headers={name.replace("_", "-"): headers[name] for name in headers})


async def through_the_gate(path: str, key: bool = True, /, **headers: str) -> int:
    """The status that a GET without a key gets."""
    app = create_app(Settings(model="small", api_keys=("secret",) if key else ()), FakeLine())
    sent: list[Any] = []
    asked: list[bool] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        if sent or asked:
            await trio.sleep_forever()
        asked.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}

    pairs = [(name.encode(), value.encode()) for name, value in ({"host": "localhost"} | headers).items()]
    await app(
        {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": pairs, "scheme": "http",
         "http_version": "1.1", "raw_path": path.encode(), "root_path": "", "client": ("127.0.0.1", 1),
         "server": ("127.0.0.1", 2), "extensions": {}, "asgi": {"spec_version": "2.3", "version": "3.0"}},
        receive,
        send,
    )  # fmt: skip
    names = {bytes(name).lower() for name, _ in sent[0]["headers"]}
    assert (b"content-length" in names) == (sent[0]["status"] != 304)  # there, it would be the length of nothing
    status: int = sent[0]["status"]
    return status


# --- who gets it ---


@pytest.mark.parametrize("accept", [BROWSER, "TEXT/HTML", "application/json, text/html;q=0.5"])
async def test_a_browser_gets_the_page_at_the_root(accept: str) -> None:
    response = await ask("/", Accept=accept)
    assert (response.status_code, response.content_type) == (200, "text/html; charset=utf-8")
    assert await response.get_data() == FILES[INDEX].body
    assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}, {"Accept": "application/json"}, {"Accept": "text/plain"}])
async def test_a_program_still_hears_that_ollama_is_running(headers: dict[str, str]) -> None:
    response = await ask("/", **headers)
    assert await response.get_data() == b"Ollama is running"
    assert response.headers["Vary"] == "Accept"
    assert "Content-Security-Policy" not in response.headers


async def test_ui_is_the_page_whatever_is_accepted() -> None:
    response = await ask("/ui", Accept="*/*")
    assert await response.get_data() == FILES[INDEX].body


def test_no_type_that_has_html_in_its_name_only_is_taken_for_it() -> None:
    assert not wants_page("application/text/html-like, x-text/html")
    assert not wants_page("")


# --- under which headers ---


@pytest.mark.parametrize("path", ["/ui", *ADDRESSES])
async def test_every_file_comes_under_a_strict_policy_and_is_asked_for_again_each_time(path: str) -> None:
    response = await ask(path)
    assert response.status_code == 200
    assert response.headers["Content-Security-Policy"] == POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"
    again = await ask(path, If_None_Match=response.headers["ETag"])
    assert (again.status_code, await again.get_data()) == (304, b"")
    assert again.headers["ETag"] == response.headers["ETag"]
    assert (await ask(path, If_None_Match='"another"')).status_code == 200


async def test_head_has_the_same_headers() -> None:
    asked, told = await ask("/ui/page.css"), await ask("/ui/page.css", "HEAD")
    assert (told.status_code, dict(told.headers)) == (200, dict(asked.headers))


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2fapp.py", "../app.py", "page.py"])
async def test_nothing_else_is_below_it(name: str) -> None:
    assert (await ask(f"/ui/{name}")).status_code == 404


def test_the_policy_allows_nothing_but_our_own() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert {rules[kind] for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}


# --- through the gate ---


@pytest.mark.parametrize("path", ADDRESSES)
async def test_a_browser_without_the_key_gets_the_page_but_nothing_of_the_line(path: str) -> None:
    assert await through_the_gate(path) == 200
    assert await through_the_gate("/", accept=BROWSER) == 200
    tag = FILES[path.removeprefix("/ui/") if path != "/ui" else INDEX].tag
    assert await through_the_gate(path, True, **{"if-none-match": f'W/"{tag}"'}) == 304
    for other in ("/queue", "/queue/jobs/job_0", "/queue/events", "/v1/models"):
        assert await through_the_gate(other, accept=BROWSER) == 401


async def test_the_root_wants_a_key_of_programs_as_before() -> None:
    assert await through_the_gate("/") == 401
    assert await through_the_gate("/", accept="*/*") == 401


@pytest.mark.parametrize("path", ["/", *ADDRESSES])
@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}])
async def test_a_stranger_gets_no_file_of_it(path: str, headers: dict[str, str]) -> None:
    assert await through_the_gate(path, False, **headers) == 403


# --- what its files are ---


def test_the_page_names_only_files_that_there_are() -> None:
    named = set(re.findall(r'(?:src|href)="(/ui/[^"]*)"', FILES[INDEX].body.decode()))
    for text in SCRIPTS.values():
        named |= {f"/ui/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
    assert named == set(ADDRESSES) - {"/ui"}


@pytest.mark.parametrize("name", FILES)
def test_no_file_asks_anybody_else_for_anything(name: str) -> None:
    text = FILES[name].body.decode()
    allowed = ("http://www.w3.org/2000/svg",)  # a name, which is asked for nothing
    assert [
        url for url in re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", text) if url not in allowed
    ] == []
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_html_of_text_or_code_of_it(name: str) -> None:
    forbidden = (
        *(r"\.innerHTML", r"\.outerHTML", "insertAdjacentHTML", r"document\.write", "DOMParser", "setHTML", "srcdoc"),
        *("createContextualFragment", r"\beval\(", r"new Function", r"setTimeout\([\"'`]", r"setAttribute\(\"on"),
        *("localStorage", r"document\.cookie", "importScripts"),
    )
    found = [pattern for pattern in forbidden if re.search(pattern, SCRIPTS[name])]
    assert found == []


def test_the_page_has_no_script_or_style_in_it() -> None:
    text = FILES[INDEX].body.decode()
    assert re.findall(r"\son[a-z]+=|\sstyle=|<style|javascript:", text) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []


def test_the_key_is_kept_in_this_tab_and_nowhere_else() -> None:
    keeping = [name for name, text in SCRIPTS.items() if "sessionStorage" in text]
    assert keeping == ["service.js"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_one_thing(name: str) -> None:
    assert FILES[name].body.count(b"\n") <= MOST_LINES
