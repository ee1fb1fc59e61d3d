"""The fake Ollama keeps the rules of the real one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.testing.fake_ollama import FakeOllama, serve
from llm_queue.testing.fake_ollama.behaviour import Behaviour, Refusal, read_directives
from llm_queue.testing.fake_ollama.fitting import fitting_tokens
from llm_queue.testing.fake_ollama.runners import Runners, seconds_of
from llm_queue.upstream.transport import OneConnection


class Client:
    """Asks the fake, one request after the other."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.AsyncClient(base_url=url, transport=OneConnection(), trust_env=False, timeout=None)

    async def chat(self, text: str | None = "hello", **body: Any) -> list[dict[str, Any]]:
        messages = [] if text is None else [{"role": "user", "content": text}]
        response = await self._client.post("/api/chat", json={"model": "fake", "messages": messages} | body)
        return [{"status": response.status_code} | json.loads(line) for line in response.text.splitlines() if line]

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self._client.post(path, json={"model": "fake"} | body)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.aclose()

    async def get(self, path: str) -> httpx.Response:
        return await self._client.get(path)


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama(Behaviour(models=["fake", "other"], load_seconds=0.0, token_seconds=0.0, keep_alive=60))


@pytest.fixture
async def client(fake: FakeOllama, nursery: trio.Nursery) -> AsyncIterator[Client]:
    async with Client(await nursery.start(serve, fake)) as client:
        yield client


def content(lines: list[dict[str, Any]]) -> str:
    return "".join(line["message"]["content"] for line in lines)


async def test_another_context_or_another_model_is_a_reload(client: Client, fake: FakeOllama) -> None:
    await client.chat(options={"num_ctx": 8192})
    await client.chat(options={"num_ctx": 8192})
    await client.chat()  # without one: the default, which differs
    await client.chat(options={"num_ctx": 8192})
    await client.chat(model="other", options={"num_ctx": 8192})
    assert [(load.model, load.num_ctx) for load in fake.loads] == [
        ("fake:latest", 8192),
        ("fake:latest", 4096),
        ("fake:latest", 8192),
        ("other:latest", 8192),
    ]
    resident = (await client.get("/api/ps")).json()["models"]
    assert [(model["name"], model["context_length"]) for model in resident] == [("other:latest", 8192)]


async def test_a_context_above_the_trained_one_is_clamped(client: Client, fake: FakeOllama) -> None:
    fake.behaviour.trained = 10000
    await client.chat(options={"num_ctx": 20000})
    await client.chat(options={"num_ctx": 10000})
    assert [load.num_ctx for load in fake.loads] == [10000]


async def test_a_chat_without_messages_loads_and_keep_alive_0_unloads(client: Client, fake: FakeOllama) -> None:
    (line,) = await client.chat(None)
    assert (line["done"], line["done_reason"]) == (True, "load")
    (line,) = await client.chat(None, keep_alive=0)
    assert line["done_reason"] == "unload"
    assert (await client.get("/api/ps")).json() == {"models": []}


async def test_to_unload_what_is_not_loaded_loads_nothing(client: Client, fake: FakeOllama) -> None:
    await client.chat(None)
    (line,) = await client.chat(None, model="other", keep_alive=0)
    assert line["done_reason"] == "unload"
    assert [load.model for load in fake.loads] == ["fake:latest"]


async def test_a_model_goes_when_nobody_has_used_it_for_its_lifetime(autojump_clock: trio.testing.MockClock) -> None:
    runners = Runners(max_loaded=2, keep_alive=60)
    for name, keep_alive in (("short", None), ("long", 3600.0), ("long", None)):
        async with runners.use(name, 4096, keep_alive):
            await trio.sleep(100)  # it never goes while it is used
    assert runners.resident() == {"long": 4096}
    await trio.sleep(3600)
    assert runners.resident() == {}


