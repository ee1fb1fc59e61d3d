"""LiteLLM; the variant is its name for the provider: ``openai``, ``ollama_chat`` or ``anthropic``."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for its prices
import litellm
from client import WEATHER, left, run, weather
from pydantic import BaseModel


class Answer(BaseModel):
    answer: int


def ask(order: Any, messages: list[Any] | None = None, **more: Any) -> Any:
    return litellm.completion(
        model=f"{order.variant}/{order.model}",
        api_base=order.url,
        api_key="any",
        messages=messages or [{"role": "user", "content": order.prompt}],
        **more,
    )


def plain(order: Any) -> dict[str, Any]:
    return {"text": ask(order).choices[0].message.content}


def stream(order: Any) -> dict[str, Any]:
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(order, stream=True)]
    return {"text": "".join(pieces), "pieces": sum(map(bool, pieces))}


def tools(order: Any) -> dict[str, Any]:
    offered = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    messages: list[Any] = [{"role": "user", "content": order.prompt}]
    first = ask(order, messages, tools=offered).choices[0].message
    (call,) = first.tool_calls
    arguments = json.loads(call.function.arguments)
    messages += [first, {"role": "tool", "tool_call_id": call.id, "content": weather(**arguments)}]
    second = ask(order, messages, tools=offered).choices[0].message
    return {"tool": call.function.name, "arguments": arguments, "text": second.content}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": json.loads(ask(order, response_format=Answer).choices[0].message.content)}


def leave(order: Any) -> dict[str, Any]:
    chunks = ask(order, stream=True)
    for chunk in chunks:
        if chunk.choices[0].delta.content:
            break
    inner = chunks.completion_stream
    getattr(inner, "close", getattr(inner, "response", inner).close)()
    return left()


run(plain, stream, tools, structured, leave)
