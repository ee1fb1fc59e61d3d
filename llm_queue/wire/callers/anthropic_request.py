"""From Anthropic's message request to ours: its parameters. Its messages have a file of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.callers import anthropic_shapes as shapes
from llm_queue.wire.callers.anthropic_messages import Conversation
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.fields import scalar, stops_of
from llm_queue.wire.prompts import prompt_size
from llm_queue.wire.shapes import ChatRequest, JsonObject, Sampling, ToolChoice
from llm_queue.wire.wishes import Wishes, from_body, session_name

_MODES: Final[dict[str, Any]] = {"auto": "auto", "any": "required", "tool": "function", "none": "none"}
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_BEFORE_SESSION: Final = "_session_"
_ANY: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()

Tools = tuple[JsonObject, ...]


BYTES_PER_TOKEN: Final = 4
"""Of English and of code; what Ollama reckons with, where it has to say a number before it has counted."""


class MessagesReply(msgspec.Struct, frozen=True):
    """What the form of the answer depends on: the texts at which the caller wants it to stop.

    ``about_tokens`` are those of the prompt by its size alone, for a stream whose beginning has to name a number.
    """

    stop_sequences: tuple[str, ...] = ()
    about_tokens: int = 0


def parse_messages(body: bytes, limits: RequestLimits) -> Parsed[MessagesReply]:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    asked = strict_json.decode(body, shapes.MESSAGES, limits.max_depth)
    if asked.max_tokens is None:
        raise BadRequest("max_tokens: this field is required.", param="max_tokens")
    return _parsed(asked, limits)


def parse_counted(body: bytes, limits: RequestLimits) -> Parsed[MessagesReply]:
    """Read and check the body of a request whose tokens are to be counted: the same, but for ``max_tokens``."""
    return _parsed(strict_json.decode(body, shapes.MESSAGES, limits.max_depth), limits)


def _parsed(asked: shapes.MessagesBody, limits: RequestLimits) -> Parsed[MessagesReply]:
    if len(asked.messages) > limits.max_messages:
        raise BadRequest(f"messages: {len(asked.messages)} of them; at most {limits.max_messages}.", param="messages")
    conversation = Conversation(asked)
    tools, left_out = _tools(asked.tools or ())
    choice = _choice(asked.tool_choice, tools, left_out)
    stops = tuple(asked.stop_sequences or ())
    request = ChatRequest(
        model=asked.model or "",
        messages=conversation.messages,
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            stop=stops_of(asked.stop_sequences),
        ),
        max_tokens=asked.max_tokens,
        format=_format(asked),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False if asked.tool_choice and asked.tool_choice.disable_parallel_tool_use else None,
        think=_think(asked),
        think_if_able=True,
    )
    dropped = [name for name in shapes.WITHOUT_EFFECT if getattr(asked, name) is not None]
    if asked.thinking is not None and asked.thinking.budget_tokens is not None:
        dropped.append("thinking.budget_tokens")
    if asked.tool_choice is not None and choice is None:
        dropped.append("tool_choice")
    dropped += _named("tools", left_out) + _named("content", conversation.skipped)
    about = 1 + prompt_size(request).bytes // BYTES_PER_TOKEN if asked.stream else 0
    reply = MessagesReply(stops, about)
    return Parsed(request, reply, stream=bool(asked.stream), wishes=_wishes(asked, tuple(dropped)))


def _tools(given: Iterable[shapes.Tool]) -> tuple[Tools, dict[str, str]]:
    """The caller's own tools, in OpenAI's form; and the types of those that Anthropic runs itself, by their names."""
    tools: list[JsonObject] = []
    left_out: dict[str, str] = {}
    for index, tool in enumerate(given):
        own = tool.type in (None, "custom")
        if tool.input_schema is None and not own:
            left_out[tool.name or f"[{index}]"] = tool.type or ""
            continue
        for field, value in (("name", tool.name), ("input_schema", tool.input_schema)):
            if value is None:
                place = f"tools[{index}].{field}"
                raise BadRequest(f"{place}: this field is required.", param=place)
        function: JsonObject = {"name": tool.name, "parameters": tool.input_schema}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.strict is not None:
            function["strict"] = tool.strict
        tools.append({"type": "function", "function": function})
    return tuple(tools), left_out


def _choice(said: shapes.ToolChoice | None, tools: Tools, left_out: dict[str, str]) -> ToolChoice | None:
    """Which tools the model may call; None also where it was to call one that is left out."""
    if said is None:
        return None
    if said.type != "tool":
        return ToolChoice(_MODES[said.type])
    if said.name is None:
        raise BadRequest("tool_choice.name: this field is required.", param="tool_choice.name")
    if said.name in left_out:
        return None
    if all(tool["function"]["name"] != said.name for tool in tools):
        raise BadRequest(
            f"tool_choice.name: there is no tool of the name {said.name[:100]!r}.", param="tool_choice.name"
        )
    return ToolChoice("function", said.name)


def _format(asked: shapes.MessagesBody) -> JsonObject | None:
    """The schema of the answer, in its place or in the one that it had before."""
    wanted = (asked.output_config and asked.output_config.format) or asked.output_format
    return wanted.schema if wanted else None


def _think(asked: shapes.MessagesBody) -> bool | str | None:
    """Whether to think, or how hard. What leaves it to the model, without an effort, is nothing to say to it."""
    switch = asked.thinking.type if asked.thinking else None
    effort = asked.output_config.effort if asked.output_config else None
    if switch == "disabled":
        return False
    if effort is not None:
        return _EFFORTS[effort]
    return True if switch == "enabled" else None


# --- what is meant for the line ---------------------------------------------------------------------------------------


def _wishes(asked: shapes.MessagesBody, dropped: tuple[str, ...]) -> Wishes:
    wishes = from_body(None, scalar(asked.service_tier))
    return msgspec.structs.replace(wishes, session=_session(asked.metadata), dropped=dropped)


def _session(metadata: shapes.Metadata | None) -> str | None:
    """The conversation, by what the program says of its user. Claude Code puts a JSON text there, with its session;
    earlier ones ``user_…_account_…_session_ID``.
    """
    user = _value(metadata.user_id) if metadata else None
    if not isinstance(user, str):
        return None
    facts = _value(user.encode())
    inner = facts.get("session_id") if isinstance(facts, dict) else None
    return session_name(inner if isinstance(inner, str) else user.rpartition(_BEFORE_SESSION)[2] or user)


def _value(text: bytes | msgspec.Raw) -> Any:
    """What a JSON text holds; None if it is none."""
    try:
        return _ANY.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _named(place: str, kinds: dict[str, str] | list[str]) -> list[str]:
    """Names for types that the caller has written, as they may stand in a header."""
    found = dict.fromkeys(kinds.values() if isinstance(kinds, dict) else kinds)
    return [f"{place}.{kind}" if _PLAIN.fullmatch(kind) else place for kind in found]
