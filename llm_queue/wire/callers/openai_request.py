"""From OpenAI's chat completion request to ours.

Text stays as it is. Where OpenAI has parts, Ollama has one text and a list of images: the texts of one message are
joined with a newline, as vLLM and llama-server do, and the images keep their order among themselves.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.callers import openai_shapes as shapes
from llm_queue.wire.priority import Scalar
from llm_queue.wire.shapes import ChatRequest, JsonObject, Message, ToolCall

PART_SEPARATOR: Final = "\n"

_DATA_URL: Final = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp))?;base64,", re.IGNORECASE)
_EFFORTS: Final[dict[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
_ARGUMENTS: Final = msgspec.json.Decoder(dict[str, Any])
_SCALAR: Final[msgspec.json.Decoder[Scalar]] = msgspec.json.Decoder(Scalar)


class RequestLimits(msgspec.Struct, frozen=True):
    """How much a request may ask for: levels of nesting, messages, and tokens of context."""

    max_depth: int
    max_messages: int
    num_ctx_ceiling: int


class ParsedChat(msgspec.Struct, frozen=True):
    """A checked request, and what else its caller said to the line.

    ``request.model`` is empty where the caller named none. ``priority`` and ``service_tier`` are as they came (what is
    no scalar, as its JSON text), for :func:`~llm_queue.wire.priority.lane_name`. ``dropped`` names options that were
    given but are not passed on, because they would reload the model.
    """

    request: ChatRequest
    stream: bool = False
    include_usage: bool = False
    num_ctx: int | None = None
    priority: Scalar = None
    service_tier: str | None = None
    requested_model: str | None = None
    dropped: tuple[str, ...] = ()


def parse_chat(body: bytes, limits: RequestLimits) -> ParsedChat:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    try:
        chat = strict_json.decode(body, shapes.CHAT, limits.max_depth)
    except BadRequest as error:
        if error.param and error.param.endswith(("numCtx", "num_ctx")):
            raise _bad_context(error.param, limits) from None
        raise
    if len(chat.messages) > limits.max_messages:
        raise BadRequest(f"messages: {len(chat.messages)} of them; at most {limits.max_messages}.", param="messages")
    options = chat.options or shapes.Options()
    request = ChatRequest(
        model=chat.model or "",
        messages=_messages(chat.messages, limits.max_depth),
        options=_sampling(chat, options),
        format=_format(chat.response_format),
        tools=_tools(chat),
        think=_think(chat),
        logprobs=bool(chat.logprobs),
        top_logprobs=chat.top_logprobs,
    )
    tier = _scalar(chat.service_tier)
    return ParsedChat(
        request=request,
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        num_ctx=_num_ctx(chat, options, limits),
        priority=_scalar(chat.priority),
        service_tier=None if tier is None else str(tier),
        requested_model=chat.model or None,
        dropped=tuple(
            name for name in shapes.RELOADING if getattr(chat, name) is not None or getattr(options, name) is not None
        ),
    )


# --- messages ---------------------------------------------------------------------------------------------------------


def _messages(turns: Iterable[shapes.AnyTurn], max_depth: int) -> tuple[Message, ...]:
    messages: list[Message] = []
    called: dict[str, str] = {}  # tool-call id to the name of the function, for results that do not repeat it
    for index, turn in enumerate(turns):
        place = f"messages[{index}]"
        match turn:
            case shapes.AssistantTurn():
                message = _assistant(turn, place, max_depth)
                called.update((call.id, call.name) for call in message.tool_calls if call.id)
            case shapes.ToolTurn():
                text, images = _content(turn.content, place)
                name = turn.name or called.get(turn.tool_call_id or "")
                message = Message("tool", text, images, tool_call_id=turn.tool_call_id, tool_name=name)
            case shapes.UserTurn():
                message = Message("user", *_content(turn.content, place))
            case shapes.SystemTurn():  # developer too
                message = Message("system", *_content(turn.content, place))
        messages.append(message)
    return tuple(messages)


def _assistant(turn: shapes.AssistantTurn, place: str, max_depth: int) -> Message:
    thinking = turn.reasoning if turn.reasoning is not None else turn.reasoning_content
    if turn.content is not None:
        text, _ = _content(turn.content, place)
    elif turn.refusal is not None:
        text = turn.refusal
    elif turn.tool_calls or thinking is not None:
        text = ""
    else:
        field = f"{place}.content"
        raise BadRequest(f"{field}: this field is required where there are no tool_calls.", param=field)
    calls = tuple(
        ToolCall(call.function.name, _arguments(call, f"{place}.tool_calls[{index}]", max_depth), call.id)
        for index, call in enumerate(turn.tool_calls or ())
    )
    return Message("assistant", text, thinking=thinking, tool_calls=calls)


def _arguments(call: shapes.Call, place: str, max_depth: int) -> JsonObject:
    match call.function.arguments:
        case None | "":
            return {}
        case str() as text:
            return strict_json.decode(text.encode(), _ARGUMENTS, max_depth, within=f"{place}.function.arguments")
        case already:
            return already


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
    data = given[prefix.end() :]
    try:
        decoded = binascii.a2b_base64(data.encode(), strict_mode=True)
    except binascii.Error as error:
        raise BadRequest(f"{field}: the image is not valid base64: {error}.", param=field) from None
    if not decoded:
        raise BadRequest(f"{field}: the image is empty.", param=field)
    return data


# --- parameters -------------------------------------------------------------------------------------------------------


def _sampling(chat: shapes.ChatBody, options: shapes.Options) -> JsonObject:
    """What the caller gave, its own fields before those in ``options``; nothing else, so the model's defaults stand."""
    given: JsonObject = {}
    for name in shapes.SAMPLING:
        value = getattr(chat, name)
        if value is None:
            value = getattr(options, name)
        if value is not None:
            given[name] = value
    stop = given.pop("stop", None)
    if stop:  # an empty list means "none of my own" and must not take the model's away
        given["stop"] = [stop] if isinstance(stop, str) else stop
    for limit in (chat.max_completion_tokens, chat.max_tokens, options.num_predict):
        if limit is not None:
            given["num_predict"] = limit
            break
    return given


