"""From our requests to those of Ollama's native API.

The native API, not its OpenAI one, because only there a context size can be set, a load be seen, and a broken answer be
told from a whole one.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.shapes import (
    ChatRequest,
    EmbedRequest,
    JsonObject,
    LoadRequest,
    Message,
    Request,
    TextRequest,
    ToolCall,
    must_call,
)
from llm_queue.wire.upstreams import ollama_forced as forced

UNKNOWN: Final = ("typical_p",)
"""Fields of :class:`~llm_queue.wire.shapes.Sampling` that Ollama has no more: since 0.34 it answers 400 to them."""


def check(request: Request) -> tuple[str, ...]:
    """The names of what the caller asked for, and Ollama answers without.

    Raises :class:`~llm_queue.errors.BadRequest` for what Ollama cannot be told.
    """
    if isinstance(request, EmbedRequest | LoadRequest):
        return ()
    dropped = [name for name in UNKNOWN if getattr(request.sampling, name) is not None]
    if isinstance(request, ChatRequest):
        for at, message in enumerate(request.messages):
            for number, call in enumerate(message.tool_calls):
                _arguments(call, f"messages[{at}].tool_calls[{number}].function.arguments")
        dropped += forced.check(request)
        if request.parallel_tool_calls is False and request.tools and not must_call(request):
            dropped.append("parallel_tool_calls")
        if request.grammar is not None:
            dropped.append("grammar")
    return tuple(dropped)


def chat_body(request: ChatRequest, num_ctx: int, keep_alive: float | None = None) -> bytes:
    """A chat, always streamed.

    The model stays for ``keep_alive`` seconds after it (infinity: for ever; 0: it goes right after the answer); None
    leaves that as it is. A ``num_ctx`` of 0 is not sent. What asks for a call that must be made is answered in another
    form, see :mod:`~llm_queue.wire.upstreams.ollama_forced`.
    """
    request = forced.without_tools(request)
    body: JsonObject = {
        "model": request.model,
        "messages": [_message(message, f"messages[{at}]") for at, message in enumerate(request.messages)],
        "stream": True,
    }
    if request.tools and not (request.tool_choice and request.tool_choice.mode == "none"):
        body["tools"] = request.tools
    return msgspec.json.encode(body | _common(request, num_ctx) | _lifetime(keep_alive))


def generate_body(request: TextRequest, num_ctx: int, keep_alive: float | None = None) -> bytes:
    """A text to go on with, always streamed; ``keep_alive`` as in :func:`chat_body`."""
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
    return msgspec.json.encode(body | _common(request, num_ctx) | _lifetime(keep_alive))


def embed_body(request: EmbedRequest, num_ctx: int, keep_alive: float | None = None) -> bytes:
    """Texts to embed, answered as a whole; ``keep_alive`` and ``num_ctx`` as in :func:`chat_body`."""
    body: JsonObject = {"model": request.model, "input": request.inputs}
    if num_ctx:
        body["options"] = {"num_ctx": num_ctx}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.truncate is not None:
        body["truncate"] = request.truncate
    return msgspec.json.encode(body | _lifetime(keep_alive))


def plain_embed_body(model: str, text: str, num_ctx: int, keep_alive: float | None = None) -> bytes:
    """One text for the older ``/api/embeddings``, whose vectors are not normalized; ``keep_alive`` as above."""
    body: JsonObject = {"model": model, "prompt": text}
    if num_ctx:
        body["options"] = {"num_ctx": num_ctx}
    return msgspec.json.encode(body | _lifetime(keep_alive))


def load_body(model: str, num_ctx: int, keep_alive: float) -> bytes:
    """A request that only makes the model resident, for ``keep_alive`` seconds as in :func:`chat_body`."""
    body: JsonObject = {"model": model, "messages": [], "stream": False, "options": {"num_ctx": num_ctx}}
    return msgspec.json.encode(body | _lifetime(keep_alive))


def unload_body(model: str) -> bytes:
    """A request that lets the model go as soon as nobody uses it."""
    return msgspec.json.encode({"model": model, "messages": [], "stream": False, "keep_alive": 0})


def _lifetime(seconds: float | None) -> JsonObject:
    """Ollama takes a number of seconds; a negative one is for ever."""
    if seconds is None:
        return {}
    return {"keep_alive": -1 if math.isinf(seconds) else int(seconds) if seconds == int(seconds) else seconds}


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
    if strict_json.object_in(text) is None:
        raise BadRequest(
            f"{place}: the arguments of the call of {call.name!r} are no JSON object, which Ollama needs.", param=place
        )
    return msgspec.Raw(text)
