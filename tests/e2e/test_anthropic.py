"""The real anthropic SDK, as programs use it, and a request as Claude Code sends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.e2e.conftest import Ollama, Service, until

WEATHER = {"name": "weather", "description": "the weather", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def client(service: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=service.url, api_key="anything", max_retries=2) as client:
        yield client


def user(said: Any) -> dict[str, Any]:
    return {"role": "user", "content": said}


def create(client: anthropic.Anthropic, said: str, **more: Any) -> anthropic.types.Message:
    asked: dict[str, Any] = {"model": "fake", "max_tokens": 50, "messages": [user(said)]} | more
    message: anthropic.types.Message = client.messages.create(**asked)
    return message


def streamed(client: anthropic.Anthropic, said: str, **more: Any) -> Any:
    """The message that the SDK builds of a stream."""
    asked: dict[str, Any] = {"model": "fake", "max_tokens": 50, "messages": [user(said)]} | more
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


def test_a_plain_question_gets_its_answer(client: anthropic.Anthropic) -> None:
    message = create(client, "!say Paris.")
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Paris."}]
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 1)
    assert (message._request_id or "").startswith("req_")


def test_a_stream_comes_token_by_token_and_ends_with_the_usage(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="fake", max_tokens=50, messages=[{"role": "user", "content": "!tokens 5"}]) as s:
        assert len(list(s.text_stream)) == 5
        message = s.get_final_message()
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 2, 5)


def test_an_answer_that_is_cut_says_so(client: anthropic.Anthropic) -> None:
    assert create(client, "!tokens 9", max_tokens=3).stop_reason == "max_tokens"
    assert streamed(client, "!tokens 9", max_tokens=3).stop_reason == "max_tokens"


@pytest.mark.parametrize("ask", [create, streamed])
def test_a_tool_call_goes_out_and_its_result_goes_back(client: anthropic.Anthropic, ask: Any) -> None:
    first = ask(client, "!tool weather", tools=[WEATHER])
    (call,) = first.content
    assert (first.stop_reason, call.name, call.input) == ("tool_use", "weather", {"place": "here"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    messages = [
        user("!tool weather"),
        {"role": "assistant", "content": [call.to_dict()]},
        user([result, {"type": "text", "text": "!say Sunny."}]),
    ]
    assert ask(client, "", messages=messages, tools=[WEATHER]).content[0].text == "Sunny."


FORCED = {
    "name": "measure",
    "input_schema": {"type": "object", "properties": {"unit": {"enum": ["K", "C"]}}, "required": ["unit"]},
}


@pytest.mark.parametrize("ask", [create, streamed])
@pytest.mark.parametrize("choice", [{"type": "tool", "name": "measure"}, {"type": "any"}])
def test_a_tool_that_must_be_used_is_used(client: anthropic.Anthropic, choice: Any, ask: Any) -> None:
    message = ask(client, "How warm?", tools=[FORCED, WEATHER], tool_choice=choice)
    (call,) = message.content
    assert (message.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "measure", {"unit": "K"})
    assert call.id.startswith("toolu_")
    thoughtful = ask(client, "How warm?", tools=[FORCED], tool_choice=choice, thinking={"type": "enabled"})
    assert [block.type for block in thoughtful.content] == ["thinking", "tool_use"]


@pytest.mark.parametrize("ask", [create, streamed])
def test_thoughts_come_as_a_block_of_their_own_and_may_come_back(client: anthropic.Anthropic, ask: Any) -> None:
    message = ask(client, "!say Hm.", thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].signature
    history = [user("x"), {"role": "assistant", "content": [one.to_dict() for one in message.content]}]
    assert ask(client, "", messages=[*history, user("!say Well.")]).content[-1].text == "Well."


def test_a_json_schema_reaches_the_model(client: anthropic.Anthropic) -> None:
    wanted = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    (block,) = create(client, "Is this relevant?", output_config=wanted).content
    assert block.type == "text"
    assert isinstance(json.loads(block.text), dict)


def test_tokens_are_counted_and_models_listed(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(model="fake", messages=[{"role": "user", "content": "hello"}]).input_tokens > 1
    assert [model.id for model in client.models.list(limit=1)] == ["fake:latest", "second:latest"]
    assert client.models.retrieve("second").id == "second:latest"


def test_a_model_that_is_not_there_is_not_found(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="fake:latest"):
        create(client, "hello", model="claude-haiku-4-5")


def test_an_sdk_does_not_multiply_our_retry_by_its_own(ollama: Ollama, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        create(client, "!error500")
    assert caught.value.status_code == 502
    assert len(ollama.work()) == 2


def test_a_stream_that_breaks_raises_in_the_program_that_reads_it(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="api_error"):
        streamed(client, "!break 2")


def test_breaking_off_a_stream_frees_the_model(ollama: Ollama, client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "fake", "max_tokens": 5000, "messages": [user("!slow 0.05 !tokens 1000 go")]}
    with client.messages.create(**asked, stream=True) as stream:
        next(iter(stream))
    until(lambda: ollama.work()[0]["outcome"] == "aborted")


def test_a_request_as_claude_code_sends_it(service: Service, ollama: Ollama) -> None:
    body = {
        "model": "fake",
        "max_tokens": 3,
        "stream": False,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.495; cc_entrypoint=sdk-cli;"},
            {"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "two"},
        ],
        "messages": [
            user([{"type": "text", "text": "!tokens 9"}]),
            {"role": "system", "content": "three four"},
        ],
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": []},
        "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s-1"}'},
    }
    answer = service.http.post("/v1/messages?beta=true", json=body, headers={"anthropic-version": "2023-06-01"})
    assert answer.json()["stop_reason"] == "max_tokens"
    assert answer.json()["usage"]["input_tokens"] == 6  # a word is a token: those of the bill are not among them
    assert answer.headers["X-LLM-Queue-Dropped"] == "context_management"
    assert ollama.work()[0]["outcome"] == "done"