@pytest.mark.parametrize(
    ("value", "seconds"), [(300, 300), (-1, float("inf")), ("1h30m", 5400), ("500ms", 0.5), ("-1m", float("inf"))]
)
def test_a_lifetime_is_read_as_go_does(value: object, seconds: float) -> None:
    assert seconds_of(value) == seconds


@pytest.mark.parametrize("value", ["-1", "5x", "", "h"])
def test_a_lifetime_that_go_does_not_read_is_a_400(value: str) -> None:
    with pytest.raises(Refusal):
        seconds_of(value)


async def test_whole_answers_are_the_streamed_ones_in_one(client: Client) -> None:
    streamed = await client.chat("!say a  b\nc")
    (whole,) = await client.chat("!say a  b\nc", stream=False)
    assert content(streamed) == content([whole]) == "a  b\nc"
    assert whole["eval_count"] == streamed[-1]["eval_count"] == len(streamed) - 1


async def test_num_predict_cuts_the_answer(client: Client) -> None:
    lines = await client.chat("!tokens 9", options={"num_predict": 4})
    assert (len(lines), lines[-1]["done_reason"], lines[-1]["eval_count"]) == (5, "length", 4)


@pytest.mark.parametrize(
    ("words", "counted"),
    [([99], 99), ([100], 52), ([4000], 52), ([60, 60, 30], 90), ([90, 5, 60], 65), ([60, 60, 150], 52)],
)
async def test_a_prompt_that_is_too_long_is_cut_without_a_word(
    words: list[int], counted: int, client: Client, fake: FakeOllama
) -> None:
    messages = [{"role": "user", "content": "x " * number} for number in words]
    (answer,) = await client.chat(messages=messages, stream=False, options={"num_ctx": 100})
    assert answer["prompt_eval_count"] == counted


async def test_the_systems_message_is_not_cut(client: Client) -> None:
    roles = {"system": 10, "user": 80, "assistant": 30}
    messages = [{"role": role, "content": "x " * number} for role, number in roles.items()]
    (answer,) = await client.chat(messages=messages, stream=False, options={"num_ctx": 100})
    assert answer["prompt_eval_count"] == 40


async def test_a_prompt_that_must_not_be_cut_is_refused(client: Client) -> None:
    (answer,) = await client.chat("x " * 101, truncate=False, options={"num_ctx": 100})
    assert answer["status"] == 400
    told = json.loads(answer["error"])["error"]
    assert (told["type"], told["n_prompt_tokens"], told["n_ctx"]) == ("exceed_context_size_error", 101, 100)


async def test_tools_thinking_and_formats_are_answered(client: Client) -> None:
    called = (await client.chat("!tool weather", tools=[{"type": "function"}]))[-1]
    assert called["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert (await client.chat(think=True))[0]["message"]["thinking"]
    assert json.loads(content(await client.chat(format="json"))) == {"answer": 42}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {}),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b", "a"]}, {"a": 42, "b": {}}),
        ({"type": ["string", "null"], "minLength": 2}, "xx"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"type": "array"}, []),
        ({"type": "number", "minimum": 50}, 50),
        ({"type": "integer", "minimum": 3, "maximum": 5}, 5),
        ({"type": "integer", "maximum": 7}, 7),
        ({"type": "null"}, None),
        ({"const": {"a": 1}}, {"a": 1}),
        ({"enum": ["first", "second"]}, "first"),
        ({"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}], "$defs": {"A": {"oneOf": [{"const": 7}]}}}, 7),
        ({"properties": {"a": {"$ref": "#/allOf/0/properties/b"}}, "required": ["a"],
          "allOf": [{"properties": {"b": {"const": 1}}, "required": ["b"]}]}, {"a": 1, "b": 1}),
    ],
)  # fmt: skip
async def test_a_schema_is_answered_with_little_that_fits(schema: Any, value: Any, client: Client) -> None:
    lines = await client.chat(format=schema)
    assert json.loads(content(lines)) == value
    assert json.loads((await client.chat(format=schema, stream=False))[0]["message"]["content"]) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/nobody"}}, "required": ["a"]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "#"},
        {"$ref": "#/anyOf/3", "anyOf": []},
        {"type": "thing"},
        {"anyOf": []},
        {"anyOf": [False]},
        {"properties": {"a": "string"}, "required": ["a"]},
    ],
)
async def test_a_schema_that_cannot_be_kept_is_as_none_for_the_fake_and_for_ollama(schema: Any, client: Client) -> None:
    assert content(await client.chat(format=schema)) == "no such schema"


