"""The parts of OpenAI's chat completion request that mean something here, as types.

Decoding into these is the validation. A field that stands here has its type and range; one that does not is ignored.
Optional fields may be null. Beside OpenAI's own fields stand those of the ancestor (``priority``, ``numCtx``) and what
clients of Ollama send along (``options``, ``think``, sampling parameters at the top level).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

# msgspec reads integers of any length; Ollama's are Go's, of 64 bits.
Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0)]
# Names stand in logs and messages, and are remembered after the request. Ollama's own are shorter.
Name = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


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


class AudioPart(Part, tag="input_audio"):
    """Known, so that it can be refused by name."""


class Function(Struct):
    """What the model called. ``arguments`` is a JSON text at OpenAI, an object at Ollama."""

    name: str
    arguments: str | dict[str, Any] | None = None


class Call(Struct):
    """One call of a tool, in an earlier answer."""

    function: Function
    id: str | None = None


class Turn(Struct, tag_field="role"):
    """One message; its ``role`` says which fields it has."""


class SystemTurn(Turn, tag="system"):
    """What the application tells the model."""

    content: str | Annotated[list[TextPart], Meta(min_length=1)]


class DeveloperTurn(SystemTurn, tag="developer"):
    """OpenAI's newer name for a system message."""


class UserTurn(Turn, tag="user"):
    """What the user says."""

    content: str | Annotated[list[TextPart | ImagePart | AudioPart], Meta(min_length=1)]


class AssistantTurn(Turn, tag="assistant"):
    """What the model answered before."""

    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1)] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ToolTurn(Turn, tag="tool"):
    """What a tool returned."""

    content: str | Annotated[list[TextPart | ImagePart], Meta(min_length=1)]
    tool_call_id: str | None = None
    name: str | None = None


AnyTurn = SystemTurn | DeveloperTurn | UserTurn | AssistantTurn | ToolTurn


# --- everything else --------------------------------------------------------------------------------------------------


class TextFormat(Struct, tag_field="type", tag="text"):
    """Plain text, which needs no format."""


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """Any JSON."""


class NamedSchema(Struct):
    """A JSON schema; its ``name`` and ``strict`` mean nothing here."""

    schema: dict[str, Any]


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """JSON of a given schema."""

    json_schema: NamedSchema


class NamedFunction(Struct):
    """What must be in the function of a tool."""

    name: str


class Tool(Struct):
    """What must be in a tool; the rest of it is passed on unread."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Struct):
    """What a stream brings along."""

    include_usage: bool | None = None


class Reasoning(Struct):
    """The other place where an effort may stand."""

    effort: str | None = None


class Sampling(Struct):
    """Sampling parameters that have the same name and meaning at Ollama."""

    temperature: NotNegative | None = None
    top_p: Share | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: Int | None = None
    stop: str | list[str] | None = None
    top_k: Int | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_penalty: float | None = None
    repeat_last_n: Int | None = None


class Parameters(Sampling):
    """The same, and options that would make Ollama load the model anew for no meaning. Those are never passed on."""

    num_batch: Any = None
    num_gpu: Any = None
    num_thread: Any = None
    main_gpu: Any = None
    use_mmap: Any = None
    num_keep: Any = None
    draft_num_predict: Any = None
    shift: Any = None


class Options(Parameters):
    """Ollama's ``options`` object."""

    num_predict: Int | None = None
    num_ctx: Count | None = None


class ChatBody(Parameters, kw_only=True):
    """The request body."""

    messages: Annotated[list[AnyTurn], Meta(min_length=1)]
    model: Name | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    options: Options | None = None
    num_ctx: Count | None = None
    num_ctx_camel: Count | None = field(name="numCtx", default=None)
    # Of any type: an unknown wanted_ctx for priority is never an error.
    priority: Raw = field(default_factory=Raw)
    service_tier: Raw = field(default_factory=Raw)


CHAT: Final = msgspec.json.Decoder(ChatBody)
SAMPLING: Final = Sampling.__struct_fields__
RELOADING: Final = Parameters.__struct_fields__[len(SAMPLING) :]
