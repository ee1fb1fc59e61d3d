"""What strangers may cost: each of these was once a way to burden the service, or what is behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.errors import ModelNotFound, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.testing import ScriptedUpstream
from llm_queue.testing.scripted import scripted_model
from llm_queue.upstream.catalog import PAUSE, Catalog
from llm_queue.upstream.protocol import Model, NativeAnswer
from llm_queue.web.app import create_quart
from llm_queue.web.counting import MOST_COUNTED
from llm_queue.web.headers import MOST_DROPPED
from llm_queue.wire.shapes import Request

KNOWN = scripted_model("known")
MESSAGES = [{"role": "user", "content": "x"}]
COUNTING = {"/v1/messages/count_tokens": "messages", "/v1/responses/input_tokens": "input"}


# --- the list of models ---


@pytest.mark.parametrize("down", [False, True])
async def test_a_storm_of_names_that_nobody_has_costs_the_upstream_few_questions(
    autojump_clock: MockClock, down: bool
) -> None:
    upstream = ScriptedUpstream(known=[KNOWN])
    upstream.down = down
    catalog = Catalog(upstream)
    end = trio.current_time() + 10.0

    async def ask(number: int) -> None:
        while trio.current_time() < end:
            with pytest.raises((ModelNotFound, UpstreamUnreachable)):
                await catalog.resolve(f"nobody has {number} {trio.current_time()}")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert 10.0 / PAUSE - 2 <= upstream.questions.count("models") <= 10.0 / PAUSE + 2


async def test_the_first_who_asks_for_an_unknown_name_waits_for_nothing(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[KNOWN])
    catalog = Catalog(upstream)
    began = trio.current_time()
    await catalog.resolve("known")
    await trio.sleep(PAUSE)
    new = scripted_model("new")
    upstream.known = [KNOWN, new]
    assert (await catalog.resolve("new")).name == "new"
    assert trio.current_time() - began == pytest.approx(PAUSE)


async def test_a_name_that_has_come_is_found_also_by_who_asks_in_a_storm(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[KNOWN])
    catalog = Catalog(upstream)
    await catalog.resolve("known")
    upstream.known = [KNOWN, scripted_model("new")]
    assert (await catalog.resolve("new")).name == "new"


# --- prompts that are only counted ---


class Waiting:
    """A count that takes until it is told."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.asked = 0
        self.at_once = self.most = 0

    async def count(self, request: Request, model: Model) -> int | None:
        self.asked += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.go.wait()
        await trio.lowlevel.checkpoint()
        self.at_once -= 1
        return 12


def counted(path: str, text: str = "x") -> bytes:
    said = [{"role": "user", "content": text}]
    return msgspec.json.encode({"model": "small", COUNTING[path]: said})


