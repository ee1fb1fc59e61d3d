"""What a request to the fake Ollama says, and what Ollama says against it."""

from __future__ import annotations

import json
import re
from typing import Final

from llm_queue.testing.fake_ollama.behaviour import Behaviour, Refusal
from llm_queue.testing.fake_ollama.exchange import JsonObject
from llm_queue.testing.fake_ollama.runners import Work, seconds_of, tagged

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:-]*")
"""About what Ollama takes for the name of a model."""

_MISSING: Final = {
    "/api/chat": "model '{}' not found",
    "/api/generate": "model '{}' not found",
    "/api/embed": 'model "{}" not found, try pulling it first',
    "/api/embeddings": 'model "{}" not found, try pulling it first',
}

_THINK: Final = (None, True, False, "low", "medium", "high", "max")


def object_of(body: bytes) -> JsonObject:
    """The JSON object in a body. Raises :class:`Refusal`."""
    if not body:
        raise Refusal(400, "missing request body")
    try:
        decoded = json.loads(body)
    except ValueError as error:
        raise Refusal(400, f"invalid character: {error}") from None
    if not isinstance(decoded, dict):
        kind = "array" if isinstance(decoded, list) else "value"
        raise Refusal(400, f"json: cannot unmarshal {kind} into Go value of type api.ChatRequest")
    return decoded


def last_user_message(ask: JsonObject) -> str:
    """The text that steers the fake."""
    said = [message.get("content") for message in ask.get("messages") or () if message.get("role") == "user"]
    return str(said[-1]) if said else ""


def model_of(behaviour: Behaviour, asked: str) -> str | None:
    """The model that is called so: with or without its tag, in capitals or not."""
    wanted = tagged(asked).casefold()
    return next((name for name in behaviour.models if tagged(name).casefold() == wanted), None)


def runs_elsewhere(behaviour: Behaviour, asked: str) -> bool:
    """True for a model that Ollama passes on to another host."""
    name = tagged(asked).casefold()
    return name.endswith((":cloud", "-cloud")) or name in [tagged(one).casefold() for one in behaviour.remote]


def check(behaviour: Behaviour, work: Work, ask: JsonObject) -> tuple[str, float | None]:
    """The model that is meant and the lifetime it is to have; ``work.num_ctx`` becomes what Ollama makes of it.

    Raises :class:`Refusal`, in the order in which Ollama looks.
    """
    if not work.model and work.path in ("/api/generate", "/api/embed"):
        raise Refusal(404, "model '' not found")
    if not work.model:
        raise Refusal(400, "model is required")
    keep_alive = None if work.keep_alive is None else seconds_of(work.keep_alive)
    name = model_of(behaviour, work.model)
    if name is None and not _NAME.fullmatch(work.model):
        raise Refusal(400, "invalid model name")
    if name is None:
        raise Refusal(404, _MISSING[work.path].format(work.model))
    if (
        ask.get("input") or (work.path == "/api/embeddings" and ask.get("prompt"))
    ) and "embedding" not in behaviour.capabilities:
        status = 501 if work.path == "/api/embed" else 500
        raise Refusal(status, "This server does not support embeddings. Start it with `--embeddings`")
    if isinstance(work.num_ctx, float):
        work.num_ctx = int(work.num_ctx)
    if type(work.num_ctx) is not int:
        raise Refusal(500, 'option "num_ctx" must be of type integer')
    work.num_ctx = min(max(work.num_ctx, 4), behaviour.trained)
    _check_features(behaviour, work.model, tagged(name), ask)
    return tagged(name), keep_alive


def _check_features(behaviour: Behaviour, asked: str, name: str, ask: JsonObject) -> None:
    think, form = ask.get("think"), ask.get("format") or "json"
    if ask.get("tools") and "tools" not in behaviour.capabilities:
        raise Refusal(400, f"{name} does not support tools")
    if think not in _THINK:
        levels = '"high", "medium", "low", "max", true, or false'
        raise Refusal(400, f"invalid think value: {json.dumps(think)} (must be {levels})")
    if think and "thinking" not in behaviour.capabilities:
        raise Refusal(400, f'"{asked}" does not support thinking')
    if not isinstance(form, dict) and form != "json":
        quoted = json.dumps(json.dumps(form))
        raise Refusal(500, f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')
