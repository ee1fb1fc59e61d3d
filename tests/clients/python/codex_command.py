"""Codex without a terminal: ``codex exec``; with the variant ``oss`` by its own settings for an Ollama."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from client import ANSWER, run
from command import PATIENCE, interrupt, output

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


def is_served(order: Any) -> bool:
    """Wait until the line serves it: it says nothing of an answer before that is whole."""
    last_moment = time.monotonic() + PATIENCE
    while time.monotonic() < last_moment:
        with urllib.request.urlopen(f"{order.url.removesuffix('/v1')}/queue", timeout=PATIENCE) as answer:
            slot = json.load(answer)["slot"]
        if slot is not None and slot["phase"] == "running":
            return True
        time.sleep(0.05)
    return False


def leave(order: Any) -> dict[str, Any]:
    return interrupt(command(order), environ(order), lambda seen: b"turn.started" in seen and is_served(order))


run(plain, tools, structured, leave)
