"""How large a prompt is, before anybody has counted its tokens."""

from __future__ import annotations

from typing import Any, NamedTuple, assert_never

import msgspec

from llm_queue.wire.shapes import ChatRequest, EmbedRequest, LoadRequest, Request, TextRequest


class PromptSize(NamedTuple):
    """What there is of a prompt: UTF-8 ``bytes`` of text, ``messages`` around it, ``images``, and what came as
    ``tokens``.
    """

    bytes: int
    messages: int = 0
    images: int = 0
    tokens: int = 0


def prompt_size(request: Request) -> PromptSize:
    """All that a model reads of a request: texts, thoughts, tools and their calls. Of inputs to embed, the largest."""
    match request:
        case ChatRequest():
            texts = [text for message in request.messages for text in (message.content, message.thinking or "")]
            calls = [call for message in request.messages for call in message.tool_calls]
            size = sum(map(_bytes, texts)) + sum(_bytes(call.name) + _bytes(call.arguments) for call in calls)
            size += sum(map(_json_bytes, request.tools))
            return PromptSize(size, len(request.messages), sum(len(message.images) for message in request.messages))
        case TextRequest():
            around = (request.prompt, request.suffix, request.system, request.template)
            text_bytes = sum(_bytes(text) for text in around if text)
            return PromptSize(text_bytes, 1, len(request.images), len(request.context))
        case EmbedRequest():
            return PromptSize(max(map(_bytes, request.inputs), default=0))
        case LoadRequest():
            return PromptSize(0)
        case _:
            assert_never(request)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json_bytes(tool: dict[str, Any]) -> int:
    return len(msgspec.json.encode(tool))
