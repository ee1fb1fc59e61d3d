"""The ollama SDK; with the variant ``generate``, its older call."""

from __future__ import annotations

import json
from typing import Any

import ollama
from client import ANSWER, left, run, weather


def ask(order: Any, **more: Any) -> Any:
    client = ollama.Client(host=order.url)
    if order.variant == "generate":
        return client.generate(model=order.model, prompt=order.prompt, **more)
    return client.chat(model=order.model, messages=[{"role": "user", "content": order.prompt}], **more)


def text_of(answer: Any) -> str:
    return str(answer.message.content if hasattr(answer, "message") else answer.response)


def plain(order: Any) -> dict[str, Any]:
    return {"text": text_of(ask(order))}


def stream(order: Any) -> dict[str, Any]:
    pieces = [text_of(part) for part in ask(order, stream=True)]
    return {"text": "".join(pieces), "pieces": sum(map(bool, pieces))}


def tools(order: Any) -> dict[str, Any]:
    client = ollama.Client(host=order.url)
    messages: list[Any] = [{"role": "user", "content": order.prompt}]
    first = client.chat(model=order.model, messages=messages, tools=[weather]).message
    assert first.tool_calls
    call = first.tool_calls[0].function
    result = {"role": "tool", "tool_name": call.name, "content": weather(**call.arguments)}
    second = client.chat(model=order.model, messages=[*messages, first, result], tools=[weather])
    return {"tool": call.name, "arguments": dict(call.arguments), "text": second.message.content}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": json.loads(text_of(ask(order, format=ANSWER)))}


def leave(order: Any) -> dict[str, Any]:
    parts = ask(order, stream=True)
    next(parts)
    parts.close()
    return left()


run(plain, stream, tools, structured, leave)
