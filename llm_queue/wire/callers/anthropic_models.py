"""Anthropic's list of models, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.dates import time_stamp
from llm_queue.wire.shapes import JsonObject

PAGE: Final = 20
"""Models of a page, unless the caller says how many."""

LONGEST_PAGE: Final = 1000


class Listed(NamedTuple):
    """One model: when it came, in Unix seconds, and how many tokens of context it gets (0: nobody here decides)."""

    name: str
    created: int
    context: int = 0


def models_body(models: Sequence[Listed], query: Mapping[str, str]) -> bytes:
    """The page that ``query`` asks for by ``limit``, ``after_id`` and ``before_id``.

    Raises :class:`~llm_queue.errors.BadRequest` for a limit that is none, and for an id that is not in the list.
    """
    limit = _limit(query.get("limit"))
    after, before = query.get("after_id"), query.get("before_id")
    first = _place(models, after, "after_id") + 1 if after else 0
    last = _place(models, before, "before_id") if before else len(models)
    found = models[first:last]
    page = found[-limit:] if before and not after else found[:limit]  # before a model: those that are next to it
    body = {
        "data": [model_object(model) for model in page],
        "has_more": len(page) < len(found),
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }
    return msgspec.json.encode(body) + b"\n"


def model_body(model: Listed) -> bytes:
    """One model of that list."""
    return msgspec.json.encode(model_object(model)) + b"\n"


def model_object(model: Listed) -> JsonObject:
    """One model. Its answers may be as long as the context has room for, so both limits are the same number."""
    created = {"created_at": time_stamp(model.created)}
    body: JsonObject = {"type": "model", "id": model.name, "display_name": model.name} | created
    return body | ({"max_input_tokens": model.context, "max_tokens": model.context} if model.context else {})


def _limit(said: str | None) -> int:
    if said is None:
        return PAGE
    if not (said.isascii() and said.isdecimal() and len(said) <= 4 and 1 <= int(said) <= LONGEST_PAGE):
        raise BadRequest(f"limit takes a number of models from 1 to {LONGEST_PAGE}.", param="limit")
    return int(said)


def _place(models: Sequence[Listed], name: str, field: str) -> int:
    for index, model in enumerate(models):
        if model.name == name:
            return index
    raise BadRequest(f"{field}: there is no model of the name {name[:100]!r}.", param=field)


def count_body(tokens: int) -> bytes:
    """How many tokens a prompt has."""
    return msgspec.json.encode({"input_tokens": tokens}) + b"\n"
