"""Which address speaks which dialect: the one table of what goes through the line."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from llm_queue.wire.callers import ollama_answers as ollama
from llm_queue.wire.callers.dialect import Dialect, Operation
from llm_queue.wire.callers.ollama import OLLAMA, OLLAMA_EMBED
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.openai_chat import CHAT


class Route(NamedTuple):
    """One address: what a POST to it asks for."""

    path: str
    operation: Operation[Any]


ROUTES: Final = (
    Route("/v1/chat/completions", CHAT),
    Route("/chat/completions", CHAT),
    Route("/api/chat", ollama.CHAT),
    Route("/api/generate", ollama.GENERATE),
    Route("/api/embed", ollama.EMBED),
    Route("/api/embeddings", ollama.EMBEDDINGS),
)

PREFIXES: Final[tuple[tuple[str, Dialect], ...]] = (
    ("/api/v1/", OPENAI),  # of a base URL that is not ours; Ollama has nothing there
    ("/api/embed", OLLAMA_EMBED),
    ("/api/", OLLAMA),
)
"""Beginnings of paths that belong to a dialect, and what it is: also for what has no route there."""


def dialect_of(path: str) -> Dialect:
    """The dialect of whatever is answered at ``path``; OpenAI's where the path does not say."""
    return next((dialect for prefix, dialect in PREFIXES if path.startswith(prefix)), OPENAI)
