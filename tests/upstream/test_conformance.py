"""Every upstream keeps the promises of the protocol: one suite, run on each of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from llm_queue.testing import Break, Busy, Refuse, Say, ScriptedUpstream, Stall, prompt_of
from llm_queue.testing.conformance import CHECKS, Check, Subject, a_refusal_has_the_status_of_the_upstream
from llm_queue.testing.fake_ollama import Behaviour, FakeOllama, serve
from llm_queue.testing.scripts import Script
from llm_queue.upstream.embedded import Embedded
from llm_queue.upstream.ollama import Ollama
from llm_queue.upstream.openai import OpenAIServer
from llm_queue.upstream.protocol import Model
from tests.upstream.stand_in import STAND_IN, model
from tests.upstream.test_openai import HALF, STREAM, Server, answer, chunked

SCRIPTS: dict[str, Script] = {
    "hello": Say(),
    "hang": Stall(1),
    "refuse": Refuse(),
    "busy": Busy(),
    "break": Break(after_tokens=1),
    "calls": Say('{"at": "sea", "times": 1}'),
}

TEXT = b'data: {"choices":[{"text":"on and on","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
VECTORS = b'{"data":[{"index":2,"embedding":[3,0]},{"index":0,"embedding":[1,0]},{"index":1,"embedding":[2,0]}]}'

Subjects = Callable[[Path], AbstractAsyncContextManager[Subject]]


@asynccontextmanager
async def scripted(_: Path) -> AsyncIterator[Subject]:
    upstream = ScriptedUpstream(load_seconds=0, by_request=lambda request: SCRIPTS.get(prompt_of(request), Say()))

    async def stop() -> None:
        upstream.down = True
        await trio.lowlevel.checkpoint()

    async def unloadable() -> Model:
        upstream.then_load(Break())
        return (await upstream.models())[0]

    yield Subject(
        upstream,
        hangs="hang",
        refused="refuse",
        broken="break",
        stop=stop,
        in_flight=lambda: flying(upstream),
        busy="busy",
        unloadable=unloadable,
        texts=True,
        embeds=True,
        calls="calls",
    )
    assert upstream.overlaps == []


def flying(upstream: ScriptedUpstream) -> int:
    return sum(record.end is None for record in upstream.requests)


@asynccontextmanager
async def ollama(_: Path) -> AsyncIterator[Subject]:
    fake, running = FakeOllama(Behaviour(load_seconds=0.0, token_seconds=0.0)), trio.CancelScope()

    async def serving(task_status: trio.TaskStatus[str]) -> None:
        with running:
            await serve(fake, task_status=task_status)

    async with trio.open_nursery() as nursery:
        upstream = Ollama(await nursery.start(serving))

        async def stop() -> None:
            running.cancel()
            await upstream.aclose()

        subject = Subject(upstream, "!say hello", "!stall 1", "!refuse 400 no", "!short 1", stop)

        async def unloadable() -> Model:
            fake.behaviour.load_error = "no room for it"
            return (await upstream.models())[0]

        yield replace(subject, in_flight=lambda: fake.in_flight, busy="!busy", unloadable=unloadable, calls="look")
        await stop()


@asynccontextmanager
async def openai(_: Path) -> AsyncIterator[Subject]:
    server = Server()
    whole = server.says

    def steer(chat: dict[str, Any]) -> None:
        question = "texts" if "prompt" in chat else "embeds" if "input" in chat else chat["messages"][0]["content"]
        server.hangs = question == "hang"
        server.says = {
            "hang": STREAM + chunked(HALF),
            "refuse": answer(b'{"error":"no"}', 400),
            "busy": answer(b'{"error":"later"}', 503),
            "texts": STREAM + chunked(TEXT) + b"0\r\n\r\n",
            "embeds": answer(VECTORS),
            "break": STREAM + chunked(HALF) + b"0\r\n\r\n",
            "calls": STREAM + chunked(called(chat)) + b"0\r\n\r\n",
        }.get(question, whole)

    server.steer = steer
    running = trio.CancelScope()

    async def serving() -> None:
        with running:
            await trio.serve_listeners(server.handle, [listener])

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving)
        upstream = OpenAIServer(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")

        async def stop() -> None:
            running.cancel()
            await upstream.aclose()

        subject = Subject(upstream, hangs="hang", refused="refuse", broken="break", stop=stop, num_ctx=0)
        yield replace(subject, in_flight=lambda: server.in_flight, busy="busy", texts=True, embeds=True, calls="calls")
        await stop()
        nursery.cancel_scope.cancel()


def called(chat: dict[str, Any]) -> bytes:
    """A call in two pieces of the tool that must be called."""
    choice = chat.get("tool_choice")
    tool = chat["tools"][0]["function"] if choice == "required" else choice["function"] if choice else {"name": "none"}
    pieces = [
        {"index": 0, "id": "a", "function": {"name": tool["name"], "arguments": '{"at": "s'}},
        {"index": 0, "function": {"arguments": 'ky", "times": 2}'}},
    ]
    choices: list[dict[str, Any]] = [{"delta": {"tool_calls": [piece]}} for piece in pieces]
    choices.append({"delta": {}, "finish_reason": "tool_calls"})
    return b"".join(b"data: " + json.dumps({"choices": [one]}).encode() + b"\n\n" for one in choices)


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Subject]:
    upstream = Embedded(folder, command=STAND_IN)
    yield Subject(
        upstream,
        hangs="hang",
        refused="fail: the request",
        broken="die",
        unloadable=lambda: model(upstream, "dies"),
        calls="call",
    )
    await upstream.aclose()


@pytest.mark.parametrize("subjects", [scripted, ollama, openai, embedded], ids=lambda made: made.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_an_upstream_keeps_its_promises(check: Check, subjects: Subjects, folder: Path) -> None:
    async with subjects(folder) as subject:
        await check(subject)


async def test_an_upstream_that_does_not_keep_one_is_found() -> None:
    upstream = ScriptedUpstream(default=Say())
    with pytest.raises(AssertionError, match="it was not refused"):
        await a_refusal_has_the_status_of_the_upstream(Subject(upstream, refused="refuse"))
