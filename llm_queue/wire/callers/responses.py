"""OpenAI's Responses: the operation, and its answers as one whole body or as server-sent events.

Nothing is stored: each answer says ``store: false``, and nothing of it can be asked for later. A stream that breaks
ends with ``response.failed``, and with no ``done`` of the item that broke, so that nobody takes half an answer for a
whole one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    EngineDied,
    LoadFailed,
    PromptTooLong,
    QueueError,
    WaitExpired,
)
from llm_queue.wire.callers.dialect import Operation, Progress, Served
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.responses_output import Output
from llm_queue.wire.callers.responses_request import ResponsesReply, parse_response
from llm_queue.wire.callers.responses_shapes import ResponsesBody
from llm_queue.wire.callers.responses_stream import Events
from llm_queue.wire.shapes import Answer, Completion, Delta, JsonObject, Piece
from llm_queue.wire.wishes import tier_name

POINTLESS: Final = (AttemptTimedOut, Cancelled, EngineDied, LoadFailed, WaitExpired)
"""Failures that the same request would meet again, or that somebody wanted. A stream has no ``x-should-retry``, and
Codex repeats a ``server_error`` five times; so their code is one that is not repeated."""

_CUT: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not complete, by the reason why it ended."""

Ending = Literal["completed", "incomplete"]


class ResponsesEncoder:
    """Implements :class:`~llm_queue.wire.callers.dialect.Encoder`."""

    def __init__(self, reply: ResponsesReply, served: Served, *, unique: str | None = None) -> None:
        """The ids of the response and of all that is in it are made of ``unique``."""
        unique = unique or secrets.token_hex(12)
        self.id = f"resp_{unique}"
        self._reply = reply
        self._served = served
        self._events = Events()
        self._output = Output(self._events, reply, unique)
        self._running = False

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body: what its stream would have ended with."""
        self.pieces([answer.message])
        _, status = self._finish(answer.completion)
        return msgspec.json.encode(self._ended(status, answer.completion)) + b"\n"

    def begin(self) -> bytes:
        """The response as it is created: in the line, if only for a moment."""
        return self._events.write("response.created", response=self._response("queued"))

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """Events for these pieces, in order; none for a piece with nothing in it."""
        said = [
            piece
            for piece in pieces
            if isinstance(piece, Delta) and (piece.thinking or piece.content or piece.tool_calls)
        ]
        if not said:
            return b""
        running = b"" if self._running else self._run()
        return running + b"".join(event for delta in said for event in self._output.add(delta))

    def waiting(self, progress: Progress) -> bytes:
        """One of the two events that may be repeated: Codex counts no comment as life. A comment in it is for people
        who use curl.
        """
        if progress.phase in ("queued", "paused") and not self._output.begun:
            about = f", about {progress.seconds:.0f} s" if progress.seconds is not None else ""
            where = f": {progress.phase}, {progress.ahead} ahead{about}\n".encode()
            return where + self._events.write("response.queued", response=self._response("queued"))
        return f": {progress.phase}\n".encode() + self._run()

    def end(self, completion: Completion) -> bytes:
        """The last events: the end of what was open, and the whole response."""
        closed, status = self._finish(completion)
        return closed + self._events.write(f"response.{status}", response=self._ended(status, completion))

    def error(self, error: QueueError) -> bytes:
        """The last event of a stream that did not come to its end. Items that had ended stand."""
        code, message = failure_of(error)
        failure = {"code": code, "message": message, "param": error.param, "type": error.code}
        return self._events.write("response.failed", response=self._response("failed", error=failure))

    def _run(self) -> bytes:
        self._running = True
        return self._events.write("response.in_progress", response=self._response("in_progress"))

    def _finish(self, completion: Completion) -> tuple[bytes, Ending]:
        """The end of what is open, and the status of the whole. An answer without anything in it is an empty text."""
        status: Ending = "incomplete" if completion.finish_reason in _CUT else "completed"
        empty = b"" if self._output.begun else self._run() + b"".join(self._output.say(""))
        return empty + self._output.close(status), status

    def _ended(self, status: Ending, completion: Completion) -> JsonObject:
        reason = _CUT.get(completion.finish_reason)
        return self._response(
            status, incomplete_details={"reason": reason} if reason else None, usage=_usage(completion)
        )

    def _response(
        self,
        status: Literal["queued", "in_progress", "failed"] | Ending,
        *,
        error: JsonObject | None = None,
        incomplete_details: JsonObject | None = None,
        usage: JsonObject | None = None,
    ) -> JsonObject:
        head = {
            "id": self.id,
            "object": "response",
            "created_at": self._served.created,
            "status": status,
            "error": error,
            "incomplete_details": incomplete_details,
            "model": self._served.model,
            "output": self._output.items,
            "service_tier": tier_name(self._served.lane),
            "usage": usage,
        }
        return head | self._reply.echo


def input_tokens_body(tokens: int) -> bytes:
    """How many tokens the input of a request has, as one body."""
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens}) + b"\n"


RESPONSES: Final = Operation(OPENAI, parse_response, ResponsesEncoder, body=ResponsesBody)


def failure_of(error: QueueError) -> tuple[str, str]:
    """The code and the message of an error in a stream.

    The code says what a header says elsewhere: whether to ask again. It is one of those that OpenAI has, and that Codex
    knows: our own stands beside it.
    """
    if isinstance(error, PromptTooLong):
        return error.code, error.message
    if error.retryable:
        return "rate_limit_exceeded", f"{error.message} Please try again in {error.retry_after or 1}s."
    if error.http_status < 500 or isinstance(error, POINTLESS):
        return "invalid_prompt", error.message
    return "server_error", error.message


def _usage(completion: Completion) -> JsonObject | None:
    """What was counted. OpenAI's types want each of these numbers, so what is not known is 0 in the details."""
    if completion.prompt_tokens is None and completion.completion_tokens is None:
        return None
    prompt, answer = completion.prompt_tokens or 0, completion.completion_tokens or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": completion.cached_tokens or 0, "cache_write_tokens": 0},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": completion.reasoning_tokens or 0},
        "total_tokens": prompt + answer,
    }
