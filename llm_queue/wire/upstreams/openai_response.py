"""From the answers of an upstream in OpenAI's dialect to ours.

Answers come as server-sent events, or, from servers that do not stream, as one JSON body. Servers differ in all that
the dialect leaves open, so much is read; but an answer counts as whole only once the server has said so, by a finish
reason or by ``[DONE]``. An end before that, or an error in its place, is a broken answer.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.shapes import Completion, Delta, FinishReason, JsonObject, Vectors
from llm_queue.wire.upstreams.lines import MAX_LINE, Events, Halves, decode, decode_halves
from llm_queue.wire.upstreams.openai_calls import CallPiece, Calls, FunctionPiece
from llm_queue.wire.upstreams.openai_catalog import error_text

T = TypeVar("T")

_DONE: Final = b"[DONE]"
_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

MOST_COUNTED: Final = 2**53
"""The largest count that every JSON reader takes as it is."""

ABSENT: Final = Raw()
"""What a field holds that did not come: told apart without a look at its bytes, once per token."""

Content = str | list[JsonObject] | None


class _Said(Struct):
    content: Content = None
    reasoning_content: Any = None  # llama.cpp, DeepSeek, older vLLM
    reasoning: Any = None  # vLLM, LM Studio, OpenRouter
    tool_calls: list[CallPiece] | None = None
    function_call: FunctionPiece | None = None


class _Choice(Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Raw = ABSENT


class _PromptDetails(Struct):
    cached_tokens: float | None = None


class _AnswerDetails(Struct):
    reasoning_tokens: float | None = None


class _Usage(Struct):
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None


class _Timings(Struct):
    """llama.cpp's own. Times are in milliseconds; ``prompt_n`` leaves out what was cached."""

    cache_n: float | None = None
    prompt_n: float | None = None
    prompt_ms: float | None = None
    predicted_ms: float | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Raw = ABSENT
    timings: Raw = ABSENT
    error: Any = None
    object: Any = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_USAGE: Final = msgspec.json.Decoder(_Usage)
_TIMINGS: Final = msgspec.json.Decoder(_Timings)
_OBJECT: Final = msgspec.json.Decoder(JsonObject)


class StreamDecoder:
    """Reads the events of one answer, however the network cut them.

    Pieces of tool calls are joined and come whole, with the event that has the finish reason. What follows ``[DONE]``
    is ignored. After an error nothing more may be fed.
    """

    def __init__(self) -> None:
        self._events = Events()
        self._plain: bytearray | None = None  # the answer, if it is one JSON body
        self._begun = False
        self._content, self._thinking = Halves(), Halves()
        self._calls = Calls()
        self._answering = False
        self._reason: str | None = None
        self._usage = _Usage()
        self._timings = _Timings()
        self._over = False

    @property
    def done(self) -> bool:
        """The upstream has said that the answer ended; only its counts may be missing."""
        return self._reason is not None

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces whose events end in ``data``; empty ones are left out.

        Raises :class:`~llm_queue.errors.UpstreamBroke` for an event that says so, is no part of an answer, or is too
        long.
        """
        if not self._begun and data.strip():
            self._begun = True
            if data.lstrip()[:1] == b"{":  # no line of an event stream begins so
                self._plain = bytearray()
        if self._plain is not None:
            self._plain += data
            if len(self._plain) > MAX_LINE:
                raise UpstreamBroke(f"The upstream sent an answer of more than {MAX_LINE} bytes.")
            return []
        return self._read_all(self._events.feed(data)) if not self._over else []

    def close(self) -> tuple[list[Delta], Completion]:
        """What is left of the answer and its end, once the upstream sends no more.

        An event that was not terminated does not count, unless it is ``[DONE]``. Raises
        :class:`~llm_queue.errors.UpstreamBroke` if the upstream never said that the answer is whole.
        """
        left: list[Delta] = []
        if self._plain is not None:
            left = self._read_all([bytes(self._plain)])
        elif not self._over and _DONE in (*self._events.feed(b"\n"), self._events.rest()):
            left = self._read_all([_DONE])
        if self._reason is None:
            raise UpstreamBroke("The upstream broke off its answer before the end. Its own log says why.")
        return left, self._completion(self._reason)

    def _read_all(self, events: Iterable[bytes]) -> list[Delta]:
        deltas: list[Delta] = []
        for event in events:
            delta = self._read_done() if event == _DONE else self._read(event)
            if delta != Delta():
                deltas.append(delta)
            if self._over:
                break
        return deltas

    def _read_done(self) -> Delta:
        """Servers that give no reason still say that this was all, if there was an answer at all."""
        self._over = True
        return self._finish("stop") if self._reason is None and self._answering else Delta()

    def _read(self, event: bytes) -> Delta:
        chunk = decode_halves(event, _CHUNK)
        if chunk.error or chunk.object == "error":
            raise UpstreamBroke(error_text(event))
        self._usage = _perhaps(chunk.usage, _USAGE) or self._usage
        self._timings = _perhaps(chunk.timings, _TIMINGS) or self._timings
        if not chunk.choices:
            return Delta()
        self._answering = True
        choice = chunk.choices[0]
        said = choice.delta or choice.message or _Said(content=choice.text)
        text, thought = _parts(said.content)
        for piece in said.tool_calls or ():
            self._calls.add(piece)
        if said.function_call is not None:  # the older function calling
            self._calls.add(CallPiece(index=0, function=said.function_call))
        delta = Delta(
            content=self._content.join(text),
            thinking=self._thinking.join(_first_text(said.reasoning_content, said.reasoning, thought)),
            logprobs=_logprobs(_perhaps(choice.logprobs, _OBJECT)),
        )
        if not choice.finish_reason or self._reason is not None:
            return delta
        end = self._finish(choice.finish_reason)
        return Delta(delta.content + end.content, delta.thinking + end.thinking, end.tool_calls, delta.logprobs)

    def _finish(self, reason: str) -> Delta:
        self._reason = reason
        return Delta(self._content.end(), self._thinking.end(), self._calls.whole())

    def _completion(self, reason: str) -> Completion:
        details, timings = self._usage.prompt_tokens_details, self._timings
        thought = self._usage.completion_tokens_details
        cached = timings.cache_n if details is None or details.cached_tokens is None else details.cached_tokens
        prompt = self._usage.prompt_tokens
        if prompt is None and timings.cache_n is not None and timings.prompt_n is not None:
            prompt = timings.cache_n + timings.prompt_n
        return Completion(
            finish_reason=_REASONS.get(reason.lower(), "other"),
            finish_text=reason,
            prompt_tokens=_whole(prompt),
            completion_tokens=_whole(self._usage.completion_tokens),
            cached_tokens=_whole(cached),
            reasoning_tokens=_whole(thought.reasoning_tokens) if thought else None,
            prompt_seconds=None if timings.prompt_ms is None else timings.prompt_ms / 1000,
            answer_seconds=None if timings.predicted_ms is None else timings.predicted_ms / 1000,
        )


def _perhaps(raw: Raw, decoder: msgspec.json.Decoder[T]) -> T | None:
    """What beside the answer itself is understood, or nothing: no answer is lost for it."""
    try:
        return None if raw is ABSENT or bytes(raw) == b"null" else decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def _first_text(*given: Any) -> str:
    return next((text for text in given if text and isinstance(text, str)), "")


def _whole(number: float | None) -> int | None:
    """A count; what can be none is not known."""
    return int(number) if number is not None and 0 <= number <= MOST_COUNTED else None


def _parts(content: Content) -> tuple[str, str]:
    """Text and thought of a content; Mistral's has parts, and the parts of a thought have parts themselves."""
    if not isinstance(content, list):
        return content or "", ""
    texts, thoughts = [], []
    for part in content:
        if isinstance(text := part.get("text"), str):
            texts.append(text)
        elif isinstance(thought := part.get("thinking"), str):
            thoughts.append(thought)
        elif isinstance(thought, list):
            thoughts += [str(one["text"]) for one in thought if isinstance(one, dict) and "text" in one]
    return "".join(texts), "".join(thoughts)


