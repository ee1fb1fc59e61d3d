"""The real openai SDK, as programs use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import Ollama, Service, until


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="anything", max_retries=2) as client:
        yield client


def test_a_plain_question_gets_its_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "!say Paris."}])
    assert answer.choices[0].message.content == "Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_comes_token_by_token_and_ends_with_the_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "!tokens 5 go"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_json_schema_reaches_the_model(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"relevant": {"type": "boolean"}}, "required": ["relevant"]}
    create: Any = client.chat.completions.create  # its overloads know no dict that is not written out in the call
    answer = create(
        model="fake",
        messages=[{"role": "user", "content": "Is this relevant?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_a_tool_call_goes_out_and_its_result_goes_back(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    question = {"role": "user", "content": "!tool weather"}
    create: Any = client.chat.completions.create
    first = create(model="fake", messages=[question], tools=tools)
    call = first.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments), dict)
    messages = [question, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    last = {"role": "user", "content": "!say Sunny."}
    second = create(model="fake", messages=[*messages, last], tools=tools)
    assert second.choices[0].message.content == "Sunny."


def test_a_stream_that_breaks_raises_in_the_program_that_reads_it(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "!break 2"}], stream=True
    )
    with pytest.raises(openai.APIError, match="error"):
        list(stream)


def test_an_sdk_does_not_multiply_our_retry_by_its_own(ollama: Ollama, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "!error500"}])
    assert caught.value.status_code == 502
    assert len(ollama.work()) == 2


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"fake:latest", "second:latest"}
    assert client.models.retrieve("second").id.startswith("second")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("missing")


def test_a_model_says_how_large_its_context_is(ollama: Ollama, client: openai.OpenAI) -> None:
    for model in (*client.models.list(), client.models.retrieve("fake")):
        assert (model.model_extra or {})["context_length"] == 8192
    list(client.models.list())
    assert ollama.log()["questions"]["/api/show"] == 2


# --- texts ------------------------------------------------------------------------------------------------------------


def test_a_text_is_gone_on_with(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="fake", prompt="!say upon a time", max_tokens=2)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("upon a", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_a_text_is_streamed(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="fake", prompt=["!say upon a time"], stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert [chunk.choices[0].text for chunk in chunks] == ["upon", " a", " time", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_several_texts_are_gone_on_with_one_after_the_other(ollama: Ollama, client: openai.OpenAI) -> None:
    prompts = ["!say one two", "!say three", "!tokens 9 go"]
    answer = client.completions.create(model="fake", prompt=prompts, max_tokens=3)
    assert [(one.index, one.text, one.finish_reason) for one in answer.choices] == [
        (0, "one two", "stop"), (1, "three", "stop"), (2, "token0 token1 token2 ", "length"),
    ]  # fmt: skip
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    texts = ["", "", ""]
    for chunk in client.completions.create(model="fake", prompt=prompts, max_tokens=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["one two", "three", "token0 token1 token2 "]
    assert [request["prompt"] for request in ollama.work()] == prompts * 2
    assert ollama.log()["max_in_flight"] == 1


def test_a_text_that_breaks_off_raises(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="error"):
        list(client.completions.create(model="fake", prompt="!break 2", stream=True))


def test_what_completions_do_not_have_is_refused_by_name(client: openai.OpenAI) -> None:
    create: Any = client.completions.create
    for field, value in (("prompt", [1, 2]), ("echo", True), ("best_of", 2), ("n", 2)):
        with pytest.raises(openai.BadRequestError) as caught:
            create(**{"model": "fake", "prompt": "x"} | {field: value})
        assert caught.value.param == field


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedder(start_ollama: Callable[..., Ollama], start_service: Callable[..., Service]) -> Iterator[openai.OpenAI]:
    ollama = start_ollama("--capability", "embedding")
    service = start_service(url=ollama.url)
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="anything", max_retries=0) as client:
        yield client


def test_vectors_are_the_same_in_both_forms(embedder: openai.OpenAI) -> None:
    texts = ["Hello", "world", "Hello"]
    packed = embedder.embeddings.create(model="fake", input=texts)  # as base64, unless it is told otherwise
    plain = embedder.embeddings.create(model="fake", input=texts, encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 3
    assert len(embedder.embeddings.create(model="fake", input="x", dimensions=2).data[0].embedding) == 2


def test_a_model_that_has_no_vectors_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support embeddings"):
        client.embeddings.create(model="fake", input="x")


# --- tools ------------------------------------------------------------------------------------------------------------


def test_a_custom_tool_is_called_and_its_call_comes_back(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    tools = [{"type": "custom", "custom": {"name": "sql", "description": "Runs SQL."}}]
    question = {"role": "user", "content": "!tool sql"}
    first = create(model="fake", messages=[question], tools=tools)
    call = first.choices[0].message.tool_calls[0]
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "sql", '{"place": "here"}')
    chunks = list(create(model="fake", messages=[question], tools=tools, stream=True))
    streamed = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.type) for call in streamed] == [(0, "custom")]
    result = {"role": "tool", "tool_call_id": call.id, "content": "1"}
    last = {"role": "user", "content": "!say One."}
    second = create(model="fake", messages=[question, first.choices[0].message, result, last], tools=tools)
    assert second.choices[0].message.content == "One."


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"$ref": "#/$defs/Place"}, "days": {"type": "integer", "maximum": 7}},
            "required": ["place", "days"],
            "$defs": {"Place": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}},
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
ARGUMENTS = {"place": {"city": "Rome"}, "days": 7}


@pytest.mark.parametrize(
    ("choice", "name", "arguments"),
    [
        ("required", "weather", ARGUMENTS),
        ({"type": "function", "function": {"name": "weather"}}, "weather", ARGUMENTS),
        ({"type": "function", "function": {"name": "time"}}, "time", {}),
    ],
)
def test_a_call_that_must_be_made_is_made_whole_and_streamed(
    choice: Any, name: str, arguments: Any, client: openai.OpenAI, ollama: Ollama
) -> None:
    create: Any = client.chat.completions.create
    asked = {"model": "fake", "messages": [{"role": "user", "content": "Rome?"}], "tools": [WEATHER, TIME]}
    whole = create(**asked, tool_choice=choice).choices[0]
    [call] = whole.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (name, arguments)
    assert (call.type, whole.message.content, whole.finish_reason) == ("function", "", "tool_calls")
    assert call.id.startswith("call_")
    *chunks, last = create(**asked, tool_choice=choice, stream=True)
    [call] = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (call.index, call.function.name, json.loads(call.function.arguments)) == (0, name, arguments)
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert last.choices[0].finish_reason == "tool_calls"
    assert ollama.log()["max_in_flight"] == 1


def test_a_custom_tool_and_the_older_functions_can_be_forced_too(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    asked = {"model": "fake", "messages": [{"role": "user", "content": "go"}]}
    tools = [{"type": "custom", "custom": {"name": "sql"}}]
    [call] = create(**asked, tools=tools, tool_choice="required").choices[0].message.tool_calls
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "sql", "")
    older = create(**asked, functions=[WEATHER["function"]], function_call={"name": "weather"}).choices[0]
    assert (older.finish_reason, older.message.function_call.name) == ("function_call", "weather")
    assert json.loads(older.message.function_call.arguments) == ARGUMENTS


def test_a_call_that_was_cut_and_one_that_was_not_made_say_so(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    asked = {"model": "fake", "tools": [WEATHER], "tool_choice": "required"}
    cut = create(**asked, messages=[{"role": "user", "content": "go"}], max_tokens=4).choices[0]
    assert cut.finish_reason == "length"
    assert json.dumps(ARGUMENTS).startswith(cut.message.tool_calls[0].function.arguments)
    text = create(**asked, messages=[{"role": "user", "content": "!say I will not."}]).choices[0]
    assert (text.message.content, text.message.tool_calls, text.finish_reason) == ("I will not.", None, "stop")


def test_a_call_that_must_be_made_leaves_no_room_for_another_form(client: openai.OpenAI, ollama: Ollama) -> None:
    create: Any = client.chat.completions.create
    question = [{"role": "user", "content": "!say Sunny."}]
    form = {"response_format": {"type": "json_object"}, "tool_choice": "required"}
    with pytest.raises(openai.BadRequestError, match="keeps an answer to one form") as caught:
        create(model="fake", messages=question, tools=[WEATHER], **form)
    assert caught.value.param == "tool_choice"
    assert ollama.work() == []
    assert create(model="fake", messages=question, tool_choice="required").choices[0].message.content == "Sunny."


def test_breaking_off_a_stream_frees_the_model(ollama: Ollama, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "!slow 0.05 !tokens 1000 go"}], stream=True
    )
    next(iter(stream))
    stream.close()
    until(lambda: ollama.work()[0]["outcome"] == "aborted")


def test_raw_bytes_of_text_survive_the_whole_way(service: Service) -> None:
    text = '\u00a0caf\u00e9 \u4f60\u597d \U0001f468\u200d\U0001f469\u200d\U0001f467 \\n "quoted" </s> \u2028 end '
    answer = service.chat(f"!say {text}.")
    assert answer.json()["choices"][0]["message"]["content"] == f"{text}."
    streamed = [
        json.loads(line.removeprefix("data: "))
        for line in service.chat(f"!say {text}.", stream=True).text.split("\n")
        if line.startswith("data: {")
    ]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == f"{text}."
    assert httpx.codes.is_success(answer.status_code)
