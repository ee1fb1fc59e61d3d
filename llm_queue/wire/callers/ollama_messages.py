"""From Ollama's messages to ours."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Final

from llm_queue.errors import BadRequest
from llm_queue.wire.base64_text import without_line_ends
from llm_queue.wire.callers import ollama_shapes as shapes
from llm_queue.wire.shapes import Message, ToolCall

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*")


def messages_of(turns: Iterable[shapes.Turn]) -> tuple[Message, ...]:
    """The conversation. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
    return tuple(
        Message(
            role=(turn.role or "").lower(),
            content=turn.content or "",
            images=images_of(turn.images or (), f"messages[{at}]."),
            thinking=turn.thinking or None,
            tool_calls=tuple(
                _call(call, f"messages[{at}].tool_calls[{number}].function")
                for number, call in enumerate(turn.tool_calls or ())
            ),
            tool_call_id=turn.tool_call_id or None,
            tool_name=turn.tool_name or None,
        )
        for at, turn in enumerate(turns)
    )


def images_of(images: Sequence[str], place: str) -> tuple[str, ...]:
    """Pictures in base64, checked. Raises :class:`~llm_queue.errors.BadRequest`; ``place`` is what holds the list."""
    return tuple(_image(image, f"{place}images[{number}]") for number, image in enumerate(images))


def _call(call: shapes.Call, place: str) -> ToolCall:
    """A call with its arguments as they came. As a text, which is OpenAI's way, they are refused as at Ollama."""
    arguments = bytes(call.function.arguments).strip()
    if arguments in (b"", b"null"):
        arguments = b"{}"
    if arguments[:1] != b"{":
        field = f"{place}.arguments"
        raise BadRequest(f"{field}: Expected an object (a string is OpenAI's way).", param=field)
    return ToolCall(call.function.name, arguments.decode(), call.id or None)


def _image(image: str, field: str) -> str:
    data = without_line_ends(image)  # Go leaves them out as well
    try:
        binascii.a2b_base64(data.encode(), strict_mode=True)
    except binascii.Error:
        match = _BASE64.match(data)
        at = len(match[0]) if match else 0
        message = f"illegal base64 data at input byte {at}"
        if data.startswith("data:"):
            message += ": send the base64 alone, without the data: URL around it"
        raise BadRequest(message, param=field) from None
    return data
