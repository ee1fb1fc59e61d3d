"""Ollama's answers: what can be asked for through the line, as one object or as lines of JSON."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llm_queue.errors import QueueError
from llm_queue.wire import strict_json
from llm_queue.wire.callers.dialect import Operation, Progress, Served
from llm_queue.wire.callers.ollama import JSON, LINES, OLLAMA, OLLAMA_EMBED, error_line, error_text
from llm_queue.wire.callers.ollama_request import parse_chat, parse_embed, parse_embeddings, parse_generate
from llm_queue.wire.callers.ollama_shapes import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody
from llm_queue.wire.dates import time_stamp
from llm_queue.wire.shapes import Answer, Completion, Delta, JsonObject, Piece, ToolCall

_REASONS: Final = {"tool_calls": "stop"}


class _Lines(ABC):
    """Implements :class:`~llm_queue.wire.callers.dialect.Encoder` but for the place where the text stands.

    Every line is an object with a text in it, be it empty: clients fail on others, and on lines that are blank.
    """

    def __init__(self, top_logprobs: int, served: Served) -> None:
        self._top_logprobs = top_logprobs
        self._head: JsonObject = {"model": served.model, "created_at": time_stamp(served.created)}
        self._calls = 0

    @abstractmethod
    def said(self, delta: Delta) -> JsonObject:
        """The part of a line that holds a piece of the answer."""

    def whole(self, answer: Answer) -> bytes:
        """The answer as one object."""
        return self._last(answer.message, answer.completion)

    def begin(self) -> bytes:
        """Nothing: each line stands for itself."""
        return b""

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """A line for each piece."""
        return b"".join(_line(self._piece(piece)) for piece in pieces if isinstance(piece, Delta) and piece != Delta())

    def waiting(self, progress: Progress) -> bytes:
        """A usual line with an empty text: there is no other sign of life that all clients bear."""
        return _line(self._piece(Delta()))

    def end(self, completion: Completion) -> bytes:
        """The last line: why it ended, what was counted, and how long it took."""
        return self._last(Delta(), completion)

    def error(self, error: QueueError) -> bytes:
        """The last line of a stream that did not come to its end."""
        return error_line(error_text(error))

    def _piece(self, delta: Delta) -> JsonObject:
        return self._head | self.said(delta) | {"done": False} | self._logprobs(delta)

    def _last(self, delta: Delta, completion: Completion) -> bytes:
        reason = completion.finish_reason
        said = completion.finish_text or reason if reason == "other" else _REASONS.get(reason, reason)
        ended: JsonObject = {"done": True, "done_reason": said}
        if completion.context:
            ended["context"] = completion.context
        line = self._head | self.said(delta) | ended
        if reason not in ("load", "unload"):
            line |= counts(completion)
        return _line(line | self._logprobs(delta))

    def _logprobs(self, delta: Delta) -> JsonObject:
        """Without the lists that are empty or not there, as Ollama writes them."""
        return {"logprobs": [_token(item, self._top_logprobs) for item in delta.logprobs]} if delta.logprobs else {}

    def _called(self, calls: tuple[ToolCall, ...]) -> list[JsonObject]:
        first, self._calls = self._calls, self._calls + len(calls)
        return [
            {
                "id": call.id or f"call_{secrets.token_hex(4)}",
                "function": {"index": index, "name": call.name, "arguments": _arguments(call.arguments)},
            }
            for index, call in enumerate(calls, first)
        ]


class ChatEncoder(_Lines):
    """The text stands in a message."""

    def said(self, delta: Delta) -> JsonObject:
        """A message, which is there in every line."""
        message: JsonObject = {"role": "assistant", "content": delta.content}
        if delta.thinking:
            message["thinking"] = delta.thinking
        if delta.tool_calls:
            message["tool_calls"] = self._called(delta.tool_calls)
        return {"message": message}


class GenerateEncoder(_Lines):
    """The text stands in the line itself."""

    def said(self, delta: Delta) -> JsonObject:
        """A response, which is there in every line."""
        said: JsonObject = {"response": delta.content}
        if delta.thinking:
            said["thinking"] = delta.thinking
        if delta.tool_calls:
            said["tool_calls"] = self._called(delta.tool_calls)
        return said


class EmbedEncoder(_Lines):
    """Vectors, always as one object."""

    def said(self, delta: Delta) -> JsonObject:
        """Nothing: vectors have no pieces."""
        return {}

    def whole(self, answer: Answer) -> bytes:
        """All vectors, and what was counted and timed."""
        body: JsonObject = {"model": self._head["model"], "embeddings": answer.vectors}
        if answer.completion.finish_reason not in ("load", "unload"):
            body |= counts(answer.completion)
        return _line(body)


class EmbeddingsEncoder(EmbedEncoder):
    """The one vector of the older way."""

    def whole(self, answer: Answer) -> bytes:
        """The vector alone."""
        return _line({"embedding": answer.vectors[0] if answer.vectors else ()})


CHAT: Final = Operation(OLLAMA, parse_chat, ChatEncoder, JSON, LINES, ChatBody)
GENERATE: Final = Operation(OLLAMA, parse_generate, GenerateEncoder, JSON, LINES, GenerateBody)
EMBED: Final = Operation(OLLAMA_EMBED, parse_embed, EmbedEncoder, JSON, LINES, EmbedBody)
EMBEDDINGS: Final = Operation(OLLAMA_EMBED, parse_embeddings, EmbeddingsEncoder, JSON, LINES, EmbeddingsBody)


def counts(completion: Completion) -> JsonObject:
    """Times in nanoseconds and counts of tokens, without those that are 0 or not known.

    Of cached tokens 0 is said, too: there it means that none were, and an absence that nobody knows.
    """
    parts = (completion.load_seconds, completion.prompt_seconds, completion.answer_seconds)
    total = completion.total_seconds
    said: dict[str, int | None] = {
        "total_duration": _nanoseconds(sum(part or 0 for part in parts) if total is None else total),
        "load_duration": _nanoseconds(completion.load_seconds),
        "prompt_eval_count": completion.prompt_tokens,
        "prompt_eval_cached_count": completion.cached_tokens,
        "prompt_eval_duration": _nanoseconds(completion.prompt_seconds),
        "eval_count": completion.completion_tokens,
        "eval_duration": _nanoseconds(completion.answer_seconds),
    }
    return {name: count for name, count in said.items() if count or (name == "prompt_eval_cached_count" and count == 0)}


def _nanoseconds(seconds: float | None) -> int:
    return round((seconds or 0) * 1e9)


def _line(line: JsonObject) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _arguments(text: str) -> Any:
    """The arguments of a call as the object that clients need, on one line; a text that holds none stands in one, as it
    is. An object stays as it was written, but for its line ends, which are never in its strings.
    """
    if strict_json.object_in(text) is None:
        return {"_text": text}
    return msgspec.Raw(text.replace("\n", " ").replace("\r", " ").encode())


def _token(item: JsonObject, others: int = 0) -> JsonObject:
    """A token with as many others as were asked for; some engines list more."""
    said = {name: item[name] for name in ("token", "logprob")}
    if item.get("bytes"):
        said["bytes"] = item["bytes"]
    if listed := (item.get("top_logprobs") or ())[:others]:
        said["top_logprobs"] = [_token(other) for other in listed]
    return said