def _format(
    wanted: shapes.TextFormat | shapes.JsonFormat | shapes.SchemaFormat | None,
) -> Literal["json"] | JsonObject | None:
    match wanted:
        case shapes.JsonFormat():
            return "json"
        case shapes.SchemaFormat():
            return wanted.json_schema.schema
        case _:
            return None


def _tools(chat: shapes.ChatBody) -> tuple[JsonObject, ...]:
    """The tools as they came. Ollama cannot force a choice, but it can be left without one."""
    for index, tool in enumerate(chat.tools or ()):
        try:
            msgspec.convert(tool, shapes.Tool)
        except msgspec.ValidationError as error:
            raise strict_json.blame(error, f"tools[{index}]") from None
    return () if chat.tool_choice == "none" else tuple(chat.tools or ())


def _think(chat: shapes.ChatBody) -> bool | str | None:
    if chat.reasoning is not None and chat.reasoning.effort is not None:
        field, effort = "reasoning.effort", chat.reasoning.effort
    elif chat.reasoning_effort is not None:
        field, effort = "reasoning_effort", chat.reasoning_effort
    elif isinstance(chat.think, str):
        field, effort = "think", chat.think
    else:
        return chat.think
    if effort == "":
        return None
    if effort not in _EFFORTS:
        raise BadRequest(f"{field}: unknown; it is one of {', '.join(_EFFORTS)}.", param=field)
    return _EFFORTS[effort]


def _num_ctx(chat: shapes.ChatBody, options: shapes.Options, limits: RequestLimits) -> int | None:
    asked = {"numCtx": chat.num_ctx_camel, "num_ctx": chat.num_ctx, "options.num_ctx": options.num_ctx}
    given = {field: size for field, size in asked.items() if size is not None}
    for field, size in given.items():
        if size > limits.num_ctx_ceiling:
            raise _bad_context(field, limits)
    if len(set(given.values())) > 1:
        raise BadRequest(f"{' and '.join(given)} differ; send one of them.", param=next(iter(given)))
    return next(iter(given.values()), None)


def _bad_context(field: str, limits: RequestLimits) -> BadRequest:
    return BadRequest(f"{field} takes a whole number of tokens from 1 to {limits.num_ctx_ceiling}.", param=field)


def _scalar(raw: msgspec.Raw) -> Scalar:
    text = bytes(raw)
    if not text:
        return None
    try:
        return _SCALAR.decode(text)
    except msgspec.DecodeError:  # an array, an object, or a number that no machine holds
        return text.decode()
