"""The parts of OpenAI's Responses request that mean something here, as types.

Decoding into these is the validation. A field that stands here has its type and range; one that does not is ignored.
Optional fields may be null. The items of the input and the tools are kept as they came: one that is not known must be
skipped, which a typed list would refuse. They have types of their own below.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

from llm_queue.wire.callers.openai_parameters import Sampling
from llm_queue.wire.fields import Count, Int, Name

# --- the items of the input -------------------------------------------------------------------------------------------


class Kind(Struct):
    """What an item or a part is. A message may leave its type out."""

    type: str | None = None


class MessageItem(Struct):
    """A message of anybody's. Where its content is a list, its parts are read one by one."""

    role: str
    content: str | list[Raw] | None = None


class CallItem(Struct):
    """A call of a function, in an earlier answer."""

    name: str
    arguments: str = "{}"
    call_id: str | None = None
    namespace: str | None = None


class CustomCallItem(Struct):
    """A call of a custom tool, in an earlier answer."""

    name: str
    input: str = ""
    call_id: str | None = None
    namespace: str | None = None


class OutputItem(Struct):
    """What a function or a custom tool returned."""

    output: str | list[Raw] | None = None
    call_id: str | None = None


class Thought(Struct):
    """A piece of a reasoning item."""

    text: str = ""


class ReasoningItem(Struct):
    """What the model thought, in an earlier answer."""

    content: list[Thought] | None = None
    summary: list[Thought] | None = None
    encrypted_content: str | None = None


class ReferenceItem(Struct):
    """The name of an item that the caller believes to be stored."""

    id: str = ""


class TextPart(Struct):
    """Text, the caller's or the model's."""

    text: str


class RefusalPart(Struct):
    """What the model said when it would not answer."""

    refusal: str


class ImageUrl(Struct):
    """An image as chat completions have it."""

    url: str


class ImagePart(Struct):
    """An image, as a ``data:`` URL; its ``detail`` means nothing here."""

    image_url: str | ImageUrl | None = None
    file_id: str | None = None


class FilePart(Struct):
    """A file, as a ``data:`` URL or bare base64."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None


# --- tools ------------------------------------------------------------------------------------------------------------


class FunctionTool(Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Grammar(Struct):
    """What the input of a custom tool must look like."""

    type: str | None = None
    syntax: str | None = None
    definition: str | None = None


class CustomTool(Struct):
    """A tool that takes any text."""

    name: str
    description: str | None = None
    format: Grammar | None = None


class NamespaceTool(Struct):
    """Tools that belong together."""

    name: str
    description: str | None = None
    tools: list[dict[str, Any]] = []


class AllowedTool(Struct, omit_defaults=True):
    """A tool that stays, in an ``allowed_tools`` choice, or the one that is chosen."""

    type: str | None = None
    name: str | None = None


class Choice(Struct, omit_defaults=True):
    """A ``tool_choice`` that is no single word."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[AllowedTool] | None = None


# --- everything else --------------------------------------------------------------------------------------------------


class PlainFormat(Struct, tag_field="type", tag="text"):
    """Plain text, which needs no format."""


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """Any JSON."""


class SchemaFormat(Struct, tag_field="type", tag="json_schema", omit_defaults=True):
    """JSON of a given schema."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct):
    """What the text of the answer looks like."""

    format: PlainFormat | JsonFormat | SchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Struct):
    """How much the model thinks."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max", ""] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None


class ResponsesBody(Sampling):
    """The request body. Of the sampling parameters OpenAI has the first two here; the others are those of its chat."""

    input: str | list[Raw] | None = None
    instructions: str | None = None
    model: Name | None = None
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Int | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    user: str | None = None
    store: bool | None = None
    # Known, so that they can be refused by name: each needs a store, and there is none.
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    # Known, so that it can be said that they have no effect.
    context_management: Any = None
    num_ctx: Count | None = None
    num_ctx_camel: Count | None = field(name="numCtx", default=None)
    # Of any type: what they say to the line is never an error.
    priority: Raw = field(default_factory=Raw)
    service_tier: Raw = field(default_factory=Raw)
    prompt_cache_key: Raw = field(default_factory=Raw)


BODY: Final = msgspec.json.Decoder(ResponsesBody)
