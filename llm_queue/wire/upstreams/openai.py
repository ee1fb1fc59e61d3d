"""OpenAI's dialect, spoken to an upstream: llama-server, LM Studio, vLLM, and all who have ``/v1/chat/completions``.

Answers come as server-sent events. An answer counts as whole once a finish reason was seen: an end of the stream
before it, or an error event within it, is a broken answer.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, JsonObject, Message, ToolCall

MAX_EVENT: Final = 8 * 2**20
"""Bytes that one event of an answer may have: as many as a line of Ollama's."""

T = TypeVar("T")

_LONGEST_ERROR: Final = 4000
_DONE: Final = b"[DONE]"
_RENAMED: Final = {"num_predict": "max_tokens"}
_IMAGE_TYPES: Final = {"/9j/": "jpeg", "UklGR": "webp", "iVBORw0": "png"}
_EFFORTS: Final[dict[bool | str, str]] = {False: "none", True: "medium", "max": "high"}


# --- requests ---------------------------------------------------------------------------------------------------------


def chat_body(request: ChatRequest) -> bytes:
    """A request for work, always streamed: only a stream stops at once when its connection closes."""
    options = {_RENAMED.get(name, name): value for name, value in request.options.items()}
    if options.get("max_tokens", 0) < 0:  # Ollama's way to say "no limit", which is the default here
        del options["max_tokens"]
    body: JsonObject = options | {
        "model": request.model,
        "messages": [_message(message, index) for index, message in enumerate(request.messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif request.format is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": request.format},
        }
    if request.tools:
        body["tools"] = request.tools
    if request.think is not None:
        body["reasoning_effort"] = _EFFORTS.get(request.think, request.think)
    if request.logprobs:
        body["logprobs"] = True
    if request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    return msgspec.json.encode(body)


def _message(message: Message, index: int) -> JsonObject:
    body: JsonObject = {"role": message.role, "content": message.content}
    if message.images:
        text = [{"type": "text", "text": message.content}] if message.content else []
        images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images]
        body["content"] = text + images
    if message.thinking is not None:
        body["reasoning_content"] = message.thinking
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": call.id or f"call_{index}_{place}",  # a field that must be there
                "type": "function",
                "function": {"name": call.name, "arguments": msgspec.json.encode(call.arguments).decode()},
            }
            for place, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_name is not None:
        body["name"] = message.tool_name
    return body


def _data_url(image: str) -> str:
    """Base64 tells by how it begins what it holds; the unknown is called a PNG, and the server looks itself."""
    kind = next((kind for beginning, kind in _IMAGE_TYPES.items() if image.startswith(beginning)), "png")
    return f"data:image/{kind};base64,{image}"


# --- answers ----------------------------------------------------------------------------------------------------------


class _Function(Struct):
    name: str | None = None
    arguments: str | JsonObject | None = None


