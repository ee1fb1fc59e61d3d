"""What the scripts of Python clients share: one order from the command line, one answer as a line of JSON.

``tests/clients/order.py`` says what each feature is to do. This runs in environments that have only the client.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

WEATHER = {
    "type": "object",
    "properties": {"place": {"type": "string", "description": "a town"}},
    "required": ["place"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}


def weather(place: str) -> str:
    """The weather in a town."""
    return f"sunny in {place}"


def run(*features: Callable[[Any], dict[str, Any]]) -> None:
    """Carry out the order with the function that is called as its feature."""
    order = SimpleNamespace(**json.loads(sys.argv[1]))
    try:
        answer = next(each for each in features if each.__name__ == order.feature)(order)
    except Exception as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    say(answer)


def say(answer: dict[str, Any]) -> None:
    """Give the answer."""
    print("\n" + json.dumps(answer), flush=True)


def left() -> dict[str, Any]:
    """Say that the stream is closed, and wait to be dismissed."""
    say({"left": True})
    sys.stdin.read()
    return {}
