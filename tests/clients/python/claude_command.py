"""Claude Code without a terminal: ``claude --print``."""

from __future__ import annotations

import json
from typing import Any

from client import ANSWER, run
from command import interrupt, output


def environ(order: Any) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": order.url,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CONFIG_DIR": f"{order.home}/claude",
    }


def command(order: Any, *flags: str) -> list[str]:
    return ["claude", "--print", "--model", order.model, *flags, order.prompt]


def events(order: Any, *flags: str) -> list[dict[str, Any]]:
    form = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")
    lines = output(command(order, *form, *flags), environ(order)).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def plain(order: Any) -> dict[str, Any]:
    return {"text": output(command(order), environ(order)).removesuffix("\n")}


def stream(order: Any) -> dict[str, Any]:
    seen = events(order)
    deltas = [event["event"].get("delta", {}) for event in seen if event["type"] == "stream_event"]
    return {"text": seen[-1]["result"], "pieces": sum(delta.get("type") == "text_delta" for delta in deltas)}


def tools(order: Any) -> dict[str, Any]:
    seen = events(order, "--allowed-tools=Bash(echo:*)")
    blocks = [block for event in seen if event["type"] == "assistant" for block in event["message"]["content"]]
    call = next(block for block in blocks if block["type"] == "tool_use")
    return {"tool": call["name"], "arguments": call["input"], "text": seen[-1]["result"]}


def structured(order: Any) -> dict[str, Any]:
    said = output(command(order, "--output-format", "json", "--json-schema", json.dumps(ANSWER)), environ(order))
    return {"structured": json.loads(said)["structured_output"]}


def leave(order: Any) -> dict[str, Any]:
    form = ("--output-format", "stream-json", "--verbose", "--include-partial-messages")
    return interrupt(command(order, *form), environ(order), lambda seen: b"token0" in seen)


run(plain, stream, tools, structured, leave)
