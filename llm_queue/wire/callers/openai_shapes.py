"""The parts of OpenAI's chat completion request that mean something here, as types.

The parameters that it shares with other operations are in :mod:`llm_queue.wire.callers.openai_parameters`, with what
holds for all types of both files.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

from llm_queue.wire.callers.openai_parameters import TextBody
from llm_queue.wire.fields import Int

# --- messages ---------------------------------------------------------------------------------------------------------


class Part(Struct, tag_field="type"):
    """A piece of a message's content; its ``type`` says which."""


class TextPart(Part, tag="text"):
    """Text."""

    text: str


class RefusalPart(Part, tag="refusal"):
    """What the model said when it would not answer."""

    refusal: str


class ImageUrl(Struct):
    """OpenAI's form of an image; its ``detail`` means nothing here."""

    url: str


class ImagePart(Part, tag="image_url"):
    """An image, as a ``data:`` URL."""

    image_url: str | ImageUrl


class File(Struct):
    """A file: its content as a ``data:`` URL, or the id of one that was uploaded before."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Part, tag="file"):
    """A file."""

    file: File


class AudioPart(Part, tag="input_audio"):
    """Known, so that it can be refused by name."""


class Function(Struct):
    """What the model called. ``arguments`` is a JSON text at OpenAI, an object at Ollama; kept as it came."""

    name: str
    arguments: Raw = field(default_factory=Raw)


class CustomCall(Struct):
    """The custom tool that the model called, and the text that it gave it."""

    name: str
    input: str


class Call(Struct):
    """One call of a tool, in an earlier answer."""

    function: Function | None = None
    custom: CustomCall | None = None
    id: str | None = None


class Turn(Struct):
    """One message. Its ``role`` says which of the fields mean something, in whatever case it is written."""

    role: str
    content: str | list[TextPart | RefusalPart | ImagePart | FilePart | AudioPart] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


# --- everything else --------------------------------------------------------------------------------------------------


class TextFormat(Struct, tag_field="type", tag="text"):
    """Plain text, which needs no format."""


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """Any JSON; of a given schema where llama.cpp's ``schema`` stands beside it."""

    schema: dict[str, Any] | None = None


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """JSON of a given schema: in ``json_schema`` at OpenAI, beside it at llama.cpp."""

    json_schema: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None


class Named(Struct):
    """What must be in the function of a tool, and all that chooses one."""

    name: str


class Tool(Struct, tag_field="type", tag="function"):
    """What must be in a tool; the rest of it is passed on unread."""

    function: Named


class Grammar(Struct):
    """A grammar that the text for a custom tool must follow, and the language that it is written in."""

    definition: str
    syntax: str


class Form(Struct):
    """The form of the text for a custom tool."""

    type: Literal["text", "grammar"]
    grammar: Grammar | None = None


class Custom(Struct):
    """A tool that takes text of any form."""

    name: str
    description: str | None = None
    format: Form | None = None


class CustomTool(Struct, tag_field="type", tag="custom"):
    """The same as one of the ``tools``."""

    custom: Custom


class ChosenTool(Struct):
    """A tool that is chosen, by its name."""

    type: str | None = None
    function: Named | None = None
    custom: Named | None = None


class AllowedTools(Struct):
    """Those of the tools that the model may call in this turn."""

    mode: str | None = None
    tools: list[ChosenTool] | None = None


class Choice(ChosenTool):
    """A ``tool_choice`` that is no single word."""

    allowed_tools: AllowedTools | None = None


class Reasoning(Struct):
    """The other place where an effort may stand."""

    effort: str | None = None


class ChatBody(TextBody, kw_only=True):
    """The request body."""

    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_completion_tokens: Int | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | Named | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    grammar: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    # Of any type: nothing here can do what they ask for.
    moderation: Any = None
    verbosity: Any = None
    web_search_options: Any = None


CHAT: Final = msgspec.json.Decoder(ChatBody)
WITHOUT_EFFECT: Final = (
    "moderation",
    "verbosity",
    "web_search_options",
    "add_generation_prompt",
    "continue_final_message",
)
"""Fields that would change an answer elsewhere, and have no effect here."""
