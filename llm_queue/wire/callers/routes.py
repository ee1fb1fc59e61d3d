"""Which address speaks which dialect: the one table of what goes through the line."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from llm_queue.wire.callers.dialect import Dialect, Operation
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.openai_chat import CHAT
from llm_queue.wire.callers.responses import RESPONSES


class Route(NamedTuple):
    """One address: what a POST to it asks for."""

    path: str
    operation: Operation[Any]


ROUTES: Final = (
    Route("/v1/chat/completions", CHAT),
    Route("/chat/completions", CHAT),
    Route("/v1/responses", RESPONSES),
    Route("/responses", RESPONSES),
)

PREFIXES: Final[tuple[tuple[str, Dialect], ...]] = ()
"""Beginnings of paths that belong to a dialect, and what it is: also for what has no route there."""


def dialect_of(path: str) -> Dialect:
    """The dialect of whatever is answered at ``path``; OpenAI's where the path does not say."""
    return next((dialect for prefix, dialect in PREFIXES if path.startswith(prefix)), OPENAI)
