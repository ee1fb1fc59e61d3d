"""From our requests to those of Ollama."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.wire.shapes import ChatRequest, EmbedRequest, Message, Sampling, TextRequest, ToolCall
from llm_queue.wire.upstreams.ollama_request import chat_body, embed_body, generate_body, load_body

HELLO = Message("user", "Hello")


def test_the_least_request() -> None:
    assert json.loads(chat_body(ChatRequest("m", (HELLO,)), 8192)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "options": {"num_ctx": 8192},
    }


def test_a_full_request() -> None:
    tool = {"type": "function", "function": {"name": "f", "strict": True}}
    request = ChatRequest(
        "m",
        (HELLO,),
        sampling=Sampling(temperature=0.0, stop=("x",)),
        max_tokens=5,
        format={"type": "object"},
        tools=(tool,),
        think="low",
        logprobs=True,
        top_logprobs=0,
    )
    body = json.loads(chat_body(request, 4096))
    assert body["options"] == {"temperature": 0.0, "stop": ["x"], "num_predict": 5, "num_ctx": 4096}
    assert body["format"] == {"type": "object"}
    assert body["tools"] == [tool]
    assert body["think"] == "low"
    assert (body["logprobs"], body["top_logprobs"]) == (True, 0)


def test_work_never_carries_a_keep_alive() -> None:
    assert b"keep_alive" not in chat_body(ChatRequest("m", (HELLO,)), 8192)


@pytest.mark.parametrize("truncate", [True, False])
def test_whether_a_prompt_may_be_cut_is_passed_on(truncate: bool) -> None:
    assert json.loads(chat_body(ChatRequest("m", (HELLO,), truncate=truncate), 1))["truncate"] is truncate
    assert json.loads(generate_body(TextRequest("m", "Hello", truncate=truncate), 1))["truncate"] is truncate


def test_a_model_that_has_no_context_here_is_sent_none() -> None:
    assert json.loads(chat_body(ChatRequest("m", (HELLO,)), 0))["options"] == {}
    assert json.loads(generate_body(TextRequest("m", "Hello"), 0))["options"] == {}
    assert "options" not in json.loads(embed_body(EmbedRequest("m", ("a",)), 0))


def test_a_switch_to_not_think_is_passed_on() -> None:
    assert json.loads(chat_body(ChatRequest("m", (HELLO,), think=False), 1))["think"] is False


def test_every_part_of_a_message_is_passed_on() -> None:
    messages = (
        Message("user", "Look", images=("AAAA",)),
        Message("assistant", thinking="hm", tool_calls=(ToolCall("f", '{"a": 1}', "call_1"), ToolCall("g", ""))),
        Message("tool", "3", tool_call_id="call_1", tool_name="f"),
    )
    assert json.loads(chat_body(ChatRequest("m", messages), 1))["messages"] == [
        {"role": "user", "content": "Look", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "call_1", "function": {"name": "f", "arguments": {"a": 1}}},
                {"function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "3", "tool_call_id": "call_1", "tool_name": "f"},
    ]


@given(st.text())
def test_text_is_verbatim(text: str) -> None:
    body = json.loads(chat_body(ChatRequest("m", (Message("user", text),)), 1))
    assert body["messages"][0]["content"] == text


@pytest.mark.parametrize(("keep_alive", "sent"), [(3600.0, 3600), (math.inf, -1), (0.0, 0), (1.5, 1.5)])
def test_a_load_asks_nothing_and_keeps_the_model(keep_alive: float, sent: object) -> None:
    assert json.loads(load_body("m", 8192, keep_alive)) == {
        "model": "m",
        "messages": [],
        "stream": False,
        "keep_alive": sent,
        "options": {"num_ctx": 8192},
    }
