"""From Ollama's answers to ours: lines of text, vectors, and errors. Shapes are those of Ollama 0.33."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, field

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.shapes import Completion, Delta, FinishReason, JsonObject, ToolCall, Vectors
from llm_queue.wire.upstreams.lines import LONGEST_ERROR, Lines, decode

_NANOSECOND: Final = 1e-9
_ERROR_NESTING: Final = 4
_REASONS: Final[dict[str, FinishReason]] = {
    "": "stop",
    "stop": "stop",
    "length": "length",
    "load": "load",
    "unload": "unload",
}


class _Function(Struct):
    name: str
    arguments: Raw = field(default_factory=Raw)


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


class _Counts(Struct):
    """Durations are in nanoseconds; what is 0 is left out, but for the cached tokens, where absent means unknown."""

    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_cached_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class _Line(_Counts):
    message: _Said | None = None  # of a chat
    response: str | None = None  # of a generate, as the next two
    thinking: str | None = None
    context: list[int] | None = None
    logprobs: list[_Logprob] | None = None
    error: Any = None
    done: bool | None = None
    done_reason: str | None = None


class _Embedded(_Counts):
    embeddings: list[tuple[float, ...]] | None = None


class _PlainEmbedded(Struct):
    embedding: tuple[float, ...] | None = None


class _Loaded(_Counts):
    done_reason: str = ""


_LINE: Final = msgspec.json.Decoder(_Line)
_EMBEDDED: Final = msgspec.json.Decoder(_Embedded)
_PLAIN_EMBEDDED: Final = msgspec.json.Decoder(_PlainEmbedded)
_LOADED: Final = msgspec.json.Decoder(_Loaded)
_TEXT: Final = msgspec.json.Decoder(str)


class LineDecoder:
    """Reads the lines of one answer of a chat or a generate, however the network cut them.

    What comes after the line that says ``done`` is ignored. After an error nothing more may be fed.
    """

    def __init__(self) -> None:
        self._lines = Lines()
        self._completion: Completion | None = None

    @property
    def done(self) -> bool:
        """The upstream has said that the answer is complete."""
        return self._completion is not None

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces that end in ``data``; empty ones are left out.

        Raises :class:`~llm_queue.errors.UpstreamBroke` for a line that says so, is no line of an answer, or is too
        long.
        """
        return [] if self.done else self._read_all(self._lines.feed(data))

    def close(self) -> tuple[list[Delta], Completion]:
        """What is left of the answer and its end, once the upstream sends no more.

        Raises :class:`~llm_queue.errors.UpstreamBroke` if it never said that it was done.
        """
        left = [] if self.done else self._read_all([self._lines.rest()])
        if self._completion is None:
            raise UpstreamBroke("The upstream broke off its answer before the end. Its own log says why.")
        return left, self._completion

    def _read_all(self, lines: Iterable[bytes]) -> list[Delta]:
        deltas: list[Delta] = []
        for line in lines:
            if line.strip() and (delta := self._read(line)) != Delta():
                deltas.append(delta)
            if self.done:
                break
        return deltas

    def _read(self, text: bytes) -> Delta:
        line = decode(text, _LINE)
        if line.error is not None:
            raise UpstreamBroke(error_text(text))
        if line.done:
            self._completion = _completion(line, line.done_reason or "", tuple(line.context or ()))
        said = line.message or _Said()
        return Delta(
            content=said.content or line.response or "",
            thinking=said.thinking or line.thinking or "",
            tool_calls=tuple(
                ToolCall(call.function.name, _arguments(call.function.arguments), call.id or None)
                for call in said.tool_calls or ()
            ),
            logprobs=tuple(_logprob(item) for item in line.logprobs or ()),
        )


def parse_embedded(body: bytes) -> tuple[Vectors, Completion]:
    """The answer of an embed. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    answer = decode(body, _EMBEDDED)
    if answer.embeddings is None:
        raise UpstreamBroke("The upstream sent an answer without embeddings.")
    return Vectors(tuple(answer.embeddings)), _completion(answer, "stop")


def parse_plain_embedded(body: bytes) -> tuple[Vectors, Completion]:
    """The answer of the older embeddings. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    answer = decode(body, _PLAIN_EMBEDDED)
    if answer.embedding is None:
        raise UpstreamBroke("The upstream sent an answer without an embedding.")
    return Vectors((answer.embedding,)), Completion("stop", finish_text="stop")


def parse_loaded(body: bytes) -> Completion:
    """The answer to a request that only loads or unloads. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    answer = decode(body, _LOADED)
    return _completion(answer, answer.done_reason)


def _completion(counts: _Counts, reason: str, context: tuple[int, ...] = ()) -> Completion:
    return Completion(
        finish_reason=_REASONS.get(reason, "other"),
        finish_text=reason,
        prompt_tokens=counts.prompt_eval_count or 0,
        completion_tokens=counts.eval_count or 0,
        cached_tokens=counts.prompt_eval_cached_count,
        load_seconds=(counts.load_duration or 0) * _NANOSECOND,
        prompt_seconds=(counts.prompt_eval_duration or 0) * _NANOSECOND,
        answer_seconds=(counts.eval_duration or 0) * _NANOSECOND,
        context=context,
        total_seconds=(counts.total_duration or 0) * _NANOSECOND,
    )


def _arguments(raw: Raw) -> str:
    """The object's text as it came; Ollama's kin send a text that holds one."""
    text = bytes(raw).decode(errors="replace")
    if text.startswith('"'):
        text = decode(text.encode(), _TEXT)
    return text if text.strip() not in ("", "null") else "{}"


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
    signin_url: str | None = None


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


def error_text(body: bytes) -> str:
    """What an error says to a human.

    Ollama wraps texts as ``{"error": "…"}``, and llama-server's own errors, JSON themselves, once more in that string.
    Beside what its cloud says to nobody in particular stands where one signs in.
    """
    place = ""
    text = body.decode(errors="replace").strip()
    for _ in range(_ERROR_NESTING):
        try:
            wrapped = _WRAPPED.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            break
        text = wrapped.error if isinstance(wrapped.error, str) else wrapped.error.message
        if wrapped.signin_url:
            place = f" (sign in at {wrapped.signin_url})"
    return (text + place)[:LONGEST_ERROR]
