"""From our requests to those of Ollama's native API.

The native API, not its OpenAI one, because only there a context size can be set, a load be seen, and a broken answer be
told from a whole one.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.shapes import (
    ChatRequest,
    EmbedRequest,
    JsonObject,
    Message,
    Request,
    TextRequest,
    ToolCall,
    must_call,
)
from llm_queue.wire.upstreams import ollama_forced as forced

UNKNOWN: Final = ("typical_p",)
"""Fields of :class:`~llm_queue.wire.shapes.Sampling` that Ollama has no more: since 0.34 it answers 400 to them."""

_WHOLE: Final = re.compile(r"[+-]?\d{1,18}")
_OBJECT: Final = msgspec.json.Decoder(JsonObject)


def check(request: Request) -> tuple[str, ...]:
    """The names of what the caller asked for, and Ollama answers without.

    Raises :class:`~llm_queue.errors.BadRequest` for what Ollama cannot be told.
    """
    if isinstance(request, EmbedRequest):
        return ()
    dropped = [name for name in UNKNOWN if getattr(request.sampling, name) is not None]
    if isinstance(request, ChatRequest):
        for at, message in enumerate(request.messages):
            for number, call in enumerate(message.tool_calls):
                _arguments(call, f"messages[{at}].tool_calls[{number}].function.arguments")
        dropped += forced.check(request)
        if request.parallel_tool_calls is False and request.tools and not must_call(request):
            dropped.append("parallel_tool_calls")
    return tuple(dropped)


def chat_body(request: ChatRequest, num_ctx: int, *, unload: bool = False) -> bytes:
    """A chat, always streamed. It has no ``keep_alive``, which would set it anew for everybody.

    With ``unload`` it has one of zero: the model goes right after the answer. A ``num_ctx`` of 0 is not sent. What asks
    for a call that must be made is answered in another form, see :mod:`~llm_queue.wire.upstreams.ollama_forced`.
    """
    request = forced.without_tools(request)
    body: JsonObject = {
        "model": request.model,
        "messages": [_message(message, f"messages[{at}]") for at, message in enumerate(request.messages)],
        "stream": True,
    }
    if request.tools and not (request.tool_choice and request.tool_choice.mode == "none"):
        body["tools"] = request.tools
    if unload:
        body["keep_alive"] = 0
    return msgspec.json.encode(body | _common(request, num_ctx))


def generate_body(request: TextRequest, num_ctx: int, *, unload: bool = False) -> bytes:
    """A text to go on with, always streamed; ``unload`` as in :func:`chat_body`."""
    body: JsonObject = {"model": request.model, "prompt": request.prompt, "stream": True}
    for name in ("suffix", "system", "template"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.raw:
        body["raw"] = True
    if request.images:
        body["images"] = request.images
    if request.context:
        body["context"] = request.context
    if unload:
        body["keep_alive"] = 0
    return msgspec.json.encode(body | _common(request, num_ctx))


def embed_body(request: EmbedRequest, num_ctx: int, *, unload: bool = False) -> bytes:
    """Texts to embed, answered as a whole; ``unload`` as in :func:`chat_body`."""
    body: JsonObject = {"model": request.model, "input": request.inputs}
    if num_ctx:
        body["options"] = {"num_ctx": num_ctx}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.truncate is not None:
        body["truncate"] = request.truncate
    if unload:
        body["keep_alive"] = 0
    return msgspec.json.encode(body)


def load_body(model: str, num_ctx: int, keep_alive: str) -> bytes:
    """A request that only makes the model resident. ``keep_alive`` is a duration ("1h") or seconds (-1: ever)."""
    # Ollama refuses a bare number in a string.
    lifetime = int(keep_alive) if _WHOLE.fullmatch(keep_alive) else keep_alive
    return msgspec.json.encode(
        {"model": model, "messages": [], "stream": False, "keep_alive": lifetime, "options": {"num_ctx": num_ctx}}
    )


def _common(request: ChatRequest | TextRequest, num_ctx: int) -> JsonObject:
    options = {name: value for name, value in request.sampling.given().items() if name not in UNKNOWN}
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if num_ctx:
        options["num_ctx"] = num_ctx
    body: JsonObject = {"options": options}
    if request.truncate is not None:
        body["truncate"] = request.truncate
    if request.format is not None:
        body["format"] = request.format
    if request.think is not None:
        body["think"] = request.think
    if request.logprobs:
        body["logprobs"] = True
    if request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    return body


def _message(message: Message, place: str) -> JsonObject:
    body: JsonObject = {"role": message.role, "content": message.content}
    if message.thinking is not None:
        body["thinking"] = message.thinking
    if message.images:
        body["images"] = message.images
    if message.tool_calls:
        body["tool_calls"] = [
            _call(call, f"{place}.tool_calls[{number}].function.arguments")
            for number, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_name is not None:
        body["tool_name"] = message.tool_name
    return body


def _call(call: ToolCall, place: str) -> JsonObject:
    body: JsonObject = {"function": {"name": call.name, "arguments": _arguments(call, place)}}
    return body if call.id is None else {"id": call.id} | body


def _arguments(call: ToolCall, place: str) -> msgspec.Raw:
    """The arguments as an object, character by character as they came."""
    text = call.arguments.encode()
    if text.strip() in (b"", b"null"):
        return msgspec.Raw(b"{}")
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadRequest(
            f"{place}: the arguments of the call of {call.name!r} are no JSON object, which Ollama needs.", param=place
        ) from None
    return msgspec.Raw(text)
