"""The real openai SDK, as programs use its Responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.conftest import Ollama, Service, until

FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
CUSTOM = {"type": "custom", "name": "patch"}


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="anything", max_retries=2) as client:
        yield client


def ask(client: openai.OpenAI, **asked: Any) -> Any:
    create: Any = client.responses.create  # its overloads know no dict that is not written out in the call
    return create(model="fake", **asked)


def test_a_plain_question_gets_its_answer(client: openai.OpenAI) -> None:
    answer = ask(client, input="!say  Paris. ", instructions="Be brief.", store=True)
    assert answer.output_text == " Paris. "
    assert answer.status == "completed"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert (answer.instructions, answer.store) == ("Be brief.", False)


def test_a_stream_is_gathered_to_the_same_answer(client: openai.OpenAI) -> None:
    with client.responses.stream(model="fake", input="!tokens 5 go", reasoning={"effort": "low"}) as stream:
        events = list(stream)
        final = stream.get_final_response()
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert final.output_text == said == "token0 token1 token2 token3 token4 "
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_an_answer_that_was_cut_is_incomplete(client: openai.OpenAI) -> None:
    answer = ask(client, input="!tokens 50 go", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == "token0 token1 token2 "


def test_a_schema_reaches_the_model_and_its_answer_is_parsed(client: openai.OpenAI) -> None:
    class Verdict(BaseModel):
        answer: int

    answer = client.responses.parse(model="fake", input="What is it?", text_format=Verdict)
    assert answer.output_parsed == Verdict(answer=42)


@pytest.mark.parametrize(("tool", "kind"), [(FUNCTION, "function_call"), (CUSTOM, "custom_tool_call")])
def test_a_call_goes_out_and_its_result_goes_back(client: openai.OpenAI, tool: dict[str, Any], kind: str) -> None:
    question = {"role": "user", "content": f"!tool {tool['name']}"}
    first = ask(client, input=[question], tools=[tool], reasoning={"effort": "low"})
    assert [item.type for item in first.output] == ["reasoning", kind]
    call = first.output[-1]
    assert call.name == tool["name"]
    assert isinstance(json.loads(call.arguments if kind == "function_call" else call.input), dict)
    result = {"type": f"{kind}_output", "call_id": call.call_id, "output": "sunny"}
    last = {"role": "user", "content": "!say Sunny."}
    second = ask(client, input=[question, *first.output, result, last], tools=[tool])
    assert second.output_text == "Sunny."


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "count"),
        ({"type": "function", "name": "weather"}, "weather"),
        ({"type": "custom", "name": "patch"}, "patch"),
    ],
)
def test_a_call_that_must_be_made_is_made_whole_and_streamed(client: openai.OpenAI, choice: Any, name: str) -> None:
    count = {"type": "object", "properties": {"to": {"type": "integer"}}, "required": ["to"]}
    tools: Any = [{"type": "function", "name": "count", "parameters": count, "strict": False}, FUNCTION, CUSTOM]
    arguments = {"count": '{"to": 42}', "weather": "{}", "patch": ""}[name]
    whole = ask(client, input="go", tools=tools, tool_choice=choice)
    with client.responses.stream(model="fake", input="go", tools=tools, tool_choice=choice) as stream:
        list(stream)
        streamed: Any = stream.get_final_response()
    for response in (whole, streamed):
        [call] = response.output
        assert (response.status, call.name) == ("completed", name)
        assert (call.input if name == "patch" else call.arguments) == arguments


def test_a_stream_that_breaks_never_looks_whole(client: openai.OpenAI) -> None:
    with client.responses.stream(model="fake", input="!break 2") as stream:
        events = list(stream)
        with pytest.raises(RuntimeError):
            stream.get_final_response()
    failed: Any = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.error.code == "server_error"


def test_what_is_not_stored_is_said_to_be_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="none is stored"):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError, match="none is stored"):
        client.responses.delete("resp_1")
    with pytest.raises(openai.NotFoundError, match="none is stored"):
        client.responses.cancel("resp_1")
    with pytest.raises(openai.BadRequestError, match="whole conversation"):
        ask(client, input="And now?", previous_response_id="resp_1")


def test_tokens_are_counted_without_the_model(ollama: Ollama, client: openai.OpenAI) -> None:
    assert client.responses.input_tokens.count(model="fake", input="How many are these?").input_tokens > 3
    assert ollama.work() == []


def test_breaking_off_a_stream_frees_the_model(ollama: Ollama, client: openai.OpenAI) -> None:
    stream = ask(client, input="!slow 0.05 !tokens 1000 go", stream=True)
    next(event for event in stream if event.type == "response.output_text.delta")
    stream.close()
    until(lambda: ollama.work()[0]["outcome"] == "aborted")
