"""The openai SDK, chat completions."""

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


def said(order: Any) -> list[Any]:
    return [{"role": "user", "content": order.prompt}]


def plain(order: Any) -> dict[str, Any]:
    answer = connect(order).chat.completions.create(model=order.model, messages=said(order))
    return {"text": answer.choices[0].message.content}


def stream(order: Any) -> dict[str, Any]:
    chunks = connect(order).chat.completions.create(model=order.model, messages=said(order), stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    return {"text": "".join(pieces), "pieces": len(pieces)}


def tools(order: Any) -> dict[str, Any]:
    ask = connect(order).chat.completions.create
    function = {"name": "weather", "parameters": WEATHER, "strict": True}
    offered: Any = [{"type": "function", "function": function}]
    messages = said(order)
    first = ask(model=order.model, messages=messages, tools=offered).choices[0].message
    assert first.tool_calls
    call: Any = first.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    messages += [first, {"role": "tool", "tool_call_id": call.id, "content": weather(**arguments)}]
    second = ask(model=order.model, messages=messages, tools=offered).choices[0].message
    return {"tool": call.function.name, "arguments": arguments, "text": second.content}


def structured(order: Any) -> dict[str, Any]:
    answer = connect(order).chat.completions.parse(model=order.model, messages=said(order), response_format=Answer)
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    return {"structured": parsed.model_dump()}


def leave(order: Any) -> dict[str, Any]:
    client = connect(order)
    chunks = client.chat.completions.create(model=order.model, messages=said(order), stream=True)
    next(iter(chunks))
    chunks.close()
    return left()


run(plain, stream, tools, structured, leave)
