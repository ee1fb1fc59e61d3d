"""Ollama's dialect: its errors, and what is said of it in more than one place."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_queue.errors import ModelNotFound, QueueError
from llm_queue.wire.callers.dialect import Dialect

JSON: Final = "application/json; charset=utf-8"
LINES: Final = "application/x-ndjson"


def error_line(text: str) -> bytes:
    """An error, whole or as the last line of a stream. It is always a text: clients fail on null and on objects."""
    return msgspec.json.encode({"error": text}) + b"\n"


def error_text(error: QueueError) -> str:
    """What an error says; of a model that is not there, in the words by which programs know that."""
    if isinstance(error, ModelNotFound) and error.model is not None:
        return f"model '{error.model}' not found"
    return error.message


def error_body(error: QueueError, _request_id: str = "") -> bytes:
    """An error as the body of an answer."""
    return error_line(error_text(error))


def embed_error_body(error: QueueError, _request_id: str = "") -> bytes:
    """The same where embeddings are asked for: they have other words for a model that is not there."""
    if isinstance(error, ModelNotFound) and error.model:
        return error_line(f'model "{error.model}" not found, try pulling it first')
    return error_body(error)


OLLAMA: Final = Dialect("ollama", error_body, JSON)
OLLAMA_EMBED: Final = Dialect("ollama", embed_error_body, JSON)


def tagged(name: str) -> str:
    """A name with its tag: Ollama never shows one without."""
    return name if ":" in name.rpartition("/")[2] else name + ":latest"
