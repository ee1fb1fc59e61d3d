"""Calls that must be made of a real Ollama, which has no field for it. Its model is so small that it knows no tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Service
from tests.real.ollama import RealOllama
from tests.real.tap import Tap
from tests.real.test_real_ollama import said, streamed

EXACT: dict[str, Any] = {"temperature": 0, "seed": 7, "max_tokens": 80}
QUESTION = "How warm is it in Rome?"


def function(name: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    parameters = {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip
    return {"type": "function", "function": {"name": name, "parameters": parameters | more}}


UNIT = {"type": "object", "properties": {"name": {"enum": ["kelvin", "celsius"]}}, "required": ["name"]}
WEATHER = function(
    "weather",
    {"city": {"enum": ["Rome", "Paris"]}, "unit": {"$ref": "#/$defs/Unit"}, "hours": {"$ref": "#/properties/city"}},
    **{"$defs": {"Unit": UNIT | {"additionalProperties": False}}},
)
CLOCK = function("clock", {"zone": {"$ref": "#/$defs/Unit"}}, **{"$defs": {"Unit": {"enum": ["UTC", "CET"]}}})


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def check(name: str, arguments: str) -> None:
    """The call fits the schema of the function that it calls."""
    called = json.loads(arguments)
    if name == "clock":
        assert called["zone"] in ("UTC", "CET")
        assert called.keys() == {"zone"}
        return
    assert name == "weather"
    assert called.keys() == {"city", "unit", "hours"}
    assert {called["city"], called["hours"]} <= {"Rome", "Paris"}
    assert called["unit"]["name"] in ("kelvin", "celsius")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "names"),
    [(named("weather"), {"weather"}), (named("clock"), {"clock"}), ("required", {"weather", "clock"})],
)
def test_a_call_that_must_be_made_is_made_and_fits_its_schema(
    choice: Any, names: set[str], stream: bool, service: Service
) -> None:
    answer = service.chat(QUESTION, tools=[WEATHER, CLOCK], tool_choice=choice, stream=stream, **EXACT)
    if stream:
        choices = [chunk["choices"][0] for chunk in streamed(answer)]
        calls = [call for one in choices for call in one["delta"].get("tool_calls", ())]
        text, reason = "".join(one["delta"].get("content", "") for one in choices), choices[-1]["finish_reason"]
    else:
        text, choices = said(answer), answer.json()["choices"]
        calls, reason = choices[0]["message"]["tool_calls"], choices[0]["finish_reason"]
    assert (text, reason) == ("", "tool_calls")
    [call] = calls
    assert call["function"]["name"] in names
    check(**call["function"])


def test_each_of_several_functions_can_be_what_the_model_chooses(service: Service) -> None:
    names = set()
    for question in (QUESTION, "What time is it?", "clock", "weather"):
        for seed in range(4):
            answer = service.chat(
                question, tools=[WEATHER, CLOCK], tool_choice="required", temperature=1.5, seed=seed, max_tokens=80
            )
            for call in answer.json()["choices"][0]["message"].get("tool_calls", ()):
                names.add(call["function"]["name"])
    assert names == {"weather", "clock"}


def test_a_call_after_a_result_is_made_as_the_first(tap: Tap, service: Service) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "12:00"},
    ]
    body = {"messages": messages, "tools": [WEATHER], "tool_choice": "required"} | EXACT
    answer = service.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    check(**answer["message"]["tool_calls"][0]["function"])
    [work] = tap.work
    assert "tools" not in work.body
    assert [message["role"] for message in work.body["messages"]] == ["system", "user", "assistant", "tool"]


def test_a_call_that_is_cut_has_what_there_is_of_its_arguments(service: Service) -> None:
    fields = EXACT | {"max_tokens": 6}
    answer = service.chat(QUESTION, tools=[WEATHER], tool_choice="required", **fields).json()["choices"][0]
    arguments = answer["message"]["tool_calls"][0]["function"]["arguments"]
    assert answer["finish_reason"] == "length"
    assert arguments.lstrip().startswith("{")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(arguments)


def test_a_schema_that_ollama_cannot_read_counts_as_none(ollama: RealOllama, service: Service) -> None:
    """It says nothing of it, as the fake. What comes then may be a call even so, because the model is told."""
    lost = {"type": "object", "properties": {"a": {"$ref": "#/$defs/nobody"}}}
    direct = ollama.chat("hi", format=lost, options=EXACT | {"num_predict": 5})
    assert direct.status_code == 200
    assert not direct.json()["message"]["content"].lstrip().startswith("{")
    tools = [{"type": "function", "function": {"name": "f", "parameters": lost}}]
    answer = service.chat("hi", tools=tools, tool_choice="required", **EXACT)
    assert said(answer) or answer.json()["choices"][0]["message"]["tool_calls"]
