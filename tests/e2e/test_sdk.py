"""The real openai SDK, as programs use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
