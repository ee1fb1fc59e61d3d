"""Anthropic's messages: the operation, and its answers as one whole body or as server-sent events.

A stream is a message that is built up in front of the caller: blocks of content, one after the other and numbered
without a gap, each begun, filled and ended. Every event has an ``event:`` line, for clients see no other. A stream that
breaks ends with an error event, and no end of the message.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from llm_queue.errors import QueueError
from llm_queue.wire import strict_json
from llm_queue.wire.callers.anthropic import ANTHROPIC, error_object
from llm_queue.wire.callers.anthropic_request import MessagesReply, parse_messages
from llm_queue.wire.callers.anthropic_shapes import MessagesBody
from llm_queue.wire.callers.dialect import Operation, Progress, Served
from llm_queue.wire.shapes import Answer, Completion, Delta, JsonObject, Piece, ToolCall
from llm_queue.wire.wishes import BACKGROUND, INTERACTIVE

SIGNATURE: Final = "bGxtLXF1ZXVl"
"""What stands where Anthropic signs a thought: clients drop thoughts without a signature, and send this one back."""

PINGS: Final = 2
"""Words to a waiting caller that are mere pings. Claude Code counts none of them and gives up after 300 s, but for an
empty piece of text. That takes a block of text, which stays in the message; whoever waits shortly shall have none."""

_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'

Kind = Literal["text", "thinking"]


class MessagesEncoder:
    """Implements :class:`~llm_queue.wire.callers.dialect.Encoder`."""

    def __init__(self, reply: MessagesReply, served: Served, *, answer_id: str | None = None) -> None:
        self.id = answer_id or f"msg_{secrets.token_hex(12)}"
        self._reply = reply
        self._served = served
        self._begun = False
        self._index = 0
        self._open: Kind | None = None
        self._waited = 0
        self._calls = 0

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body."""
        said = answer.message
        calls = [self._tool_use(call) for call in said.tool_calls if _is_object(call.arguments)]
        text = said.content + "".join(_as_text(call) for call in said.tool_calls if not _is_object(call.arguments))
        content: list[JsonObject] = []
        if said.thinking:
            content.append({"type": "thinking", "thinking": said.thinking, "signature": SIGNATURE})
        if text or not (content or calls):
            content.append({"type": "text", "text": text})
        content += calls
        reason, sequence = self._reason(answer.completion)
        usage = _usage(answer.completion) | {"service_tier": self._tier()}
        return msgspec.json.encode(self._message(content, reason, sequence, usage)) + b"\n"

    def begin(self) -> bytes:
        """Nothing: the message begins with its first piece."""
        return b""

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """Events for these pieces, in order; none for a piece with nothing in it."""
        self._waited = 0
        events = b""
        for piece in pieces:
            if isinstance(piece, Delta):
                if piece.thinking:
                    events += self._say("thinking", piece.thinking)
                if piece.content:
                    events += self._say("text", piece.content)
                for call in piece.tool_calls:
                    events += self._call(call) if _is_object(call.arguments) else self._say("text", _as_text(call))
        return events

    def waiting(self, progress: Progress) -> bytes:
        """A ping; from the third on, and in the middle of a block, a piece of text or thought with nothing in it."""
        self._waited += 1
        if self._open is not None:
            return self._say(self._open, "")
        return _PING if self._waited <= PINGS else self._say("text", "")

    def end(self, completion: Completion) -> bytes:
        """The end of the message: why it ended, and what it used. An answer without anything is an empty text."""
        events = self._close() if self._index or self._open else self._say("text", "") + self._close()
        reason, sequence = self._reason(completion)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        events += _event("message_delta", {"delta": delta, "usage": _usage(completion)})
        return events + _event("message_stop", {})

    def error(self, error: QueueError) -> bytes:
        """The last event of a stream that did not come to its end."""
        return _sse("error", error_object(error, self._served.request_id))

    def _say(self, kind: Kind, text: str) -> bytes:
        """A piece of a block of this kind: of the open one, or of a new one."""
        events = b"" if self._open == kind else self._start(kind)
        delta = {"type": f"{kind}_delta", kind: text}
        return events + _event("content_block_delta", {"index": self._index, "delta": delta})

    def _start(self, kind: Kind) -> bytes:
        events = self._start_message() + self._close()
        self._open = kind
        block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
        return events + _event("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> bytes:
        """The end of the open block, if there is one."""
        events = b""
        if self._open == "thinking":
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            events = _event("content_block_delta", {"index": self._index, "delta": delta})
        if self._open is not None:
            events += _event("content_block_stop", {"index": self._index})
            self._open = None
            self._index += 1
        return events

    def _call(self, call: ToolCall) -> bytes:
        """A block of a call: begun, filled and ended at once, for calls come whole."""
        events = self._start_message() + self._close()
        index, block = self._index, self._tool_use(call) | {"input": {}}
        self._index += 1
        events += _event("content_block_start", {"index": index, "content_block": block})
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        events += _event("content_block_delta", {"index": index, "delta": delta})
        return events + _event("content_block_stop", {"index": index})

    def _tool_use(self, call: ToolCall) -> JsonObject:
        self._calls += 1
        call_id = call.id or f"toolu_{secrets.token_hex(12)}"
        return {"type": "tool_use", "id": call_id, "name": call.name, "input": msgspec.Raw(call.arguments.encode())}

    def _start_message(self) -> bytes:
        """The message without content, once. Nothing is counted yet: the true counts come with its end."""
        if self._begun:
            return b""
        self._begun = True
        usage = {"input_tokens": self._reply.about_tokens, "output_tokens": 0, "service_tier": self._tier()}
        return _event("message_start", {"message": self._message([], None, None, usage)})

    def _message(
        self, content: list[JsonObject], reason: str | None, sequence: str | None, usage: JsonObject
    ) -> JsonObject:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._served.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage,
        }

    def _reason(self, completion: Completion) -> tuple[str, str | None]:
        """Why it ended; and at which text, if the upstream says that it was one, and only one was given."""
        match completion.finish_reason:
            case "length":
                return "max_tokens", None
            case "content_filter":
                return "refusal", None
            case _ if self._calls:
                return "tool_use", None
            case _ if completion.finish_text == "stop_sequence" and self._reply.stop_sequences:
                given = self._reply.stop_sequences
                return "stop_sequence", given[0] if len(given) == 1 else None
            case _:
                return "end_turn", None

    def _tier(self) -> str:
        return {INTERACTIVE: "priority", BACKGROUND: "batch"}.get(self._served.lane, "standard")


MESSAGES: Final = Operation(ANTHROPIC, parse_messages, MessagesEncoder, body=MessagesBody)


def _usage(completion: Completion) -> JsonObject:
    """Tokens read from the cache are counted apart, where they are known."""
    prompt, cached = completion.prompt_tokens or 0, completion.cached_tokens
    usage: JsonObject = {"input_tokens": max(0, prompt - (cached or 0))}
    if cached is not None:
        usage["cache_read_input_tokens"] = cached
    return usage | {"output_tokens": completion.completion_tokens or 0}


def _is_object(arguments: str) -> bool:
    """True if they can be the input of a call. Otherwise whatever stood there would be made up, and would be run."""
    return strict_json.object_in(arguments) is not None


def _as_text(call: ToolCall) -> str:
    """A call that cannot be one: what the model wrote, for people to see and for no program to run."""
    return f"{call.name}({call.arguments})"


def _event(kind: str, fields: JsonObject) -> bytes:
    return _sse(kind, {"type": kind} | fields)


def _sse(kind: str, body: JsonObject) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(body))
