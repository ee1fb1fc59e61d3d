"""OpenAI's chat completions: the operation, and its answers as one whole body or as server-sent events.

Events are bare ``data:`` lines, one per piece, as Ollama and OpenAI send them. A stream that breaks ends with an error
event, with no finish reason and no ``[DONE]``, so that nobody takes half an answer for a whole one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from llm_queue.errors import QueueError
from llm_queue.wire.callers.dialect import Operation, Progress, Served
from llm_queue.wire.callers.openai import OPENAI, error_json
from llm_queue.wire.callers.openai_answers import DONE, FINGERPRINT, comment, event_of, usage_of
from llm_queue.wire.callers.openai_request import ChatReply, parse_chat
from llm_queue.wire.callers.openai_shapes import ChatBody
from llm_queue.wire.callers.openai_tools import input_of
from llm_queue.wire.shapes import Answer, Completion, Delta, JsonObject, Piece, ToolCall
from llm_queue.wire.wishes import tier_name


class ChatEncoder:
    """Implements :class:`~llm_queue.wire.callers.dialect.Encoder`."""

    def __init__(self, reply: ChatReply, served: Served, *, answer_id: str | None = None) -> None:
        self.id = answer_id or f"chatcmpl-{secrets.token_hex(12)}"
        self._reply = reply
        self._served = served
        self._begun = False
        self._calls = 0

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body."""
        said = answer.message
        message: JsonObject = {"role": "assistant", "content": said.content, "refusal": None}
        if said.thinking:
            message["reasoning"] = said.thinking
        if said.tool_calls:
            message |= self._called(said.tool_calls)
        choice: JsonObject = {
            "index": 0,
            "message": message,
            "logprobs": _logprobs(said.logprobs) if said.logprobs else None,
            "finish_reason": self._reason(answer.completion),
        }
        body = self._envelope("chat.completion") | {"choices": [choice], "usage": usage_of(answer.completion)}
        return msgspec.json.encode(body) + b"\n"

    def begin(self) -> bytes:
        """Nothing: the role goes with the first piece."""
        return b""

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """Events for these pieces, in order; none for a piece with nothing in it."""
        return b"".join(event for piece in pieces if isinstance(piece, Delta) for event in self._events(piece))

    def waiting(self, progress: Progress) -> bytes:
        """A comment."""
        return comment(progress)

    def end(self, completion: Completion) -> bytes:
        """The last events: why it ended, what it used if the caller wants to know, and the mark that this is all."""
        begin = b"" if self._begun else self._event({"content": ""})
        finish = self._chunk([{"index": 0, "delta": {}, "finish_reason": self._reason(completion)}])
        usage = self._chunk([], {"usage": usage_of(completion)}) if self._reply.include_usage else b""
        return begin + finish + usage + DONE

    def error(self, error: QueueError) -> bytes:
        """The last event of a stream that did not come to its end."""
        return event_of(error_json(error))

    def _events(self, delta: Delta) -> Iterator[bytes]:
        logprobs = delta.logprobs
        if delta.thinking:
            # A chunk of its own: clients switch from thought to answer between chunks, not within one.
            yield self._event({"content": "", "reasoning": delta.thinking}, logprobs)
            logprobs = ()
        if delta.tool_calls:
            text = {"content": delta.content} if delta.content else {}
            yield self._event(text | self._called(delta.tool_calls), logprobs)
        elif delta.content or logprobs:
            yield self._event({"content": delta.content}, logprobs)

    def _event(self, delta: JsonObject, logprobs: tuple[JsonObject, ...] = ()) -> bytes:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": "", "refusal": None} | delta
        choice: JsonObject = {"index": 0, "delta": delta, "finish_reason": None}
        if logprobs:
            choice["logprobs"] = _logprobs(logprobs)
        return self._chunk([choice])

    def _chunk(self, choices: list[JsonObject], more: JsonObject | None = None) -> bytes:
        return event_of(
            msgspec.json.encode(self._envelope("chat.completion.chunk") | {"choices": choices} | (more or {}))
        )

    def _envelope(self, kind: str) -> JsonObject:
        return {
            "id": self.id,
            "object": kind,
            "created": self._served.created,
            "model": self._served.model,
            "service_tier": tier_name(self._served.lane),
            "system_fingerprint": FINGERPRINT,
        }

    def _called(self, calls: tuple[ToolCall, ...]) -> JsonObject:
        """The calls, as the caller knows them: the older function calling has one call in an answer."""
        first, self._calls = self._calls, self._calls + len(calls)
        if self._reply.older_calls:
            return {} if first else {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments}}
        numbered = [
            {"index": index, "id": call.id or f"call_{secrets.token_hex(12)}"} | self._call(call)
            for index, call in enumerate(calls, first)
        ]
        return {"tool_calls": numbered}

    def _call(self, call: ToolCall) -> JsonObject:
        if call.name in self._reply.custom:
            return {"type": "custom", "custom": {"name": call.name, "input": input_of(call.arguments)}}
        return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}

    def _reason(self, completion: Completion) -> str:
        """OpenAI has a reason of its own for a stop at a tool call; one that it has no word for goes as it came."""
        match completion.finish_reason:
            case "stop" | "tool_calls" if self._calls:
                return "function_call" if self._reply.older_calls else "tool_calls"
            case "tool_calls":
                return "stop"  # a client that is told of calls looks for them
            case "stop" | "length" | "content_filter" as reason:
                return reason
            case other:
                return completion.finish_text or other


CHAT: Final = Operation(OPENAI, parse_chat, ChatEncoder, body=ChatBody)


def count_body(tokens: int) -> bytes:
    """So many tokens has a chat, as llama.cpp's server says it."""
    return msgspec.json.encode({"input_tokens": tokens}) + b"\n"


def _logprobs(items: tuple[JsonObject, ...]) -> JsonObject:
    return {"content": items, "refusal": None}