def _logprobs(given: JsonObject | None) -> tuple[JsonObject, ...]:
    """OpenAI's items with all their fields, of which some servers leave out the empty ones; those of its older
    completions, which are four lists, in the same form.
    """
    if not given:
        return ()
    if isinstance(items := given.get("content"), list):
        return tuple(_token(item) | {"top_logprobs": _tokens(item.get("top_logprobs"))} for item in _objects(items))
    tokens, numbers = given.get("tokens") or [], given.get("token_logprobs") or []
    others = given.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        {
            "token": token,
            "logprob": number,
            "bytes": None,
            "top_logprobs": [
                {"token": other, "logprob": likely, "bytes": None} for other, likely in (among or {}).items()
            ],
        }
        for token, number, among in zip(tokens, numbers, others, strict=False)
    )


def _tokens(others: Any) -> list[JsonObject]:
    return [_token(one) for one in _objects(others)]


def _token(item: JsonObject) -> JsonObject:
    token, raw = item.get("token"), item.get("bytes")
    known = {"token": token if isinstance(token, str) else "", "logprob": item.get("logprob")}
    return item | known | {"bytes": raw if isinstance(raw, list) else None}


def _objects(items: Any) -> list[JsonObject]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


# --- embeddings -------------------------------------------------------------------------------------------------------


class _Vector(Struct):
    embedding: tuple[float, ...] | str
    index: int | None = None


class _Embedded(Struct):
    data: list[_Vector] | None = None
    usage: Raw = ABSENT
    error: Any = None


_EMBEDDED: Final = msgspec.json.Decoder(_Embedded)


def parse_embedded(body: bytes) -> tuple[Vectors, Completion]:
    """The answer to texts that were to be embedded. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    answer = decode(body, _EMBEDDED)
    if answer.error or answer.data is None:
        raise UpstreamBroke(error_text(body))
    data = sorted(enumerate(answer.data), key=lambda one: one[0] if one[1].index is None else one[1].index)
    vectors = Vectors(tuple(_vector(one.embedding) for _, one in data))
    usage = _perhaps(answer.usage, _USAGE) or _Usage()
    return vectors, Completion("stop", _whole(usage.prompt_tokens), 0)


def _vector(embedding: tuple[float, ...] | str) -> tuple[float, ...]:
    """Numbers, or base64 of little-endian 32-bit floats, which some servers send whatever was asked."""
    if not isinstance(embedding, str):
        return embedding
    try:
        return struct.unpack(f"<{len(embedding) * 3 // 16}f", base64.b64decode(embedding, validate=True))
    except (binascii.Error, struct.error):
        raise UpstreamBroke("The upstream sent an embedding that is neither numbers nor base64.") from None


# --- prompts ----------------------------------------------------------------------------------------------------------


class _Rendered(Struct):
    prompt: str


class _Tokenized(Struct):
    tokens: list[Raw]


_RENDERED: Final = msgspec.json.Decoder(_Rendered)
_TOKENIZED: Final = msgspec.json.Decoder(_Tokenized)


def parse_prompt(body: bytes) -> str:
    """The prompt that llama-server makes of a chat. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    return decode(body, _RENDERED).prompt


def count_of(body: bytes) -> int:
    """How many tokens there are. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    return len(decode(body, _TOKENIZED).tokens)
