"""From OpenAI's chat completion request to ours. Its messages and its tools have files of their own."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.callers import openai_shapes as shapes
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.openai_messages import messages_of
from llm_queue.wire.callers.openai_parameters import EFFORTS, decode, max_tokens_of, sampling_of, text_wishes
from llm_queue.wire.callers.openai_tools import tools_of
from llm_queue.wire.shapes import ChatRequest, JsonObject

_SCHEMA_PARTS: Final = ("type", "properties", "$ref", "$defs", "anyOf", "oneOf", "allOf", "enum", "items")


class ChatReply(msgspec.Struct, frozen=True):
    """The form of the answer.

    ``include_usage``: a stream ends with the counts. ``older_calls``: calls are the older ``function_call``. ``custom``
    are the names of the tools whose calls go out as those of custom tools.
    """

    include_usage: bool = False
    older_calls: bool = False
    custom: frozenset[str] = frozenset()


def parse_chat(body: bytes, limits: RequestLimits) -> Parsed[ChatReply]:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    chat = decode(body, shapes.CHAT, limits)
    if len(chat.messages) > limits.max_messages:
        raise BadRequest(f"messages: {len(chat.messages)} of them; at most {limits.max_messages}.", param="messages")
    _check_modalities(chat)
    if chat.add_generation_prompt and chat.continue_final_message:
        field = "continue_final_message"
        raise BadRequest(f"{field}: either this or add_generation_prompt, and not both.", param=field)
    tools = tools_of(chat)
    request = ChatRequest(
        model=chat.model or "",
        messages=messages_of(chat.messages, limits.max_depth),
        sampling=sampling_of(chat, chat.options),
        max_tokens=max_tokens_of(
            chat.max_completion_tokens, chat.max_tokens, chat.options.num_predict if chat.options else None
        ),
        format=_format(chat.response_format),
        tools=tools.functions,
        tool_choice=tools.choice,
        parallel_tool_calls=chat.parallel_tool_calls,
        think=_think(chat),
        logprobs=bool(chat.logprobs),
        top_logprobs=chat.top_logprobs,
        grammar=chat.grammar or None,
    )
    return Parsed(
        request,
        ChatReply(
            include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
            older_calls=bool(chat.functions) and not chat.tools,
            custom=tools.custom,
        ),
        stream=bool(chat.stream),
        wishes=text_wishes(chat, limits, shapes.WITHOUT_EFFECT),
    )


def _check_modalities(chat: shapes.ChatBody) -> None:
    """Answers are text. Raises :class:`~llm_queue.errors.BadRequest` for one that asks for sound or images."""
    wanted = chat.modalities
    if wanted is None and chat.audio is not None:
        raise BadRequest("audio: answers are text, no model here speaks; leave the field out.", param="audio")
    if other := [modality for modality in wanted or () if modality != "text"]:
        raise BadRequest(f'modalities: answers are text, not {other[0][:50]!r}; send ["text"].', param="modalities")


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
    if effort not in EFFORTS:
        raise BadRequest(f"{field}: unknown; it is one of {', '.join(EFFORTS)}.", param=field)
    return EFFORTS[effort]
