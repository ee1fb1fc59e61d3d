"""Ollama's dialect over HTTP: through the line, questions beside it, and what is closed."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import trio

from llm_queue.core.jobs import State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import LineFull, QueueError, UpstreamBroke, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.upstream.protocol import Model, NativeAnswer
from llm_queue.web.app import create_app, create_quart
from llm_queue.web.ollama_routes import CHANGES
from llm_queue.wire.shapes import Answer, Completion, Delta, LoadRequest, Vectors
from tests.web.conftest import FakeLine

CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
TAGS = {"models": [{"name": "small:latest", "digest": "sha", "details": {"context_length": 131072}}]}
PS = {"models": [{"name": "small", "context_length": 4096}, {"name": "gone", "context_length": 2048}]}
SHOW = {"model_info": {"general.architecture": "a", "a.context_length": 131072}, "parameters": ""}
JSON = "application/json; charset=utf-8"


class FakeOllama:
    """Answers questions as it is told, and remembers them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes, str]] = []
        self.answers: dict[str, NativeAnswer] = {
            "/api/version": NativeAnswer(200, JSON, b'{"version":"0.33.3"}'),
            "/api/tags": NativeAnswer(200, JSON, json.dumps(TAGS).encode()),
            "/api/ps": NativeAnswer(200, JSON, json.dumps(PS).encode()),
            "/api/show": NativeAnswer(200, JSON, json.dumps(SHOW).encode()),
        }

    async def ask(self, method: str, path: str, body: bytes = b"", *, program: str = "") -> NativeAnswer:
        await trio.lowlevel.checkpoint()
        self.asked.append((method, path, body, program))
        if path not in self.answers:
            raise UpstreamUnreachable
        return self.answers[path]

    async def relay(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        begin: Callable[[int, str], Awaitable[None]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        raise NotImplementedError


@pytest.fixture
def ollama(line: FakeLine) -> FakeOllama:
    line.ollama = FakeOllama()
    return line.ollama


def runs(*pieces: Delta | Vectors, completion: Completion | None = None, error: QueueError | None = None) -> Any:
    """A line that runs the job at once, with these pieces, to this end."""

    def script(ticket: Ticket) -> None:
        ticket.job.key = RunnerKey("sha", 8192)
        ticket.job.move(State.RUNNING, 12.5)
        for piece in pieces:
            ticket.put(piece)
        ticket.settle(error or completion or Completion("stop", 10, 2, finish_text="stop"))

    return script


def answers(answer: Answer) -> Any:
    return lambda ticket: ticket.settle(answer)


async def ask(line: Any, method: str, path: str, body: Any = None, headers: Any = None, **settings: Any) -> Any:
    client: Any = create_quart(Settings(model="small", **settings), line).test_client()
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    response: Any = await client.open(path, method=method, data=data, headers=headers or {})
    text = await response.get_data()
    response.lines = [json.loads(one) for one in text.splitlines()] if response.content_type.startswith("appl") else []
    return response


# --- through the line -------------------------------------------------------------------------------------------------


async def test_a_chat_is_a_stream_of_lines_whatever_type_its_body_has(line: Any) -> None:
    line.script = runs(Delta("hel"), Delta("lo"))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await ask(line, "POST", "/api/chat", CHAT, form)
    assert (response.status_code, response.content_type) == (200, "application/x-ndjson")
    assert [one["message"] for one in response.lines] == [
        {"role": "assistant", "content": text} for text in ("hel", "lo", "")
    ]
    assert [one["done"] for one in response.lines] == [False, False, True]
    assert {one["model"] for one in response.lines} == {"small"}
    assert line.tickets[0].submission.stream


async def test_a_whole_chat_is_one_object(line: Any) -> None:
    line.script = answers(Answer(Delta("hello"), Completion("stop", 10, 2, finish_text="stop")))
    response = await ask(line, "POST", "/api/chat", CHAT | {"stream": False, "options": {"num_gpu": 1}})
    assert (response.status_code, response.content_type) == (200, JSON)
    (body,) = response.lines
    assert (body["message"]["content"], body["done_reason"], body["eval_count"]) == ("hello", "stop", 2)
    assert response.headers["X-LLM-Queue-Dropped"] == "num_gpu"


async def test_a_text_a_vector_and_a_vector_of_the_older_kind(line: Any) -> None:
    line.script = runs(Delta("on"))
    response = await ask(line, "POST", "/api/generate", {"model": "small", "prompt": "once"})
    assert [one["response"] for one in response.lines] == ["on", ""]
    line.script = answers(Answer(Delta(), Completion("stop", 3), ((1.0, 0.0),)))
    response = await ask(line, "POST", "/api/embed", {"model": "small", "input": "a"})
    assert response.lines == [{"model": "small", "embeddings": [[1.0, 0.0]], "prompt_eval_count": 3}]
    response = await ask(line, "POST", "/api/embeddings", {"model": "small", "prompt": "a"})
    assert (response.lines, response.content_type) == ([{"embedding": [1.0, 0.0]}], JSON)


async def test_an_error_in_mid_stream_is_the_last_line(line: Any) -> None:
    line.script = runs(Delta("hel"), error=UpstreamBroke("it broke"))
    response = await ask(line, "POST", "/api/chat", CHAT)
    assert response.status_code == 200
    assert response.lines[-1] == {"error": "it broke"}
    assert not any(one.get("done") for one in response.lines)


async def test_a_wait_of_minutes_is_filled_with_usual_lines_and_ends_in_an_answer(
    clock: Any, line: Any, serving: Any
) -> None:
    body = json.dumps(CHAT).encode()
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    data, heard = b"", [0.0]
    async with serving() as server, await server.connect(head + body) as stream:
        began = trio.current_time()
        while (at := trio.current_time() - began) < 330:
            data += bytes(await stream.receive_some(65536))
            heard.append(at)
        runs(Delta("hello"))(line.tickets[0])
        while piece := await stream.receive_some(65536):
            data += bytes(piece)
    said = [json.loads(one) for one in data.splitlines() if one.startswith(b"{")]
    assert len(said) > 30
    assert {one["message"]["content"] for one in said[:-2]} == {""}
    assert [one["message"]["content"] for one in said[-2:]] == ["hello", ""]
    assert [one["done"] for one in said] == [False] * (len(said) - 1) + [True]
    assert max(later - earlier for earlier, later in itertools.pairwise(heard)) < 11


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", {}, 400, "model is required"),
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/generate", {}, 404, "model '' not found"),
        ("/api/embed", {"model": "nope", "input": "a"}, 404, 'model "nope" not found, try pulling it first'),
        ("/api/embeddings", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
        ("/api/embeddings", {}, 400, "model is required"),
        ("/api/me", {}, 404, "There is nothing at /api/me. The chat endpoint is POST /api/chat."),
        ("/api/experimental/web_search", {}, 404, "There is nothing at /api/experimental/web_search. The chat"),
        ("/api/chat/", {}, 400, "model is required"),
    ],
)
async def test_errors_are_in_ollamas_shape(line: Any, path: str, body: Any, status: int, text: str) -> None:
    response = await ask(line, "POST", path, body)
    assert (response.status_code, response.content_type) == (status, JSON)
    (error,) = response.lines
    assert list(error) == ["error"]
    assert error["error"].startswith(text)
    assert line.tickets == []


async def test_a_wrong_method_and_a_full_line_are_in_ollamas_shape_as_well(line: Any) -> None:
    response = await ask(line, "GET", "/api/chat")
    assert (response.status_code, response.lines) == (405, [{"error": "/api/chat takes POST, not GET."}])
    line.error = LineFull("full", retry_after=3)
    response = await ask(line, "POST", "/api/chat", CHAT)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3")
    assert response.lines == [{"error": "full"}]


async def test_a_key_is_a_bearer_token(line: Any) -> None:
    app = create_app(Settings(model="small", api_keys=("laptop=secret",)), line)
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer ollama")]
    scope = {"type": "http", "method": "GET", "path": "/api/tags", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    assert messages[0]["status"] == 401
    assert (b"content-type", JSON.encode()) in messages[0]["headers"]
    assert list(json.loads(messages[1]["body"])) == ["error"]


# --- loads and unloads ------------------------------------------------------------------------------------------------


async def test_an_empty_chat_is_a_load_through_the_line_and_one_object(line: Any) -> None:
    line.script = answers(Answer(Delta(), Completion("load", finish_text="load")))
    response = await ask(
        line, "POST", "/api/chat", {"model": "small", "messages": [], "stream": True, "keep_alive": -1}
    )
    assert response.content_type == JSON
    assert response.lines[0]["done_reason"] == "load"
    assert line.tickets[0].submission.request == LoadRequest("small", float("inf"))


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_a_model_that_others_want_is_not_unloaded_and_nobody_waits(line: Any, path: str) -> None:
    line.unloadable = False
    response = await ask(line, "POST", path, {"model": "small", "keep_alive": 0})
    assert (response.status_code, response.content_type) == (200, JSON)
    assert {"done": True, "done_reason": "unload"}.items() <= response.lines[0].items()
    assert line.tickets == []


async def test_a_model_that_nobody_wants_is_unloaded_through_the_line(line: Any) -> None:
    line.script = answers(Answer(Delta(), Completion("unload", finish_text="unload")))
    response = await ask(line, "POST", "/api/generate", {"model": "small", "keep_alive": "0s"})
    assert response.lines[0]["done_reason"] == "unload"
    assert line.tickets[0].submission.request == LoadRequest("small", unload=True)


async def test_an_unload_while_the_upstream_is_away_has_nothing_to_do(line: Any) -> None:
    line.catalog.error = UpstreamUnreachable()
    response = await ask(line, "POST", "/api/generate", {"model": "small", "keep_alive": 0})
    assert (response.status_code, line.tickets) == (200, [])


# --- questions --------------------------------------------------------------------------------------------------------


async def test_the_root_says_that_ollama_is_running(line: Any) -> None:
    client = create_quart(Settings(), line).test_client()
    response: Any = await client.get("/")
    assert (response.status_code, response.content_type) == (200, "text/plain; charset=utf-8")
    assert await response.get_data() == b"Ollama is running"


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/api/version", 200), ("/api/tags", 200), ("/api/ps", 405)])
@pytest.mark.parametrize("native", [True, False])
async def test_head(
    line: Any, clock: Any, serving: Any, ollama: FakeOllama, path: str, status: int, native: bool
) -> None:
    line.ollama = line.ollama if native else None
    request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    async with serving() as server, await server.connect(request) as stream:
        data = b""
        while piece := await stream.receive_some(65536):
            data += bytes(piece)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode())
    assert body == b""


async def test_an_ollama_answers_for_itself_but_for_the_context(line: Any, ollama: FakeOllama) -> None:
    line.granted = 16384
    assert (await ask(line, "GET", "/api/version")).lines == [{"version": "0.33.3"}]
    (tags,) = (await ask(line, "GET", "/api/tags")).lines
    assert tags["models"][0]["details"] == {"context_length": 16384}
    (ps,) = (await ask(line, "GET", "/api/ps")).lines
    assert [model["context_length"] for model in ps["models"]] == [16384, 2048]
    body = b'{"model":"small","verbose":true}'
    (show,) = (await ask(line, "POST", "/api/show", body, {"User-Agent": "GitHubCopilotChat/1"})).lines
    assert show["model_info"]["a.context_length"] == 16384
    assert show["parameters"] == "num_ctx                        16384"
    assert ollama.asked[-1] == ("POST", "/api/show", body, "GitHubCopilotChat/1")


async def test_an_ollamas_refusal_comes_as_it_is(line: Any, ollama: FakeOllama) -> None:
    ollama.answers["/api/show"] = NativeAnswer(404, JSON, b'{"error":"model \'nope:latest\' not found"}')
    response = await ask(line, "POST", "/api/show", {"name": "nope"})
    assert (response.status_code, response.lines) == (404, [{"error": "model 'nope:latest' not found"}])
    for body, text in ((b"", "missing request body"), (b"{}", "model is required")):
        assert (await ask(line, "POST", "/api/show", body)).lines == [{"error": text}]
    del ollama.answers["/api/tags"]
    response = await ask(line, "GET", "/api/tags")
    assert (response.status_code, list(response.lines[0])) == (502, ["error"])


async def test_a_model_is_shown_by_an_alias_of_the_lines_own(line: Any, ollama: FakeOllama) -> None:
    ollama.answers["/api/show"] = NativeAnswer(404, JSON, b'{"error":"model \'gpt:latest\' not found"}')
    line.catalog.listed = [Model("gpt", "sha")]
    assert (await ask(line, "POST", "/api/show", {"model": "gpt", "verbose": True})).status_code == 404
    assert [body for _, _, body, _ in ollama.asked] == [b'{"model": "gpt", "verbose": true}', b'{"model":"gpt"}']


async def test_what_runs_elsewhere_keeps_its_context(line: Any, ollama: FakeOllama) -> None:
    line.catalog.listed = [Model("small", "sha", remote=True)]
    (show,) = (await ask(line, "POST", "/api/show", {"model": "small"})).lines
    assert show == SHOW


async def test_without_an_ollama_the_line_answers(line: Any) -> None:
    line.catalog.listed = [Model("small", "sha", created=7, trained=4096), Model("x:1", "y", created=8)]
    (tags,) = (await ask(line, "GET", "/api/tags")).lines
    assert [model["name"] for model in tags["models"]] == ["small:latest", "x:1"]
    assert [model["details"]["context_length"] for model in tags["models"]] == [4096, 8192]
    (ps,) = (await ask(line, "GET", "/api/ps")).lines
    assert [model["context_length"] for model in ps["models"]] == [8192, 8192]
    (show,) = (await ask(line, "POST", "/api/show", {"model": "small"})).lines
    assert show["parameters"] == "num_ctx                        4096"
    assert "version" in (await ask(line, "GET", "/api/version")).lines[0]
    response = await ask(line, "POST", "/api/show", {"model": "nope"})
    assert (response.status_code, response.lines) == (404, [{"error": "model 'nope:latest' not found"}])


# --- what is closed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHANGES)
async def test_what_changes_ollama_is_refused_with_the_command_that_does_it(
    line: Any, ollama: FakeOllama, path: str
) -> None:
    method, command = CHANGES[path]
    if "blobs" not in path:
        command = command.replace("NAME", "x")
    address = path.replace("<digest>", "sha256:ab")
    response = await ask(line, method, address, {"model": "x", "stream": False})
    assert (response.status_code, response.content_type) == (403, JSON)
    (error,) = response.lines
    assert f"OLLAMA_HOST=http://scripted.test ollama {command}" in error["error"]
    assert "--allow-ollama-admin" in error["error"]
    assert line.refused == [("forbidden", "Quart")]


@pytest.mark.parametrize("body", [{"model": "x"}, {"name": "x", "stream": True}, b"", b"no json"])
async def test_a_pull_that_is_streamed_is_refused_in_a_line_that_programs_show(line: Any, body: Any) -> None:
    response = await ask(line, "POST", "/api/pull", body)
    assert (response.status_code, response.content_type) == (200, "application/x-ndjson")
    assert [list(one) for one in response.lines] == [["error"]]
    assert line.refused == [("forbidden", "Quart")]


async def test_where_there_is_no_ollama_there_is_nothing_to_change(line: Any) -> None:
    response = await ask(line, "DELETE", "/api/delete", {"model": "x"})
    assert (response.status_code, "no Ollama" in response.lines[0]["error"]) == (403, True)
    assert (await ask(line, "HEAD", "/api/blobs/sha256:ab")).status_code == 403
