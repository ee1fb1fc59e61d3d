"""Which address speaks which dialect: the one table of what goes through the line."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from llm_queue.wire.callers import ollama_answers as ollama
from llm_queue.wire.callers.anthropic import ANTHROPIC
from llm_queue.wire.callers.anthropic_answer import MESSAGES
from llm_queue.wire.callers.dialect import Dialect, Operation
from llm_queue.wire.callers.ollama import OLLAMA, OLLAMA_EMBED
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.openai_chat import CHAT
from llm_queue.wire.callers.openai_completions import COMPLETIONS
from llm_queue.wire.callers.openai_embeddings import EMBEDDINGS
from llm_queue.wire.callers.responses import RESPONSES


class Route(NamedTuple):
    """One address: what a POST to it asks for."""

    path: str
    operation: Operation[Any]


ROUTES: Final = (
    Route("/v1/chat/completions", CHAT),
    Route("/chat/completions", CHAT),
    Route("/v1/completions", COMPLETIONS),
    Route("/completions", COMPLETIONS),
    Route("/v1/embeddings", EMBEDDINGS),
    Route("/embeddings", EMBEDDINGS),
    Route("/v1/messages", MESSAGES),
    Route("/v1/responses", RESPONSES),
    Route("/responses", RESPONSES),
    Route("/api/chat", ollama.CHAT),
    Route("/api/generate", ollama.GENERATE),
    Route("/api/embed", ollama.EMBED),
    Route("/api/embeddings", ollama.EMBEDDINGS),
)

PREFIXES: Final[tuple[tuple[str, Dialect], ...]] = (
    ("/v1/messages", ANTHROPIC),
    ("/api/v1/", OPENAI),  # of a base URL that is not ours; Ollama has nothing there
    ("/api/embed", OLLAMA_EMBED),
    ("/api/", OLLAMA),
)
"""Beginnings of paths that belong to a dialect, and what it is: also for what has no route there."""


def dialect_of(path: str, anthropic_version: str | bytes | None = None) -> Dialect:
    """The dialect of whatever is answered at ``path``.

    Where the path does not say, the header of that name does, which all of Anthropic's clients send; else it is
    OpenAI's.
    """
    for prefix, dialect in PREFIXES:
        if path.startswith(prefix):
            return dialect
    shared = anthropic_version is not None and all(route.path != path for route in ROUTES)
    return ANTHROPIC if shared else OPENAI
