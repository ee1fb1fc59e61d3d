"""The curl of the system; the variant is the address that it asks."""

from __future__ import annotations

import json
from typing import Any

from client import ANSWER, WEATHER, run, weather
from command import interrupt, output


def command(order: Any, messages: list[Any] | None = None, **more: Any) -> list[str]:
    asked = messages or [{"role": "user", "content": order.prompt}]
    body = {"model": order.model, "messages": asked, **more}
    return ["curl", "--no-progress-meter", "--no-buffer", "--fail-with-body", order.url, "-d", json.dumps(body)]


def ask(order: Any, messages: list[Any] | None = None, **more: Any) -> Any:
    return json.loads(output(command(order, messages, **more)))["choices"][0]["message"]


def plain(order: Any) -> dict[str, Any]:
    return {"text": ask(order)["content"]}


def stream(order: Any) -> dict[str, Any]:
    lines = output(command(order, stream=True)).splitlines()
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    return {"text": "".join(filter(None, pieces)), "pieces": sum(map(bool, pieces))}


def tools(order: Any) -> dict[str, Any]:
    offered = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    question = {"role": "user", "content": order.prompt}
    first = ask(order, [question], tools=offered)
    (call,) = first["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    result = {"role": "tool", "tool_call_id": call["id"], "content": weather(**arguments)}
    second = ask(order, [question, first, result], tools=offered)
    return {"tool": call["function"]["name"], "arguments": arguments, "text": second["content"]}


def structured(order: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER}}
    return {"structured": json.loads(ask(order, response_format=form)["content"])}


def leave(order: Any) -> dict[str, Any]:
    return interrupt(command(order, stream=True), {}, lambda seen: b"token0" in seen)


run(plain, stream, tools, structured, leave)
