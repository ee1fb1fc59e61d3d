"""The parts of Anthropic's message request that mean something here, as types.

Decoding into these is the validation. A field that stands here has its type and range; one that does not is ignored.
Optional fields may be null. Blocks of content are kept as raw JSON at first: which shape one has to have depends on its
type and on who says it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct, field

from llm_queue.wire.fields import Count, Int, Name, NotNegative, Share

Content = str | list[Raw]


# --- blocks of content ------------------------------------------------------------------------------------------------


class Block(Struct):
    """Any block: its type says which of the following it is."""

    type: str


class Text(Struct):
    """Text."""

    text: str


class Source(Struct):
    """Where an image or a document is: in ``data`` as base64 or text, in ``content`` as blocks, or somewhere else."""

    type: str
    media_type: str | None = None
    data: str | None = None
    content: Content | None = None


class Image(Struct):
    """A picture."""

    source: Source


class Document(Struct):
    """A text with a title, and with words about it."""

    source: Source
    title: str | None = None
    context: str | None = None


class SearchResult(Struct):
    """A text that a search has found."""

    content: list[Raw]
    title: str = ""
    source: str = ""


class Thinking(Struct):
    """What the model thought in an earlier answer. Its signature says nothing here."""

    thinking: str


class ToolUse(Struct):
    """A call of a tool in an earlier answer. ``input`` is an object, kept as it came."""

    name: str
    id: str | None = None
    input: Raw = field(default_factory=Raw)


class ToolResult(Struct):
    """What a call came to."""

    tool_use_id: str | None = None
    content: Content | None = None
    is_error: bool | None = None


class ToolReference(Struct):
    """The name of a tool, as the result of a search for tools."""

    tool_name: str


BLOCK: Final = msgspec.json.Decoder(Block)
TEXT: Final = msgspec.json.Decoder(Text)
IMAGE: Final = msgspec.json.Decoder(Image)
DOCUMENT: Final = msgspec.json.Decoder(Document)
SEARCH_RESULT: Final = msgspec.json.Decoder(SearchResult)
THINKING: Final = msgspec.json.Decoder(Thinking)
TOOL_USE: Final = msgspec.json.Decoder(ToolUse)
TOOL_RESULT: Final = msgspec.json.Decoder(ToolResult)
TOOL_REFERENCE: Final = msgspec.json.Decoder(ToolReference)


# --- everything else --------------------------------------------------------------------------------------------------


class Turn(Struct):
    """One message."""

    role: str
    content: Content


class Tool(Struct):
    """A tool. One without a schema is run by the server, which we are not."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Struct):
    """Which of the tools the model may call, and whether several at once."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingSwitch(Struct):
    """Whether the model is to think. Its budget in tokens is nothing that an engine here could keep."""

    type: str
    budget_tokens: Any = None


class Format(Struct):
    """The form of the answer: JSON of a schema."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct):
    """How much effort to take, and the form of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class Metadata(Struct):
    """What the program says of itself."""

    user_id: Raw = field(default_factory=Raw)


class MessagesBody(Struct, kw_only=True):
    """The request body. ``max_tokens`` must be there, but where tokens are only counted."""

    messages: list[Turn]
    model: Name | None = None
    max_tokens: Count | None = None
    system: Content | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: NotNegative | None = None
    top_p: Share | None = None
    top_k: Int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingSwitch | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    metadata: Metadata | None = None
    # Of any type: what it says to the line is never an error.
    service_tier: Raw = field(default_factory=Raw)
    # Known, so that it can be said that they have no effect.
    container: Any = None
    context_management: Any = None
    mcp_servers: Any = None
    speed: Any = None


MESSAGES: Final = msgspec.json.Decoder(MessagesBody)
WITHOUT_EFFECT: Final = ("container", "context_management", "mcp_servers", "speed")
