"""What Ollama says of its models, as far as the line has a part in it: how large a context a caller gets.

An Ollama behind the line answers for itself, and only the sizes are put right: programs believe the trained one, and
send prompts that Ollama then cuts without a word. Where the engine is no Ollama, the same answers are made from what
the line knows, and say nothing of what it does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from llm_queue.wire import strict_json
from llm_queue.wire.callers.ollama import tagged
from llm_queue.wire.dates import time_stamp
from llm_queue.wire.shapes import JsonObject

VERSION: Final = "0.34.2"
"""The Ollama whose answers these are. Programs refuse to work with old ones."""

NEVER: Final = "2318-01-01T00:00:00Z"
"""When a model goes that stays: about what Ollama itself says, which adds the longest time it can to now."""

_PADDED: Final = 30


class Listed(msgspec.Struct, frozen=True):
    """A model of the catalogue. ``num_ctx`` is the context size in tokens that its callers get (0: not known)."""

    name: str
    identity: str
    created: int
    num_ctx: int = 0
    capabilities: frozenset[str] = frozenset()


# --- Ollama's own answers, put right ----------------------------------------------------------------------------------


def granted_tags(body: bytes, granted: Callable[[str, str, int], int]) -> bytes:
    """``/api/tags`` with the context that callers get in place of the trained one, where it says that.

    What runs elsewhere keeps its own: the line gives it none.

    ``granted`` gets a model's name, digest and trained size, and returns the size that it gets (0: leave it).
    """

    def put_right(model: JsonObject) -> None:
        details = model.get("details") if not (model.get("remote_model") or model.get("remote_host")) else None
        if isinstance(details, dict) and type(trained := details.get("context_length")) is int:
            size = granted(str(model.get("name")), str(model.get("digest")), trained)
            details["context_length"] = size or trained

    return _each_model(body, put_right)


def granted_ps(body: bytes, sizes: Callable[[str], int]) -> bytes:
    """``/api/ps`` with the context that is in force for the line; ``sizes`` gets a model's name (0: leave it)."""

    def put_right(model: JsonObject) -> None:
        if size := sizes(str(model.get("name"))):
            model["context_length"] = size

    return _each_model(body, put_right)


def names_in(body: bytes) -> list[str]:
    """The names of the models in a list of Ollama's."""
    names: list[str] = []
    _each_model(body, lambda model: names.append(str(model.get("name"))))
    return names


def granted_show(body: bytes, num_ctx: int) -> bytes:
    """``/api/show`` with the context that callers get, in each place where programs look for it."""
    shown = strict_json.object_in(body)
    if shown is None or num_ctx == 0:
        return body
    for place in ("model_info", "details"):
        told = shown.get(place)
        if isinstance(told, dict):
            for name in told:
                if name.rpartition(".")[2] == "context_length" and type(told[name]) is int:
                    told[name] = num_ctx
    said = shown.get("parameters")
    lines = [line for line in str(said or "").split("\n") if line.strip() and line.split()[0] != "num_ctx"]
    shown["parameters"] = "\n".join([*lines, _parameter("num_ctx", num_ctx)])
    return msgspec.json.encode(shown)


def _each_model(body: bytes, look: Callable[[JsonObject], None]) -> bytes:
    listed = strict_json.object_in(body)
    models = listed.get("models") if listed is not None else None
    if not isinstance(models, list):
        return body
    for model in models:
        if isinstance(model, dict):
            look(model)
    return msgspec.json.encode(listed)


def _parameter(name: str, value: int) -> str:
    return f"{name:<{_PADDED}} {value}"


# --- the same without an Ollama ---------------------------------------------------------------------------------------


def version_body() -> bytes:
    """``/api/version``."""
    return _json({"version": VERSION})


def tags_body(models: Iterable[Listed]) -> bytes:
    """``/api/tags``: sizes of files are not known, and a digest is one of the model's identity."""
    return _json(
        {
            "models": [
                _named(model)
                | {
                    "modified_at": time_stamp(model.created),
                    "size": 0,
                    "digest": _digest(model),
                    "details": _details(model.num_ctx),
                    "capabilities": _capabilities(model),
                }
                for model in models
            ]
        }
    )


def ps_body(models: Iterable[Listed]) -> bytes:
    """``/api/ps``: the models that are loaded, as far as the line knows, each at its ``num_ctx``."""
    return _json(
        {
            "models": [
                _named(model)
                | {"size": 0, "digest": _digest(model), "details": _details()}
                | {"expires_at": NEVER, "size_vram": 0, "context_length": model.num_ctx}
                for model in models
            ]
        }
    )


def show_body(model: Listed) -> bytes:
    """``/api/show``: no template and no licence are known; the architecture has a name only to hang the context on."""
    info: JsonObject = {"general.architecture": "unknown", "general.basename": model.name}
    if model.num_ctx:
        info["unknown.context_length"] = model.num_ctx
    return _json(
        {
            "modelfile": "",
            "parameters": _parameter("num_ctx", model.num_ctx) if model.num_ctx else "",
            "template": "",
            "details": _details(),
            "model_info": info,
            "capabilities": _capabilities(model),
            "modified_at": time_stamp(model.created),
        }
    )


def _named(model: Listed) -> JsonObject:
    return {"name": tagged(model.name), "model": tagged(model.name)}


def _digest(model: Listed) -> str:
    return hashlib.sha256(model.identity.encode()).hexdigest()


def _details(num_ctx: int = 0) -> JsonObject:
    said: JsonObject = {"parent_model": "", "format": "", "family": "", "families": []}
    said |= {"parameter_size": "", "quantization_level": ""}
    return said | {"context_length": num_ctx} if num_ctx else said


def _capabilities(model: Listed) -> list[str]:
    return sorted(model.capabilities) or ["completion"]


def _json(body: JsonObject) -> bytes:
    return msgspec.json.encode(body)
