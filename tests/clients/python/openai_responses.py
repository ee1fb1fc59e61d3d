"""The openai SDK, Responses."""

from __future__ import annotations

import json
from typing import Any

import openai
from client import WEATHER, left, run, weather
from pydantic import BaseModel


class Answer(BaseModel):
    answer: int


def connect(order: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=order.url, api_key="any")


def plain(order: Any) -> dict[str, Any]:
    return {"text": connect(order).responses.create(model=order.model, input=order.prompt).output_text}


def stream(order: Any) -> dict[str, Any]:
    pieces = 0
    with connect(order).responses.stream(model=order.model, input=order.prompt) as events:
        for event in events:
            pieces += event.type == "response.output_text.delta"
        return {"text": events.get_final_response().output_text, "pieces": pieces}


def tools(order: Any) -> dict[str, Any]:
    ask = connect(order).responses.create
    offered: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
    asked: list[Any] = [{"role": "user", "content": order.prompt}]
    first = ask(model=order.model, input=asked, tools=offered, store=False)
    call: Any = next(item for item in first.output if item.type == "function_call")
    arguments = json.loads(call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": weather(**arguments)}
    second = ask(model=order.model, input=[*asked, *first.output, result], tools=offered, store=False)
    return {"tool": call.name, "arguments": arguments, "text": second.output_text}


def structured(order: Any) -> dict[str, Any]:
    answer = connect(order).responses.parse(model=order.model, input=order.prompt, text_format=Answer)
    assert answer.output_parsed is not None
    return {"structured": answer.output_parsed.model_dump()}


def leave(order: Any) -> dict[str, Any]:
    events = connect(order).responses.create(model=order.model, input=order.prompt, stream=True)
    for event in events:
        if event.type == "response.output_text.delta":
            break
    events.close()
    return left()


run(plain, stream, tools, structured, leave)
