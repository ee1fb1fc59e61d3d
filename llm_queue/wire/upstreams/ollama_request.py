"""From our requests to those of Ollama's native API.

The native API, not its OpenAI one, because only there a context size can be set, a load be seen, and a broken answer be
told from a whole one.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llm_queue.wire.shapes import ChatRequest, JsonObject, Message, ToolCall

_WHOLE: Final = re.compile(r"[+-]?\d{1,18}")


def chat_body(request: ChatRequest, num_ctx: int) -> bytes:
    """A request for work, always streamed. It has no ``keep_alive``: each one would set it anew for everybody."""
    body: JsonObject = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "options": request.options | {"num_ctx": num_ctx},
    }
    if request.format is not None:
        body["format"] = request.format
    if request.tools:
        body["tools"] = request.tools
    if request.think is not None:
        body["think"] = request.think
    if request.logprobs:
        body["logprobs"] = True
    if request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    return msgspec.json.encode(body)


def load_body(model: str, num_ctx: int, keep_alive: str) -> bytes:
    """A request that only makes the model resident. ``keep_alive`` is a duration ("1h") or seconds (-1: ever)."""
    # Ollama refuses a bare number in a string.
    lifetime = int(keep_alive) if _WHOLE.fullmatch(keep_alive) else keep_alive
    return msgspec.json.encode(
        {"model": model, "messages": [], "stream": False, "keep_alive": lifetime, "options": {"num_ctx": num_ctx}}
    )


def _message(message: Message) -> JsonObject:
    body: JsonObject = {"role": message.role, "content": message.content}
    if message.thinking is not None:
        body["thinking"] = message.thinking
    if message.images:
        body["images"] = message.images
    if message.tool_calls:
        body["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    if message.tool_name is not None:
        body["tool_name"] = message.tool_name
    return body


def _call(call: ToolCall) -> JsonObject:
    body: JsonObject = {"function": {"name": call.name, "arguments": call.arguments}}
    return body if call.id is None else {"id": call.id} | body
