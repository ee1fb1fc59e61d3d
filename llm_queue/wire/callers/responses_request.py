"""From OpenAI's Responses request to ours: its parameters. Its items and its tools have files of their own.

There is no store behind it, so each request must bring the whole conversation. Whatever leans on something stored is
refused with what to send instead.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.callers import responses_shapes as shapes
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.openai_parameters import EFFORTS, decode, line_wishes, sampling_of
from llm_queue.wire.callers.responses_items import messages_of
from llm_queue.wire.callers.responses_parts import Reader
from llm_queue.wire.callers.responses_tools import Tool, ToolBox, choice_of, tools_of
from llm_queue.wire.fields import scalar
from llm_queue.wire.shapes import ChatRequest, JsonObject, Message
from llm_queue.wire.wishes import Wishes, session_name

LOGPROBS: Final = "message.output_text.logprobs"
SEALED_REASONING: Final = "reasoning.encrypted_content"

_NEEDS_A_STORE: Final = {
    "previous_response_id": "send the whole conversation in `input`",
    "conversation": "send the whole conversation in `input`",
    "prompt": "send the prompt's own text in `instructions` and `input`",
}


class ResponsesReply(msgspec.Struct, frozen=True):
    """What the answer must know of the request.

    ``echo`` is what the response repeats of it. ``tools`` are those that may be called, by the names that the model
    knows. ``logprobs`` and ``sealed`` say whether the caller wants those of the text, and its reasoning in a form to
    send back.
    """

    echo: JsonObject
    tools: dict[str, Tool]
    logprobs: bool = False
    sealed: bool = False


def parse_response(body: bytes, limits: RequestLimits) -> Parsed[ResponsesReply]:
    """Read and check a request body.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    asked = decode(body, shapes.BODY, limits)
    _refuse_what_needs_a_store(asked)
    reader = Reader(limits.max_depth)
    box = tools_of(asked.tools or [])
    left, choice = choice_of(asked.tool_choice, box)
    include = asked.include or ()
    text = asked.text or shapes.TextOptions()
    request = ChatRequest(
        model=asked.model or "",
        messages=_messages(asked, reader, limits),
        sampling=sampling_of(asked),
        max_tokens=asked.max_output_tokens,
        format=_format(text),
        tools=tuple(tool.chat for tool in left),
        tool_choice=choice,
        parallel_tool_calls=asked.parallel_tool_calls,
        think=EFFORTS.get((asked.reasoning and asked.reasoning.effort) or ""),
        logprobs=LOGPROBS in include,
        top_logprobs=asked.top_logprobs if LOGPROBS in include else None,
    )
    for kind in box.dropped:
        reader.skip("tools", kind)
    dropped = [*_without_effect(asked, choice_is_known=choice is not None), *reader.skipped]
    return Parsed(
        request,
        ResponsesReply(_echo(asked, box, text, choice), box.by_name, LOGPROBS in include, SEALED_REASONING in include),
        stream=bool(asked.stream),
        wishes=_wishes(asked, limits, tuple(dict.fromkeys(dropped))),
    )


def _refuse_what_needs_a_store(asked: shapes.ResponsesBody) -> None:
    for field, instead in _NEEDS_A_STORE.items():
        if getattr(asked, field):
            raise BadRequest(f"{field}: nothing is stored here; {instead}.", param=field)
    if asked.background:
        raise BadRequest(
            "background: nothing is stored here, so there would be nothing to ask for later. Leave it out, and wait "
            'for the answer; with `"service_tier": "flex"` it lets everybody else go first.',
            param="background",
        )


def _messages(asked: shapes.ResponsesBody, reader: Reader, limits: RequestLimits) -> tuple[Message, ...]:
    if asked.input is None:
        raise BadRequest("input: this field is required.", param="input")
    if not isinstance(asked.input, str) and len(asked.input) > limits.max_messages:
        raise BadRequest(f"input: {len(asked.input)} items; at most {limits.max_messages}.", param="input")
    messages = messages_of(asked.instructions, asked.input, reader)
    if not messages:
        raise BadRequest("input: there is nothing in it that the model could read.", param="input")
    return messages


def _format(text: shapes.TextOptions) -> Literal["json"] | JsonObject | None:
    match text.format:
        case shapes.JsonFormat():
            return "json"
        case shapes.SchemaFormat(schema=schema):
            return schema or "json"
        case _:
            return None


def _without_effect(asked: shapes.ResponsesBody, *, choice_is_known: bool) -> list[str]:
    """Fields that were given, and that nobody here can follow."""
    fields = {
        "context_management": asked.context_management,
        "max_tool_calls": asked.max_tool_calls,
        "text.verbosity": asked.text and asked.text.verbosity,
        "tool_choice": not choice_is_known and isinstance(asked.tool_choice, shapes.Choice),
        "top_logprobs": asked.top_logprobs and LOGPROBS not in (asked.include or ()),
    }
    return [name for name, given in fields.items() if given]


def _echo(asked: shapes.ResponsesBody, box: ToolBox, text: shapes.TextOptions, choice: object) -> JsonObject:
    """What the response says of its request: as it was asked, but for what is not so here."""
    reasoning = asked.reasoning or shapes.Reasoning()
    key = scalar(asked.prompt_cache_key)
    return {
        "background": False,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": key if isinstance(key, str) else None,
        "reasoning": {
            "effort": reasoning.effort or None,
            "summary": reasoning.summary if reasoning.summary != "none" else None,
        },
        "safety_identifier": asked.safety_identifier,
        "store": False,
        "temperature": asked.temperature,
        "text": {"format": text.format or shapes.PlainFormat()}
        | ({"verbosity": text.verbosity} if text.verbosity else {}),
        "tool_choice": "auto" if choice is None else asked.tool_choice,
        "tools": box.kept,
        "top_logprobs": asked.top_logprobs,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "user": asked.user,
    }


# --- what is meant for the line ---------------------------------------------------------------------------------------


def _wishes(asked: shapes.ResponsesBody, limits: RequestLimits, dropped: tuple[str, ...]) -> Wishes:
    session = scalar(asked.prompt_cache_key)
    return msgspec.structs.replace(
        line_wishes(asked, limits),
        session=session_name(session) if isinstance(session, str) else None,
        dropped=dropped,
    )
