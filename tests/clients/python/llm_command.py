"""The ``llm`` command with its plug-in for Ollama."""

from __future__ import annotations

import json
import sys
from typing import Any

from client import run
from command import interrupt, output

WEATHER = 'def weather(place: str) -> str:\n    "The weather in a town."\n    return f"sunny in {place}"\n'


def command(order: Any, *flags: str) -> list[str]:
    return [sys.executable, "-m", "llm", "--model", order.model, *flags, order.prompt]


def environ(order: Any) -> dict[str, str]:
    return {"OLLAMA_HOST": order.url, "LLM_USER_PATH": f"{order.home}/llm", "PYTHONUNBUFFERED": "1"}


def plain(order: Any) -> dict[str, Any]:
    return {"text": output(command(order, "--no-stream"), environ(order)).removesuffix("\n")}


def stream(order: Any) -> dict[str, Any]:
    text = output(command(order), environ(order)).removesuffix("\n")
    return {"text": text, "pieces": len(text.split())}


def tools(order: Any) -> dict[str, Any]:
    said = output(command(order, "--functions", WEATHER, "--td"), environ(order))
    return {"tool": "weather", "arguments": {"place": "Paris"}, "text": said}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": json.loads(output(command(order, "--schema", "answer int"), environ(order)))}


def leave(order: Any) -> dict[str, Any]:
    return interrupt(command(order), environ(order), lambda seen: b"token0" in seen)


run(plain, stream, tools, structured, leave)