@pytest.mark.parametrize("path", COUNTING)
async def test_bodies_count_until_their_prompts_are_counted(line: Any, path: str) -> None:
    waiting = Waiting()
    line.count_tokens = waiting.count
    body = counted(path, "x" * 1000)
    client = create_quart(Settings(model="small", max_waiting_bytes=3 * len(body)), line).test_client()
    statuses: list[int] = []

    async def count() -> None:
        statuses.append((await client.post(path, data=body)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(count)
        await wait_all_tasks_blocked()
        assert statuses == [429, 429]
        waiting.go.set()
    assert sorted(statuses) == [200, 200, 200, 429, 429]
    assert (await client.post(path, data=body)).status_code == 200


@pytest.mark.parametrize("path", COUNTING)
async def test_a_prompt_too_large_to_count_is_estimated(line: Any, path: str) -> None:
    line.counted = 12
    client = create_quart(Settings(model="small"), line).test_client()
    for text, estimated in (("x" * 1000, None), ("x" * (MOST_COUNTED + 1), "tokens")):
        response = await client.post(path, data=counted(path, text))
        assert (response.status_code, response.headers.get("X-LLM-Queue-Estimate")) == (200, estimated)
    assert len(line.asked_to_count) == 1


async def test_the_engine_counts_few_prompts_at_once_and_all_of_them_in_the_end(line: Any) -> None:
    waiting = Waiting()
    line.count_tokens = waiting.count
    path = "/v1/messages/count_tokens"
    client = create_quart(Settings(model="small"), line).test_client()
    async with trio.open_nursery() as nursery:

        async def count() -> None:
            assert (await client.post(path, data=counted(path))).status_code == 200

        for _ in range(14):
            nursery.start_soon(count)
        await wait_all_tasks_blocked()
        assert waiting.asked == 4
        waiting.go.set()
    assert (waiting.asked, waiting.most) == (14, 4)


# --- headers of answers ---


@pytest.mark.parametrize("path", ["/v1/responses/input_tokens", "/v1/messages/count_tokens"])
async def test_any_number_of_unknown_tools_makes_no_large_header(line: Any, path: str) -> None:
    tools = [{"type": f"t{number}", "name": f"n{number}"} for number in range(20_000)]
    body = {"model": "small", COUNTING[path]: MESSAGES, "tools": tools}
    response = (
        await create_quart(Settings(model="small"), line).test_client().post(path, data=msgspec.json.encode(body))
    )
    dropped = response.headers["X-LLM-Queue-Dropped"]
    assert response.status_code == 200
    assert len(dropped.split(", ")) <= MOST_DROPPED + 1
    assert len(dropped) < 4000


async def test_a_header_of_dropped_names_says_how_many_more_there_were(line: Any) -> None:
    tools = [{"type": f"t{number}"} for number in range(MOST_DROPPED + 3)]
    body = {"model": "small", "input": "x", "tools": tools}
    client = create_quart(Settings(model="small"), line).test_client()
    response = await client.post("/v1/responses/input_tokens", data=msgspec.json.encode(body))
    assert response.headers["X-LLM-Queue-Dropped"].endswith(", and 3 more")


# --- questions that Ollama is asked ---


class SlowOllama:
    """Answers when it is told."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.asked: list[str] = []

    async def ask(self, method: str, path: str, body: bytes = b"", *, program: str = "") -> NativeAnswer:
        self.asked.append(path)
        await self.go.wait()
        return NativeAnswer(404, "application/json", b'{"error":"not found"}')


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/tags"), ("GET", "/api/ps"), ("POST", "/api/show")])
async def test_ollama_is_asked_few_questions_at_once_and_all_of_them_in_the_end(
    line: Any, method: str, path: str
) -> None:
    line.ollama = ollama = SlowOllama()
    client = create_quart(Settings(model="small"), line).test_client()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            response = await getattr(client, method.lower())(path, data=b'{"model":"nobody has this"}')
            assert response.status_code == 404

        for _ in range(20):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert len(ollama.asked) == 4
        ollama.go.set()
    assert len(ollama.asked) == 20


@pytest.mark.parametrize("path", ["/api/show", "/api/pull", "/api/create", "/api/copy", "/api/push"])
async def test_bodies_of_questions_and_of_what_is_closed_share_the_bound_on_what_arrives(line: Any, path: str) -> None:
    client = create_quart(Settings(model="small", max_waiting_bytes=100), line).test_client()
    response = await client.post(path, data=b'{"model":"small","stream":false,"template":"' + b"x" * 200 + b'"}')
    assert response.status_code == 429


async def test_a_body_counts_until_ollama_has_answered(line: Any) -> None:
    line.ollama = ollama = SlowOllama()
    body = b'{"model":"' + b"m" * 200 + b'"}'
    client = create_quart(Settings(model="small", max_waiting_bytes=3 * len(body)), line).test_client()
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await client.post("/api/show", data=body)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert statuses == [429, 429]
        ollama.go.set()
    assert sorted(statuses) == [404, 404, 404, 429, 429]
