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
    """What the model called. ``arguments`` is a JSON text at OpenAI, an object at Ollama; kept as it came."""

    name: str
    arguments: Raw = field(default_factory=Raw)


class Call(Struct):
    """One call of a tool, in an earlier answer."""

    function: Function
    id: str | None = None


class Turn(Struct):
    """One message. Its ``role`` says which of the fields mean something, in whatever case it is written."""

    role: str
    content: str | list[TextPart | RefusalPart | ImagePart | AudioPart] | None = None
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


class NamedFunction(Struct):
    """What must be in the function of a tool."""

    name: str


class Tool(Struct):
    """What must be in a tool; the rest of it is passed on unread."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Struct):
    """Those of the tools that the model may call in this turn."""

    mode: str | None = None
    tools: list[Tool] | None = None


class Choice(Struct):
    """A ``tool_choice`` that is no single word."""

    type: str | None = None
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class StreamOptions(Struct):
    """What a stream brings along."""

    include_usage: bool | None = None


class Reasoning(Struct):
    """The other place where an effort may stand."""

    effort: str | None = None


class Sampling(Struct):
    """Sampling parameters: OpenAI's, and those of Ollama and llama.cpp under their names."""

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

    messages: Annotated[list[Turn], Meta(min_length=1)]
    model: Name | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    max_completion_tokens: Int | None = None
    max_tokens: Int | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | NamedFunction | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    options: Options | None = None
    num_ctx: Count | None = None
    num_ctx_camel: Count | None = field(name="numCtx", default=None)
    # Of any type: what they say to the line is never an error.
    priority: Raw = field(default_factory=Raw)
    service_tier: Raw = field(default_factory=Raw)
    prompt_cache_key: Raw = field(default_factory=Raw)


CHAT: Final = msgspec.json.Decoder(ChatBody)
SAMPLING: Final = Sampling.__struct_fields__
RELOADING: Final = Parameters.__struct_fields__[len(SAMPLING) :]
