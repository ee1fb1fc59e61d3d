"""Codex without a terminal: ``codex exec``; with the variant ``oss`` by its own settings for an Ollama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from client import ANSWER, run
from command import interrupt, output

SAFE = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json", "--color", "never")
"""No sandbox of its own: it cannot make one inside of ours, and what its model says here is what the test says."""


def environ(order: Any) -> dict[str, str]:
    home = Path(order.home, "codex")
    home.mkdir(exist_ok=True)
    return {"CODEX_HOME": str(home), "LINE_KEY": "any", "CODEX_OSS_BASE_URL": order.url}


def command(order: Any, *flags: str) -> list[str]:
    if order.variant == "oss":
        provider = ["--oss", "--local-provider", "ollama"]
    else:
        fields = {"name": "line", "base_url": order.url, "wire_api": "responses", "env_key": "LINE_KEY"}
        provider = ["--config", "model_provider=line"]
        for name, value in fields.items():
            provider += ["--config", f"model_providers.line.{name}={json.dumps(value)}"]
    return ["codex", "exec", *provider, "--model", order.model, *SAFE, *flags, order.prompt]


def items(order: Any, *flags: str) -> list[dict[str, Any]]:
    lines = output(command(order, *flags), environ(order)).splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event["item"] for event in events if event["type"] == "item.completed"]


def text_of(done: list[dict[str, Any]]) -> str:
    return str([item["text"] for item in done if item["type"] == "agent_message"][-1])


def plain(order: Any) -> dict[str, Any]:
    return {"text": text_of(items(order))}


def tools(order: Any) -> dict[str, Any]:
    done = items(order)
    call = next(item for item in done if item["type"] == "command_execution")
    return {"tool": "exec_command", "arguments": {"command": call["command"]}, "text": text_of(done)}


def structured(order: Any) -> dict[str, Any]:
    schema = Path(order.home, "schema.json")
    schema.write_text(json.dumps(ANSWER))
    return {"structured": json.loads(text_of(items(order, "--output-schema", str(schema))))}


def leave(order: Any) -> dict[str, Any]:
    return interrupt(command(order), environ(order), lambda seen: b"turn.started" in seen)


run(plain, tools, structured, leave)