class _CallPiece(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(Struct):
    content: str | None = None
    reasoning_content: str | None = None  # llama.cpp, DeepSeek, older vLLM
    reasoning: str | None = None  # vLLM, LM Studio, OpenRouter
    tool_calls: list[_CallPiece] | None = None


class _Logprobs(Struct):
    content: list[JsonObject] | None = None


class _Choice(Struct):
    delta: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_ARGUMENTS: Final = msgspec.json.Decoder(JsonObject)


class OpenAIStreamDecoder:
    """Reads the events of one answer, however the network cut them.

    Pieces of tool calls are joined and come whole, with the event that has the finish reason. What follows ``[DONE]``
    is ignored. After an error nothing more may be fed.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._event: list[bytes] = []
        self._event_size = 0
        self._calls: dict[int, _Pieces] = {}
        self._reason: str | None = None
        self._usage = _Usage()
        self._over = False

    @property
    def done(self) -> bool:
        """The upstream has said why the answer ended; only its counts may be missing."""
        return self._reason is not None

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces whose events end in ``data``; empty ones are left out.

        Raises :class:`~llm_queue.errors.UpstreamBroke` for an event that says so, is no part of an answer, or is longer
        than :data:`MAX_EVENT`.
        """
        deltas: list[Delta] = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            if self._over:
                break
            line = bytes(self._rest) + piece
            self._rest.clear()
            if (delta := self._read_line(line.removesuffix(b"\r"))) is not None:
                deltas.append(delta)
        if not self._over:
            self._rest += rest
            self._check_size(len(self._rest))
        return deltas

    def close(self) -> Completion:
        """The end of the answer, once the upstream sends no more. An event that was not terminated does not count.

        Raises :class:`~llm_queue.errors.UpstreamBroke` if no finish reason was seen.
        """
        if self._reason is None:
            raise UpstreamBroke("The upstream broke off its answer before the end. Its own log says why.")
        return Completion(self._reason, self._usage.prompt_tokens, self._usage.completion_tokens)

    def _read_line(self, line: bytes) -> Delta | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":  # others are comments, which begin with the colon, and what no chat needs
                self._check_size(len(value))
                self._event.append(value.removeprefix(b" "))
                self._event_size += len(value)
            return None
        event = b"\n".join(self._event)
        self._event.clear()
        self._event_size = 0
        if event.strip() == _DONE:
            self._over = True
            return None
        return self._read_event(event) if event.strip() else None

    def _read_event(self, event: bytes) -> Delta | None:
        chunk = _decode(event, _CHUNK)
        if chunk.error is not None:
            raise UpstreamBroke(error_text(event))
        self._usage = chunk.usage or self._usage
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        said = choice.delta or _Said()
        for piece in said.tool_calls or ():
            # Without an index each piece is a call of its own: that is how servers that do not cut calls send them.
            at = len(self._calls) if piece.index is None else piece.index
            self._calls.setdefault(at, _Pieces()).add(piece)
        calls: tuple[ToolCall, ...] = ()
        if choice.finish_reason is not None and self._reason is None:
            calls = tuple(pieces.call() for _, pieces in sorted(self._calls.items()))
            # That it stopped for a tool is OpenAI's reading of "stop"; each dialect has its own.
            self._reason = "stop" if calls and choice.finish_reason == "tool_calls" else choice.finish_reason
        delta = Delta(
            content=said.content or "",
            thinking=said.reasoning_content or said.reasoning or "",
            tool_calls=calls,
            logprobs=tuple((choice.logprobs and choice.logprobs.content) or ()),
        )
        return None if delta == Delta() else delta

    def _check_size(self, more: int) -> None:
        if self._event_size + more > MAX_EVENT:
            raise UpstreamBroke(f"The upstream sent an event of more than {MAX_EVENT} bytes.")


class _Pieces:
    """One tool call on its way."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments = ""
        self.ready: JsonObject | None = None

    def add(self, piece: _CallPiece) -> None:
        function = piece.function or _Function()
        self.id = self.id or piece.id or None
        self.name += function.name or ""
        if isinstance(function.arguments, str):
            self.arguments += function.arguments
        elif function.arguments is not None:  # an object, as some servers of Ollama's kind have it
            self.ready = function.arguments

    def call(self) -> ToolCall:
        if self.ready is not None:
            return ToolCall(self.name, self.ready, self.id)
        text = self.arguments.strip()
        return ToolCall(self.name, _decode(text.encode(), _ARGUMENTS) if text else {}, self.id)


# --- models and errors ------------------------------------------------------------------------------------------------


class Listed(Struct, frozen=True):
    """One line of ``/v1/models``. ``created`` is in Unix seconds, 0 where the server does not say."""

    id: str
    created: int = 0


class _Models(Struct):
    data: list[Listed] | None = None


_MODELS: Final = msgspec.json.Decoder(_Models)


def parse_models(body: bytes) -> tuple[Listed, ...]:
    """All models that are there. Raises :class:`~llm_queue.errors.UpstreamBroke`."""
    return tuple(_decode(body, _MODELS).data or ())


class _Detail(Struct):
    message: str


class _Wrapped(Struct):
    """The ways to say what is wrong: OpenAI's and LM Studio's, FastAPI's, older vLLM's."""

    error: str | _Detail | None = None
    detail: str | None = None
    message: str | None = None


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


def error_text(body: bytes) -> str:
    """What an error says to a human; all of it where it has no shape that is known."""
    text = body.decode(errors="replace").strip()
    try:
        wrapped = _WRAPPED.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text[:_LONGEST_ERROR]
    said = wrapped.error.message if isinstance(wrapped.error, _Detail) else wrapped.error
    return (said or wrapped.detail or wrapped.message or text)[:_LONGEST_ERROR]


def _decode(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: not UTF-8
        # Not what it says: that may be somebody's text, and errors are logged.
        raise UpstreamBroke("The upstream sent something that is not an answer in OpenAI's dialect.") from None
