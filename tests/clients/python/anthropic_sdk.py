"""The anthropic SDK."""

from __future__ import annotations

from typing import Any

import anthropic
from client import WEATHER, left, run, weather
from pydantic import BaseModel


class Answer(BaseModel):
    answer: int


def asked(order: Any) -> dict[str, Any]:
    return {"model": order.model, "max_tokens": 1000, "messages": [{"role": "user", "content": order.prompt}]}


def connect(order: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=order.url, api_key="any")


def text_of(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


def plain(order: Any) -> dict[str, Any]:
    return {"text": text_of(connect(order).messages.create(**asked(order)))}


def stream(order: Any) -> dict[str, Any]:
    with connect(order).messages.stream(**asked(order)) as events:
        pieces = sum(1 for text in events.text_stream if text)
        return {"text": text_of(events.get_final_message()), "pieces": pieces}


def tools(order: Any) -> dict[str, Any]:
    client, request = connect(order), asked(order)
    request["tools"] = [{"name": "weather", "description": "The weather.", "input_schema": WEATHER}]
    first = client.messages.create(**request)
    assert first.stop_reason == "tool_use"
    call: Any = next(block for block in first.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": weather(**call.input)}
    request["messages"] += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    return {"tool": call.name, "arguments": call.input, "text": text_of(client.messages.create(**request))}


def structured(order: Any) -> dict[str, Any]:
    parsed = connect(order).messages.parse(**asked(order), output_format=Answer).parsed_output
    assert parsed is not None
    return {"structured": parsed.model_dump()}


def leave(order: Any) -> dict[str, Any]:
    events = connect(order).messages.create(**asked(order), stream=True)
    for event in events:
        if event.type == "content_block_delta":
            break
    events.close()
    return left()


run(plain, stream, tools, structured, leave)
