"""From OpenAI's chat completion request to ours: its parameters. Its messages have a file of their own."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.callers import openai_shapes as shapes
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.openai_messages import messages_of
from llm_queue.wire.shapes import ChatRequest, JsonObject, Sampling, ToolChoice
from llm_queue.wire.wishes import Scalar, Wishes, bad_num_ctx, from_body, session_name

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
_SCHEMA_PARTS: Final = ("type", "properties", "$ref", "$defs", "anyOf", "oneOf", "allOf", "enum", "items")
_SCALAR: Final[msgspec.json.Decoder[Scalar]] = msgspec.json.Decoder(Scalar)

Tools = tuple[JsonObject, ...]


class ChatReply(msgspec.Struct, frozen=True):
    """The form of the answer: with a last event for the counts, and calls as the older ``function_call``."""

    include_usage: bool = False
    older_calls: bool = False


def parse_chat(body: bytes, limits: RequestLimits) -> Parsed[ChatReply]:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    try:
        chat = strict_json.decode(body, shapes.CHAT, limits.max_depth)
    except BadRequest as error:
        if error.param and error.param.endswith(("numCtx", "num_ctx")):
            raise bad_num_ctx(error.param, limits.num_ctx_ceiling) from None
        raise
    if len(chat.messages) > limits.max_messages:
        raise BadRequest(f"messages: {len(chat.messages)} of them; at most {limits.max_messages}.", param="messages")
    options = chat.options or shapes.Options()
    tools, choice = _tools(chat)
    request = ChatRequest(
        model=chat.model or "",
        messages=messages_of(chat.messages, limits.max_depth),
        sampling=_sampling(chat, options),
        max_tokens=_max_tokens(chat, options),
        format=_format(chat.response_format),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=chat.parallel_tool_calls,
        think=_think(chat),
        logprobs=bool(chat.logprobs),
        top_logprobs=chat.top_logprobs,
    )
    return Parsed(
        request,
        ChatReply(
            include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
            older_calls=bool(chat.functions) and not chat.tools,
        ),
        stream=bool(chat.stream),
        wishes=_wishes(chat, options, limits),
    )


def _sampling(chat: shapes.ChatBody, options: shapes.Options) -> Sampling:
    """What the caller gave, its own fields before those in ``options``; nothing else, so the model's defaults stand."""
    given: JsonObject = {}
    for name in shapes.SAMPLING:
        value = getattr(chat, name)
        given[name] = getattr(options, name) if value is None else value
    stop = given.pop("stop")
    # An empty list means "none of my own" and must not take the model's away.
    return Sampling(stop=((stop,) if isinstance(stop, str) else tuple(stop)) if stop else None, **given)


def _max_tokens(chat: shapes.ChatBody, options: shapes.Options) -> int | None:
    """The first limit that was given. 0 and less mean "no limit", as in Ollama and llama.cpp."""
    limits = (chat.max_completion_tokens, chat.max_tokens, options.num_predict)
    limit = next((limit for limit in limits if limit is not None), 0)
    return limit if limit > 0 else None


def _format(
    wanted: shapes.TextFormat | shapes.JsonFormat | shapes.SchemaFormat | None,
) -> Literal["json"] | JsonObject | None:
    match wanted:
        case shapes.JsonFormat():
            return wanted.schema or "json"
        case shapes.SchemaFormat():
            named = wanted.json_schema or {}
            schema = named.get("schema", wanted.schema)
            if schema is not None and not isinstance(schema, dict):
                field = "response_format.json_schema.schema"
                raise BadRequest(f"{field}: Expected an object.", param=field)
            if not schema and any(part in named for part in _SCHEMA_PARTS):
                return named  # the schema itself, without its name around it
            return schema or "json"
        case _:
            return None


def _tools(chat: shapes.ChatBody) -> tuple[Tools, ToolChoice | None]:
    """The tools as they came, and which of them the model may call."""
    if not chat.tools and chat.functions:  # the older function calling
        for index, function in enumerate(chat.functions):
            _check(function, shapes.NamedFunction, f"functions[{index}]")
        tools: Tools = tuple({"type": "function", "function": function} for function in chat.functions)
        return _choice(chat.function_call, tools, "function_call")
    tools = tuple(chat.tools or ())
    for index, tool in enumerate(tools):
        _check(tool, shapes.Tool, f"tools[{index}]")
    return _choice(chat.tool_choice, tools, "tool_choice")


def _check(given: JsonObject, shape: type[msgspec.Struct], place: str) -> None:
    try:
        msgspec.convert(given, shape)
    except msgspec.ValidationError as error:
        raise strict_json.blame(error, place) from None


def _choice(
    said: str | shapes.Choice | shapes.NamedFunction | None, tools: Tools, field: str
) -> tuple[Tools, ToolChoice | None]:
    """Which tools there are to choose from, and how. A word that is not known leaves the choice to the model."""
    match said:
        case "none":
            return tools, ToolChoice("none")
        case "auto":
            return tools, ToolChoice("auto")
        case "required" | "any":
            return tools, ToolChoice("required")
        case shapes.NamedFunction(name=name) | shapes.Choice(function=shapes.NamedFunction(name=name)):
            if all(tool["function"]["name"] != name for tool in tools):
                raise BadRequest(f"{field}: there is no tool of the name {name!r}.", param=field)
            return tools, ToolChoice("function", name)
        case shapes.Choice(allowed_tools=shapes.AllowedTools(mode=mode, tools=allowed)):
            names = {tool.function.name for tool in allowed or ()}
            left = tuple(tool for tool in tools if tool["function"]["name"] in names)
            return left, ToolChoice("required" if mode == "required" else "auto")
        case _:
            return tools, None


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


# --- what is meant for the line ---------------------------------------------------------------------------------------


def _wishes(chat: shapes.ChatBody, options: shapes.Options, limits: RequestLimits) -> Wishes:
    session = _scalar(chat.prompt_cache_key)
    return msgspec.structs.replace(
        from_body(_scalar(chat.priority), _scalar(chat.service_tier)),
        num_ctx=_num_ctx(chat, options, limits),
        session=session_name(session) if isinstance(session, str) else None,
        dropped=tuple(
            name for name in shapes.RELOADING if getattr(chat, name) is not None or getattr(options, name) is not None
        ),
    )


def _num_ctx(chat: shapes.ChatBody, options: shapes.Options, limits: RequestLimits) -> int | None:
    asked = {"numCtx": chat.num_ctx_camel, "num_ctx": chat.num_ctx, "options.num_ctx": options.num_ctx}
    given = {field: size for field, size in asked.items() if size is not None}
    for field, size in given.items():
        if size > limits.num_ctx_ceiling:
            raise bad_num_ctx(field, limits.num_ctx_ceiling)
    if len(set(given.values())) > 1:
        raise BadRequest(f"{' and '.join(given)} differ; send one of them.", param=next(iter(given)))
    return next(iter(given.values()), None)


def _scalar(raw: msgspec.Raw) -> Scalar:
    text = bytes(raw)
    if not text:
        return None
    try:
        return _SCALAR.decode(text)
    except msgspec.DecodeError:  # an array, an object, or a number that no machine holds
        return text.decode()
