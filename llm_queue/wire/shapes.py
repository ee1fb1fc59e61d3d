"""What one chat request and its answer are inside llm-queue, whatever dialect came in or goes out.

A dialect is a pair of translators to and from these shapes. Text is never changed on the way: what a field holds is
what the caller or the model wrote.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

JsonObject = dict[str, Any]


class ToolCall(msgspec.Struct, frozen=True):
    """The model wants a function called. ``arguments`` is the object that a JSON text stood for."""

    name: str
    arguments: JsonObject
    id: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn of the conversation. ``images`` are base64 without a ``data:`` prefix."""

    role: str
    content: str = ""
    images: tuple[str, ...] = ()
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """What to ask of the model: everything but the context size, which is the line's to choose.

    ``options`` holds only what the caller gave, under Ollama's names, so that the model's own defaults stand.
    ``format`` is ``"json"``, a JSON schema, or nothing. ``think`` is an effort, a switch, or nothing (as
    the model likes).
    """

    model: str
    messages: tuple[Message, ...]
    options: JsonObject = {}
    format: Literal["json"] | JsonObject | None = None
    tools: tuple[JsonObject, ...] = ()
    think: bool | str | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


class Delta(msgspec.Struct, frozen=True):
    """A piece of an answer, as it came: any of its parts may be empty. ``logprobs`` are in OpenAI's shape."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()

    @property
    def size(self) -> int:
        """About how many bytes it takes to keep, for the bound on what a slow reader may leave lying."""
        return 200 + len(self.content) + len(self.thinking) + 200 * (len(self.tool_calls) + len(self.logprobs))


class Completion(msgspec.Struct, frozen=True):
    """The true end of an answer: the upstream said that it is done, why, and what it counted.

    ``load_seconds`` is what the upstream spent on making the model resident: about nothing when it was.
    """

    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    load_seconds: float = 0.0


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: all deltas folded into one, and its end."""

    message: Delta
    completion: Completion


def fold(deltas: list[Delta], completion: Completion) -> Answer:
    """Join a stream into one answer, verbatim."""
    return Answer(
        Delta(
            content="".join(delta.content for delta in deltas),
            thinking="".join(delta.thinking for delta in deltas),
            tool_calls=tuple(call for delta in deltas for call in delta.tool_calls),
            logprobs=tuple(item for delta in deltas for item in delta.logprobs),
        ),
        completion,
    )
