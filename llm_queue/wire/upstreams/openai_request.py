"""From our requests to those of an upstream that speaks OpenAI's dialect: llama-server, LM Studio, vLLM, LocalAI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.shapes import ChatRequest, EmbedRequest, JsonObject, LoadRequest, Message, Request, TextRequest

COMMON: Final = frozenset(
    {
        *("temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty"),
        *("top_k", "min_p", "repeat_penalty"),  # not OpenAI's own, but llama.cpp's, LM Studio's and LocalAI's
    }
)
"""Fields of :class:`~llm_queue.wire.shapes.Sampling` that servers have under these names."""

LLAMA_CPP: Final = COMMON | {"typical_p", "repeat_last_n"}
"""The same for llama.cpp's own server."""

_IMAGE_TYPES: Final = {"/9j/": "jpeg", "UklGR": "webp", "iVBORw0": "png"}
_EFFORTS: Final[dict[bool | str, str]] = {False: "none", True: "medium", "max": "high"}
_NOT_IN_TEXT: Final = ("system", "template", "images", "context", "format")


def check(request: Request, known: frozenset[str]) -> tuple[str, ...]:
    """The names of what the caller asked for, and such a server answers without; ``known`` are its sampling fields.

    Raises :class:`~llm_queue.errors.BadRequest` for what it cannot be told.
    """
    if isinstance(request, TextRequest) and request.templated:
        _refuse(request, ("template", "context"))
        request = as_chat(request)
    dropped = [name for name in ("truncate", "keep_alive") if getattr(request, name, None) is not None]
    if isinstance(request, EmbedRequest | LoadRequest):
        return tuple(dropped)
    dropped = [name for name in request.sampling.given() if name not in known] + dropped
    if isinstance(request, TextRequest):
        _refuse(request, _NOT_IN_TEXT)
        if request.suffix is not None and known >= LLAMA_CPP:
            raise BadRequest("suffix: llama.cpp would go on without a look at it; leave it out.", param="suffix")
        if request.think is not None:
            dropped.append("think")
    return tuple(dropped)


def as_chat(request: TextRequest) -> ChatRequest:
    """The chat that a text with a template around it is: a message of the user, and one of the system before it."""
    system = (Message("system", request.system),) if request.system else ()
    return ChatRequest(
        request.model,
        (*system, Message("user", request.prompt, request.images)),
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        format=request.format,
        think=request.think,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        truncate=request.truncate,
        keep_alive=request.keep_alive,
    )


def _refuse(request: TextRequest, fields: Iterable[str]) -> None:
    for name in fields:
        if getattr(request, name):
            raise BadRequest(f"{name}: the upstream's completions have no such thing; send a chat.", param=name)


def chat_body(request: ChatRequest, known: frozenset[str] = COMMON, *, counts: bool = True) -> bytes:
    """A chat, always streamed: only a stream stops at once when its connection closes.

    ``counts`` asks for the tokens that were used, in a field that not every server takes.
    """
    body = _common(request, known, counts=counts)
    body["messages"] = [_message(message, index) for index, message in enumerate(request.messages)]
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif request.format is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": request.format},
        }
    if request.tools:
        body["tools"] = request.tools
        if request.tool_choice is not None:
            named = {"type": "function", "function": {"name": request.tool_choice.name}}
            body["tool_choice"] = named if request.tool_choice.mode == "function" else request.tool_choice.mode
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.think is not None:
        body["reasoning_effort"] = _EFFORTS.get(request.think, request.think)
    if request.logprobs:
        body["logprobs"] = True
    if request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    if request.grammar is not None:
        body["grammar"] = request.grammar
    return msgspec.json.encode(body)


def text_body(request: TextRequest, known: frozenset[str] = COMMON, *, counts: bool = True) -> bytes:
    """A text to go on with, always streamed."""
    body = _common(request, known, counts=counts)
    body["prompt"] = request.prompt
    if request.suffix is not None:
        body["suffix"] = request.suffix
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.logprobs:
        body["logprobs"] = request.top_logprobs or 0
    return msgspec.json.encode(body)


def tokenize_body(model: str, prompt: str) -> bytes:
    """A whole prompt, to be cut into tokens by llama-server as it would be for an answer."""
    return msgspec.json.encode({"model": model, "content": prompt, "add_special": True, "parse_special": True})


def embed_body(request: EmbedRequest) -> bytes:
    """Texts to embed, answered as a whole."""
    body: JsonObject = {"model": request.model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return msgspec.json.encode(body)


def _common(request: ChatRequest | TextRequest, known: frozenset[str], *, counts: bool) -> JsonObject:
    body = {name: value for name, value in request.sampling.given().items() if name in known}
    body |= {"model": request.model, "stream": True}
    if counts:
        body["stream_options"] = {"include_usage": True}
    return body


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
                "function": {"name": call.name, "arguments": call.arguments},
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