WORDS = (
    *("$ref", "$defs", "const", "enum", "anyOf", "oneOf", "allOf", "type", "properties", "required", "items"),
    *("minItems", "minLength", "minimum", "maximum", "format", "#", "#/$defs/a", "a", "object", "array", "string"),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**15) | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=5))
def test_no_schema_ends_the_fake_or_makes_it_say_without_end(schema: Any) -> None:
    assert sum(map(len, fitting_tokens(schema))) < 10**7


async def test_what_is_to_be_said_verbatim_is_said_whatever_the_format(client: Client) -> None:
    assert content(await client.chat("!say no call", format={"type": "object"})) == "no call"
    (*_, last) = await client.chat(format={"enum": [["a", "b", "c"]]}, options={"num_predict": 3})
    assert (last["done_reason"], last["eval_count"]) == ("length", 3)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "../x"}, 400, "invalid model name"),
        ({"options": {"num_ctx": "big"}}, 500, 'option "num_ctx" must be of type integer'),
        ({"keep_alive": "-1"}, 400, 'time: missing unit in duration "-1"'),
        ({"keep_alive": "5x"}, 400, 'time: unknown unit "x" in duration "5x"'),
        (
            {"think": "hard"},
            400,
            'invalid think value: "hard" (must be "high", "medium", "low", "max", true, or false)',
        ),
        ({"format": "xml"}, 500, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
        ({"text": "!refuse 418 tea"}, 418, "tea"),
        ({"text": "!error500"}, 500, "an error was encountered while running the model: unexpected EOF"),
        ({"text": "!busy"}, 503, "server busy, please try again.  maximum pending requests exceeded"),
        ({"text": "!unheard of"}, 400, "the fake does not understand '!unheard of'"),
    ],
)
async def test_refusals_have_ollamas_status_and_text(
    body: dict[str, Any], status: int, error: str, client: Client
) -> None:
    assert await client.chat(**body) == [{"status": status, "error": error}]


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
async def test_a_body_that_is_no_request_is_a_400(body: bytes, fake: FakeOllama, nursery: trio.Nursery) -> None:
    url = await nursery.start(serve, fake)
    async with httpx.AsyncClient(transport=OneConnection(), trust_env=False) as client:
        assert (await client.post(url + "/api/chat", content=body)).status_code == 400


async def test_a_tool_is_called_with_the_arguments_that_are_wanted_until_its_result_is_there(client: Client) -> None:
    question = {"role": "user", "content": '!tool weather {"place": "Paris"}'}
    tools = [{"type": "function"}]
    call = (await client.chat(messages=[question], tools=tools))[-1]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == {"place": "Paris"}
    messages = [question, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "sunny, 20 C"}]
    lines = await client.chat(messages=messages, tools=tools)
    assert content(lines) == "The tool said: sunny, 20 C"
    assert "tool_calls" not in lines[-1]["message"]


async def test_a_directive_with_once_goes_wrong_only_the_first_time(client: Client, fake: FakeOllama) -> None:
    first, second = await client.chat("!break 2 please #once"), await client.chat("!break 2 please #once")
    assert "error" in first[-1]
    assert content(second) == fake.behaviour.text
    assert [work.outcome for work in fake.requests] == ["broken", "done"]


