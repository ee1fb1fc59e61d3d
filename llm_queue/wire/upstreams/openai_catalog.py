"""What a server in OpenAI's dialect says besides answers: which models it has, and what is wrong.

Servers agree on little here, so what is not understood is left out, and never makes the rest useless.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from llm_queue.wire.shapes import JsonObject
from llm_queue.wire.upstreams.lines import LONGEST_ERROR, decode

_ANY: Final = msgspec.json.Decoder(Any)
_ERROR_NESTING: Final = 4


class Listed(Struct, frozen=True):
    """One line of ``/v1/models``. ``created`` is in Unix seconds, 0 where the server does not say.

    ``context`` is the model's context in tokens, as it is served, and ``trained`` the one that it was trained for; None
    where the server does not say.
    """

    id: str
    created: int = 0
    context: int | None = None
    trained: int | None = None


def parse_models(body: bytes) -> tuple[Listed, ...]:
    """All models that are there and have a name.

    They are in ``data``, or in ``models``, or are the whole answer. Raises
    :class:`~llm_queue.errors.UpstreamBroke` for what is no JSON.
    """
    answer: Any = decode(body, _ANY)
    if isinstance(answer, dict):
        answer = answer.get("data") or answer.get("models")
    listed = [_listed(one) for one in answer] if isinstance(answer, list) else []
    return tuple(one for one in listed if one is not None)


def _listed(one: Any) -> Listed | None:
    if isinstance(one, str):
        return Listed(one)
    name = (one.get("id") or one.get("name") or one.get("model")) if isinstance(one, dict) else None
    if not isinstance(name, str):
        return None
    meta = one["meta"] if isinstance(one.get("meta"), dict) else {}  # llama-server's
    contexts = (one.get("max_model_len"), meta.get("n_ctx"), one.get("context_length"), one.get("context_window"))
    return Listed(
        name,
        _count(one.get("created")) or 0,
        next(filter(None, map(_count, contexts)), None),
        _count(meta.get("n_ctx_train")),
    )


def _count(said: Any) -> int | None:
    """A positive number, as some servers say it."""
    return int(said) if isinstance(said, (int, float)) and 1 <= said < 2**53 else None


def error_text(body: bytes) -> str:
    """What an error says to a human; all of it where it has no shape that is known.

    Known are OpenAI's and LM Studio's ``error``, FastAPI's ``detail`` (one text, or a list of what is wrong where), and
    older vLLM's ``message``.
    """
    text = body.decode(errors="replace").strip()
    try:
        found = _said(msgspec.json.decode(text), _ERROR_NESTING)
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = None
    return (found or text)[:LONGEST_ERROR]


def _said(error: Any, depth: int) -> str | None:
    if isinstance(error, str):
        return error
    if isinstance(error, list):
        return "; ".join(filter(None, (_fault(one, depth) for one in error))) or None
    if isinstance(error, dict) and depth:
        for name in ("error", "detail", "message", "errors"):
            if error.get(name) and (said := _said(error[name], depth - 1)):
                return said
    return None


def _fault(one: Any, depth: int) -> str | None:
    """One of several: FastAPI says ``loc``, the way to the field, and ``msg``, what is wrong with it."""
    if isinstance(one, dict) and isinstance(one.get("msg"), str):
        place: JsonObject | list[Any] = one.get("loc") or []
        return ".".join(map(str, place)) + ": " + one["msg"] if isinstance(place, list) and place else str(one["msg"])
    return _said(one, depth - 1) if depth else None
