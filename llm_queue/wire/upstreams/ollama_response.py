"""From Ollama's answers to ours: the lines of a chat, and its errors. Shapes are those of Ollama 0.33."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.shapes import Completion, Delta, JsonObject, ToolCall

MAX_LINE: Final = 8 * 2**20
"""Bytes that one line of an answer may have: as many as Ollama's own client allows (api/client.go)."""

T = TypeVar("T")

_NANOSECOND: Final = 1e-9
_ERROR_NESTING: Final = 4
_LONGEST_ERROR: Final = 4000


class _Function(Struct):
    name: str
    arguments: JsonObject | None = None


class _Call(Struct):
    function: _Function
    id: str | None = None


class _Said(Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Token(Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Logprob(_Token):
    top_logprobs: list[_Token] | None = None


class _Line(Struct):
    message: _Said | None = None
    logprobs: list[_Logprob] | None = None
    error: Any = None
    done: bool | None = None
    done_reason: str | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None


_LINE: Final = msgspec.json.Decoder(_Line)


class ChatDecoder:
    """Reads the lines of one answer, however the network cut them.

    What comes after the line that says ``done`` is ignored. After an error nothing more may be fed.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._completion: Completion | None = None

    @property
    def done(self) -> bool:
        """The upstream has said that the answer is complete."""
        return self._completion is not None

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces that end in ``data``; empty ones are left out.

        Raises :class:`~llm_queue.errors.UpstreamBroke` for a line that says so, is no line of an answer, or is longer
        than :data:`MAX_LINE`.
        """
        deltas: list[Delta] = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            if self.done:
                break
            line = bytes(self._rest) + piece
            self._rest.clear()
            if (delta := self._read(line)) is not None:
                deltas.append(delta)
        if not self.done:
            self._rest += rest
            _check_length(self._rest)
        return deltas

    def close(self) -> Completion:
        """The end of the answer, once the upstream sends no more.

        Raises :class:`~llm_queue.errors.UpstreamBroke` if it never said that it was done.
        """
        unterminated = self.feed(b"\n") if self._rest else []
        if self._completion is None or unterminated:
            raise UpstreamBroke("The upstream broke off its answer before the end. Its own log says why.")
        return self._completion

    def _read(self, text: bytes) -> Delta | None:
        _check_length(text)
        if not text.strip():
            return None
        line = decode(text, _LINE)
        if line.error is not None:
            raise UpstreamBroke(error_text(text))
        if line.done:
            self._completion = Completion(
                finish_reason=line.done_reason or "stop",
                prompt_tokens=line.prompt_eval_count or 0,
                completion_tokens=line.eval_count or 0,
                load_seconds=(line.load_duration or 0) * _NANOSECOND,
            )
        said = line.message or _Said()
        delta = Delta(
            content=said.content or "",
            thinking=said.thinking or "",
            tool_calls=tuple(
                ToolCall(call.function.name, call.function.arguments or {}, call.id or None)
                for call in said.tool_calls or ()
            ),
            logprobs=tuple(_logprob(item) for item in line.logprobs or ()),
        )
        return None if delta == Delta() else delta


def _check_length(line: bytes | bytearray) -> None:
    if len(line) > MAX_LINE:
        raise UpstreamBroke(f"The upstream sent a line of more than {MAX_LINE} bytes.")


def _logprob(item: _Logprob) -> JsonObject:
    """OpenAI's shape, where every field is there."""
    return _token(item) | {"top_logprobs": [_token(other) for other in item.top_logprobs or ()]}


def _token(item: _Token) -> JsonObject:
    return {"token": item.token, "logprob": item.logprob, "bytes": item.bytes}


# --- errors ---


class _Detail(Struct):
    message: str


class _Wrapped(Struct):
    error: str | _Detail


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


def error_text(body: bytes) -> str:
    """What an error says to a human.

    Ollama wraps texts as ``{"error": "…"}``, and llama-server's own errors, JSON themselves, once more in that string.
    """
    text = body.decode(errors="replace").strip()
    for _ in range(_ERROR_NESTING):
        try:
            wrapped = _WRAPPED.decode(text).error
        except (msgspec.DecodeError, ValueError, RecursionError):
            break
        text = wrapped if isinstance(wrapped, str) else wrapped.message
    return text[:_LONGEST_ERROR]


def decode(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """What ``decoder`` reads. Raises :class:`~llm_queue.errors.UpstreamBroke` for anything else."""
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: not UTF-8
        # Not what it says: that may be somebody's text, and errors are logged.
        raise UpstreamBroke("The upstream sent something that is not an answer of Ollama.") from None