def test_directives_may_follow_each_other() -> None:
    play = read_directives("!slow 0.5 !tokens 3 !stall 2 and more")
    assert (play.token_seconds, play.tokens, play.ending, play.tokens_before) == (0.5, 3, "stall", 2)
    assert read_directives("wow! no !directive").ending is None


def test_a_directive_may_begin_a_later_line_and_the_last_one_counts() -> None:
    assert read_directives("<reminder>\n!hang\n</reminder>\n!tokens 3 go\nand more").tokens == 3
    assert read_directives("one\n!important\ntwo").tokens is None
    assert read_directives("!say one\n!tokens 3").text == "one\n!tokens 3"


@pytest.mark.parametrize(
    ("text", "load_seconds", "last_words"),
    [
        ("!hang", 60.0, b'HTTP/1.1 499 .*{"error": "request canceled"}'),
        ("!hang", 0.0, b'HTTP/1.1 500 .*{"error": "error reading llama-server response: context canceled"}'),
        ("!stall 1", 0.0, b'HTTP/1.1 200 .*"done": false.*{"error": "error reading [^"]*"}\n\r\n0\r\n\r\n'),
    ],
)
async def test_a_hang_up_aborts_the_work_and_is_answered_and_closed(
    text: str, load_seconds: float, last_words: bytes, fake: FakeOllama, nursery: trio.Nursery
) -> None:
    url = httpx.URL(await nursery.start(serve, fake))
    fake.behaviour.close_seconds = 0.01
    fake.behaviour.load_seconds = load_seconds
    stream = await trio.open_tcp_stream("127.0.0.1", url.port or 0)
    body = json.dumps({"model": "fake", "messages": [{"role": "user", "content": text}]}).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    answer = b""
    while not (answer if text == "!stall 1" else fake.loads and (load_seconds or fake.loads[0].end)):
        with trio.move_on_after(0.001):
            answer += await stream.receive_some()
    await stream.send_eof()
    async for data in stream:
        answer += data
    assert re.fullmatch(last_words, answer, re.DOTALL)
    await stream.aclose()
    log = fake.log()
    assert (log["aborted"], log["in_flight"], log["max_in_flight"]) == (1, 0, 1)
    assert log["requests"][0]["end"] - log["requests"][0]["start"] >= 0.01


async def test_overlapping_requests_are_counted_and_run_one_after_the_other(client: Client, fake: FakeOllama) -> None:
    async with Client(client.url) as other, trio.open_nursery() as both:
        both.start_soon(client.chat, "!slow 0.001")
        both.start_soon(other.chat, "!slow 0.001")
    assert fake.max_in_flight == 2
    assert len(fake.loads) == 1


async def test_small_questions_are_answered(client: Client) -> None:
    assert (await client.get("/")).text == "Ollama is running"
    assert (await client.get("/api/version")).json()["version"]
    assert [model["name"] for model in (await client.get("/api/tags")).json()["models"]] == [
        "fake:latest",
        "other:latest",
    ]
    assert (await client.get("/nowhere")).status_code == 404
    assert (await client.get("/api/chat")).status_code == 405
    assert (await client.get("/_fake/log")).json()["questions"]["/nowhere"] == 1


async def test_it_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "llm_queue.testing.fake_ollama", "--port", "0", "--model", "tiny"]
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        said = ""
        while not said.endswith("\n"):
            said += (await running.stdout.receive_some()).decode()
        url = said.removeprefix("listening on ").strip()
        async with Client(url) as client:
            tags = (await client.get("/api/tags")).json()
        running.terminate()
    assert [model["name"] for model in tags["models"]] == ["tiny:latest"]


# --- texts and vectors ---


async def test_a_generate_says_what_a_chat_says_in_its_own_fields(client: Client) -> None:
    response = await client.post("/api/generate", prompt="!say one two", think=True)
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(line["response"] for line in lines) == "one two"
    assert lines[0]["thinking"] == "Let me think."
    assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("stop", 2)
    assert all("message" not in line for line in lines)
    whole = await client.post("/api/generate", prompt="!say one two", stream=False)
    assert whole.json()["response"] == "one two"


