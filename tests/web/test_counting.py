"""How many tokens a chat in OpenAI's dialect has; Anthropic's own address has its tests with that dialect's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_queue.settings import Settings
from llm_queue.web.app import create_quart
from llm_queue.wire.shapes import ChatRequest

CHAT = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


async def ask(line: Any, body: Any, path: str = "/v1/chat/completions/input_tokens") -> tuple[int, Any, Any]:
    client = create_quart(Settings(model="small"), line).test_client()
    response = await client.post(path, data=msgspec.json.encode(body))
    return response.status_code, msgspec.json.decode(await response.get_data()), response.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"])
async def test_the_engine_counts_a_chat_where_it_can(path: str, line: Any) -> None:
    line.counted = 12
    status, body, headers = await ask(line, CHAT, path)
    assert (status, body) == (200, {"input_tokens": 12})
    assert "X-LLM-Queue-Estimate" not in headers
    assert isinstance(line.asked_to_count[0], ChatRequest)
    assert not line.tickets


async def test_an_estimate_says_that_it_is_one_and_what_is_left_out_is_named(line: Any) -> None:
    status, body, headers = await ask(line, CHAT | {"verbosity": "low"})
    assert (status, body) == (200, {"input_tokens": 7})
    assert headers["X-LLM-Queue-Estimate"] == "tokens"
    assert headers["X-LLM-Queue-Dropped"] == "verbosity"


async def test_what_is_no_chat_is_refused_in_openais_shape(line: Any) -> None:
    status, body, _ = await ask(line, {"messages": []})
    assert status == 400
    assert body["error"]["param"] == "messages"
