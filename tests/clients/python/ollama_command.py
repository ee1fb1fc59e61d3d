"""Ollama's own command, ``ollama run``; it shows, lists and asks at the address in OLLAMA_HOST."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from client import run
from command import interrupt, output


def command(order: Any, *flags: str) -> list[str]:
    built = os.path.join(order.variant, "ollama")
    return [shutil.which("ollama") or built, "run", "--nowordwrap", "--think=false", *flags, order.model, order.prompt]


def environ(order: Any) -> dict[str, str]:
    return {"OLLAMA_HOST": order.url}


def plain(order: Any) -> dict[str, Any]:
    listed = output([command(order)[0], "list"], environ(order))
    assert order.model in listed or order.model == "unheard-of", listed
    return {"text": output(command(order), environ(order)).rstrip("\n")}


def stream(order: Any) -> dict[str, Any]:
    text = output(command(order), environ(order)).rstrip("\n")
    return {"text": text, "pieces": len(text.split())}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": json.loads(output(command(order, "--format", "json"), environ(order)))}


def leave(order: Any) -> dict[str, Any]:
    return interrupt(command(order), environ(order), lambda seen: b"token0" in seen)


run(plain, stream, structured, leave)
