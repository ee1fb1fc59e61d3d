"""From our answers to OpenAI's: one whole body, or server-sent events.

Events are bare ``data:`` lines, one per piece, as Ollama and OpenAI send them. A stream that breaks ends with an error
event, with no finish reason and no ``[DONE]``, so that nobody takes half an answer for a whole one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from llm_queue.errors import QueueError
from llm_queue.wire.shapes import Answer, Completion, Delta, JsonObject, ToolCall

FINGERPRINT: Final = "fp_llm_queue"
DONE: Final = b"data: [DONE]\n\n"

_ERROR_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ChatEncoder:
    """Writes one answer. ``created`` is in Unix seconds; ``model`` is the name that the caller used.

    Either ``whole`` once, or ``chunks`` any number of times and then ``end`` or ``error_event`` once.
    """

    def __init__(
        self,
        *,
        model: str,
        created: int,
        service_tier: str = "default",
        include_usage: bool = False,
        answer_id: str | None = None,
    ) -> None:
        self.id = answer_id or f"chatcmpl-{secrets.token_hex(12)}"
        self.model = model
        self.created = created
        self.service_tier = service_tier
        self.include_usage = include_usage
        self._begun = False
        self._calls = 0

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body."""
        said = answer.message
        message: JsonObject = {"role": "assistant", "content": said.content}
        if said.thinking:
            message["reasoning"] = said.thinking
        if said.tool_calls:
            message["tool_calls"] = self._tool_calls(said.tool_calls)
        choice: JsonObject = {"index": 0, "message": message, "finish_reason": self._reason(answer.completion)}
        if said.logprobs:
            choice["logprobs"] = {"content": said.logprobs}
        return msgspec.json.encode(
            self._envelope("chat.completion") | {"choices": [choice], "usage": _usage(answer.completion)}
        )

    def chunks(self, deltas: Iterable[Delta]) -> bytes:
        """Events for these pieces, in order; none for a piece with nothing in it."""
        return b"".join(event for delta in deltas for event in self._events(delta))

    def end(self, completion: Completion) -> bytes:
        """The last events: why it ended, what it used if the caller wants to know, and the mark that this is all."""
        begin = b"" if self._begun else self._event({"content": ""})
        finish = self._chunk([{"index": 0, "delta": {}, "finish_reason": self._reason(completion)}])
        usage = self._chunk([], {"usage": _usage(completion)}) if self.include_usage else b""
        return begin + finish + usage + DONE

    def error_event(self, error: QueueError) -> bytes:
        """The last event of a stream that did not come to its end."""
        return _sse(error_body(error))

    def _events(self, delta: Delta) -> Iterator[bytes]:
        logprobs = delta.logprobs
        if delta.thinking:
            # A chunk of its own: clients switch from thought to answer between chunks, not within one.
            yield self._event({"content": "", "reasoning": delta.thinking}, logprobs)
            logprobs = ()
        if delta.tool_calls:
            calls = self._tool_calls(delta.tool_calls)
            text = {"content": delta.content} if delta.content else {}
            yield self._event(text | {"tool_calls": calls}, logprobs)
        elif delta.content or logprobs:
            yield self._event({"content": delta.content}, logprobs)

    def _event(self, delta: JsonObject, logprobs: tuple[JsonObject, ...] = ()) -> bytes:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", "content": ""} | delta
        choice: JsonObject = {"index": 0, "delta": delta, "finish_reason": None}
        if logprobs:
            choice["logprobs"] = {"content": logprobs}
        return self._chunk([choice])

    def _chunk(self, choices: list[JsonObject], more: JsonObject | None = None) -> bytes:
        return _sse(msgspec.json.encode(self._envelope("chat.completion.chunk") | {"choices": choices} | (more or {})))

    def _envelope(self, kind: str) -> JsonObject:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": self.service_tier,
            "system_fingerprint": FINGERPRINT,
        }

    def _tool_calls(self, calls: tuple[ToolCall, ...]) -> list[JsonObject]:
        first, self._calls = self._calls, self._calls + len(calls)
        return [
            {
                "index": index,
                "id": call.id or f"call_{secrets.token_hex(12)}",
                "type": "function",
                "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
            }
            for index, call in enumerate(calls, first)
        ]

    def _reason(self, completion: Completion) -> str:
        """OpenAI has a reason of its own for a stop at a tool call; any other reason is the upstream's, as it is."""
        return "tool_calls" if completion.finish_reason == "stop" and self._calls else completion.finish_reason


def error_body(error: QueueError) -> bytes:
    """An error in OpenAI's shape."""
    status = error.http_status
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    )


def models_body(models: Iterable[tuple[str, int]]) -> bytes:
    """The list of models from names and times of creation, in Unix seconds."""
    return msgspec.json.encode({"object": "list", "data": [_model(name, created) for name, created in models]})


def model_body(name: str, created: int) -> bytes:
    """One model of that list."""
    return msgspec.json.encode(_model(name, created))


def _model(name: str, created: int) -> JsonObject:
    owner, slash, _ = name.rpartition("/")
    return {"id": name, "object": "model", "created": created, "owned_by": owner if slash else "library"}


def _usage(completion: Completion) -> JsonObject:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }


def _sse(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"