async def test_an_embed_has_a_vector_of_length_1_for_each_text(fake: FakeOllama, client: Client) -> None:
    refused = await client.post("/api/embed", input="a")
    assert (refused.status_code, "--embeddings" in refused.text) == (501, True)
    fake.behaviour.capabilities.append("embedding")
    (one,) = (await client.post("/api/embed", input="a")).json()["embeddings"]
    answer = (await client.post("/api/embed", input=["a", "b c"])).json()
    assert answer["embeddings"][0] == one != answer["embeddings"][1]
    assert answer["prompt_eval_count"] == 3
    (short,) = (await client.post("/api/embed", input="a", dimensions=2)).json()["embeddings"]
    assert [len(vector) for vector in (one, short)] == [4, 2]
    assert sum(number**2 for number in one) == pytest.approx(1) == sum(number**2 for number in short)


async def test_a_model_is_shown_by_the_older_name_of_the_field_too(client: Client) -> None:
    by_model, by_name = await client.post("/api/show", model="fake"), await client.post("/api/show", name="fake")
    assert by_name.status_code == 200
    assert by_name.json() == by_model.json()


async def test_a_long_life_takes_no_more_memory_than_it_is_told_to(client: Client, fake: FakeOllama) -> None:
    fake.behaviour.remembered = 5
    for number in range(40):
        await client.chat(f"!say {number}")
    assert 5 <= len(fake.requests) <= 11
    assert fake.requests[-1].prompt == "!say 39"
    assert fake.max_in_flight == 1


async def test_a_model_that_runs_elsewhere_embeds_and_answers_a_prompt_without_messages(
    client: Client, fake: FakeOllama
) -> None:
    """These once ended the whole fake."""
    answer = await client.post("/api/embed", model="far:cloud", input=["a", "b"])
    assert len(answer.json()["embeddings"]) == 2
    assert (await client.post("/api/chat", model="far:cloud")).json()["done_reason"] == "load"
    assert (await client.post("/api/generate", model="far:cloud", prompt="!say hi", stream=False)).status_code == 200


# --- prompts that are kept ---


@pytest.fixture
async def keeper(nursery: trio.Nursery) -> AsyncIterator[Client]:
    """A client of one that keeps the last prompt."""
    behaviour = Behaviour(models=["fake", "other"], load_seconds=0.0, token_seconds=0.0, kept_prompts=1)
    behaviour.prompt_token_seconds = 0.001
    async with Client(await nursery.start(serve, FakeOllama(behaviour))) as client:
        yield client


def cached(lines: list[dict[str, Any]]) -> int | None:
    return lines[-1].get("prompt_eval_cached_count")


async def test_an_old_ollama_says_nothing_of_its_cache(client: Client) -> None:
    assert [cached(await client.chat("one two three")) for _ in range(2)] == [None, None]


async def test_what_is_found_of_a_prompt_is_told_and_is_counted_with_the_rest(keeper: Client) -> None:
    answers = [await keeper.chat(text) for text in ("a b c", "a b c", "a b c d", "x y", "a b c d")]
    assert [cached(lines) for lines in answers] == [0, 2, 3, 0, 0]
    assert [lines[-1]["prompt_eval_count"] for lines in answers] == [3, 3, 4, 2, 4]
    assert [lines[-1]["prompt_eval_duration"] for lines in answers] == [3e6, 1e6, 1e6, 2e6, 4e6]


async def test_other_tools_make_another_prompt_and_a_load_forgets_all(keeper: Client) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    await keeper.chat("a b c")
    assert cached(await keeper.chat("a b c", tools=[tool])) == 0
    assert cached(await keeper.chat("a b c", tools=[tool])) == 2
    await keeper.chat("hello", model="other")
    assert cached(await keeper.chat("a b c", tools=[tool])) == 0
    assert cached(await keeper.chat("", tools=[tool])) in (None, 0)
