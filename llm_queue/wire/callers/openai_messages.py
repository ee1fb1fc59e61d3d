"""From OpenAI's messages to ours.

Text stays as it is. Where OpenAI has parts, Ollama has one text and a list of images: the texts of one message are
joined with a newline, as vLLM and llama-server do, and the images keep their order among themselves. A text file is a
text like any other, under its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.base64_text import checked_image, decoded
from llm_queue.wire.callers import openai_shapes as shapes
from llm_queue.wire.callers.openai_tools import arguments_of
from llm_queue.wire.shapes import Message, ToolCall

PART_SEPARATOR: Final = "\n"

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")

_DATA_URL: Final = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp))?;base64,", re.IGNORECASE)
_TEXT_URL: Final = re.compile(r"data:text/[\w.+-]+(?:;[\w-]+=[^;,]*)*;base64,", re.IGNORECASE)
_TEXT: Final = msgspec.json.Decoder(str)


def messages_of(turns: Iterable[shapes.Turn], max_depth: int) -> tuple[Message, ...]:
    """The conversation. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
    messages: list[Message] = []
    called: dict[str, str] = {}  # tool-call id to the name of the function, for results that do not repeat it
    functions: dict[str, str] = {}  # name of a function to the id of its last call, for results that have no id
    for index, turn in enumerate(turns):
        place = f"messages[{index}]"
        match turn.role.lower():
            case "assistant":
                message = _assistant(turn, index, max_depth)
                called.update((call.id, call.name) for call in message.tool_calls if call.id)
                functions.update((call.name, call.id) for call in message.tool_calls if call.id)
            case "tool":
                name = turn.name or called.get(turn.tool_call_id or "")
                message = Message("tool", *_required(turn, place), tool_call_id=turn.tool_call_id, tool_name=name)
            case "function":
                call_id = functions.get(turn.name or "")
                message = Message("tool", *_required(turn, place), tool_call_id=call_id, tool_name=turn.name)
            case "user":
                message = Message("user", *_required(turn, place))
            case "system" | "developer":
                message = Message("system", *_required(turn, place))
            case _:
                field = f"{place}.role"
                raise BadRequest(f"{field}: unknown; it is one of {', '.join(ROLES)}.", param=field)
        messages.append(message)
    return tuple(messages)


def _assistant(turn: shapes.Turn, index: int, max_depth: int) -> Message:
    place = f"messages[{index}]"
    thinking = turn.reasoning if turn.reasoning is not None else turn.reasoning_content
    calls = tuple(_call(call, f"{place}.tool_calls[{at}]", max_depth) for at, call in enumerate(turn.tool_calls or ()))
    if not calls and turn.function_call is not None:
        # The older function calling has no ids; a result finds its call by the name of the function.
        arguments = _arguments(turn.function_call, f"{place}.function_call.arguments", max_depth)
        calls = (ToolCall(turn.function_call.name, arguments, f"call_{index}"),)
    images: tuple[str, ...] = ()
    if turn.content is not None:
        text, images = _content(turn.content, place)
    elif turn.refusal is not None:
        text = turn.refusal
    elif calls or thinking is not None:
        text = ""
    else:
        field = f"{place}.content"
        raise BadRequest(f"{field}: this field is required where there are no tool_calls.", param=field)
    return Message("assistant", text, images, thinking=thinking, tool_calls=calls)


def _call(call: shapes.Call, place: str, max_depth: int) -> ToolCall:
    if call.function is not None:
        arguments = _arguments(call.function, f"{place}.function.arguments", max_depth)
        return ToolCall(call.function.name, arguments, call.id)
    if call.custom is not None:
        return ToolCall(call.custom.name, arguments_of(call.custom.input), call.id)
    raise BadRequest(f"{place}.function: this field is required.", param=f"{place}.function")


def _arguments(function: shapes.Function, field: str, max_depth: int) -> str:
    """The JSON text of the arguments, verbatim. Whether it is whole is for an upstream to say that must read it."""
    raw = bytes(function.arguments)
    if raw[:1] == b'"':
        text = strict_json.decode(raw, _TEXT, max_depth, within=field)
        strict_json.check_bounds(text.encode(), max_depth, within=field)
    elif raw[:1] in (b"{", b"n", b""):
        text = raw.decode()
    else:
        raise BadRequest(f"{field}: Expected a string with a JSON object in it.", param=field)
    return text if text.strip() not in ("", "null") else "{}"


def _required(turn: shapes.Turn, place: str) -> tuple[str, tuple[str, ...]]:
    if turn.content is None:
        field = f"{place}.content"
        raise BadRequest(f"{field}: this field is required.", param=field)
    return _content(turn.content, place)


def _content(content: str | Iterable[shapes.Part], place: str) -> tuple[str, tuple[str, ...]]:
    if isinstance(content, str):
        return content, ()
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(content):
        field = f"{place}.content[{index}]"
        match part:
            case shapes.TextPart():
                texts.append(part.text)
            case shapes.RefusalPart():
                texts.append(part.refusal)
            case shapes.ImagePart():
                images.append(_image(part.image_url, f"{field}.image_url"))
            case shapes.FilePart():
                texts.append(_file(part.file, f"{field}.file"))
            case _:
                raise BadRequest(f"{field}: audio is not supported; send text or images.", param=field)
    return PART_SEPARATOR.join(texts), tuple(images)


def _image(given: str | shapes.ImageUrl, field: str) -> str:
    """The base64 of an image. Nothing is ever fetched: a server that follows its clients' URLs is their proxy."""
    if isinstance(given, shapes.ImageUrl):
        given, field = given.url, f"{field}.url"
    prefix = _DATA_URL.match(given)
    if prefix is None:
        raise BadRequest(
            f"{field}: image URLs are not fetched; send it as base64 data: URL, "
            "data:image/png;base64,… (jpeg, png or webp).",
            param=field,
        )
    return checked_image(given[prefix.end() :], field)


def _file(file: shapes.File, field: str) -> str:
    """A text file as a part of the text, under its name."""
    if file.file_data is None:
        raise BadRequest(f"{field}: no files are kept here; send the text itself in file_data.", param=field)
    field += ".file_data"
    prefix = _TEXT_URL.match(file.file_data)
    if prefix is None:
        raise BadRequest(
            f"{field}: only text files are read, as base64 data: URL, data:text/plain;base64,… ; "
            "send the text of any other file, or its pages as images.",
            param=field,
        )
    try:
        text = decoded(file.file_data[prefix.end() :], field, "file").decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{field}: the file is not UTF-8.", param=field) from None
    return f"{file.filename}:\n{text}" if file.filename else text
