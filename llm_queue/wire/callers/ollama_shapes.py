"""The parts of Ollama's requests that mean something here, as types; and how its JSON is read.

Ollama reads a body as Go does: whatever its Content-Type, with keys in any case, and only the first value in it. What
has no field here is ignored, as there. Optional fields may be null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.fields import Int, Name

T = TypeVar("T")


class Function(Struct):
    """What the model called. ``arguments`` is an object, kept as it came."""

    name: str = ""
    arguments: Raw = field(default_factory=Raw)


class Call(Struct):
    """One call of a tool, in an earlier answer."""

    function: Function
    id: str | None = None


class Turn(Struct):
    """One message."""

    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Options(Struct):
    """The options that are passed on. Go reads every number as a float, and cuts those that must be whole."""

    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_penalty: float | None = None
    top_k: float | None = None
    seed: float | None = None
    repeat_last_n: float | None = None
    num_predict: float | None = None
    num_ctx: float | None = None
    stop: str | list[str] | None = None
    # These would have the model loaded anew, or mean nothing once it is; they are never passed on.
    num_batch: Any = None
    num_gpu: Any = None
    num_thread: Any = None
    main_gpu: Any = None
    use_mmap: Any = None
    num_keep: Any = None
    draft_num_predict: Any = None


RELOADING: Final = Options.__struct_fields__[Options.__struct_fields__.index("num_batch") :]
WHOLE: Final = ("top_k", "seed", "repeat_last_n")


class Common(Struct, kw_only=True):
    """What every request has."""

    model: Name | None = None
    options: Options | None = None
    keep_alive: Raw = field(default_factory=Raw)
    priority: Raw = field(default_factory=Raw)


class Conversing(Common, kw_only=True):
    """What chats and texts have in common. A ``stream`` that is absent is true."""

    stream: bool | None = None
    format: Raw = field(default_factory=Raw)
    think: Raw = field(default_factory=Raw)
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Int | None = None
    debug_render_only: bool | None = field(name="_debug_render_only", default=None)


class ChatBody(Conversing, kw_only=True):
    """``/api/chat``."""

    messages: list[Turn] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateBody(Conversing, kw_only=True):
    """``/api/generate``."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    images: list[str] | None = None
    context: list[Int] | None = None
    # Of image generation, which no engine behind the line has.
    width: Any = None
    height: Any = None
    steps: Any = None


class EmbedBody(Common, kw_only=True):
    """``/api/embed``."""

    input: Raw = field(default_factory=Raw)
    truncate: bool | None = None
    dimensions: Int | None = None


class EmbeddingsBody(Common, kw_only=True):
    """``/api/embeddings``, the older one."""

    prompt: str | None = None


class Tool(Struct):
    """What must be in a tool; the rest of it is passed on unread."""

    function: Function


class ShowBody(Struct):
    """``/api/show``. ``name`` is the older word for ``model``."""

    model: str | None = None
    name: str | None = None


CHAT: Final = msgspec.json.Decoder(ChatBody)
GENERATE: Final = msgspec.json.Decoder(GenerateBody)
EMBED: Final = msgspec.json.Decoder(EmbedBody)
EMBEDDINGS: Final = msgspec.json.Decoder(EmbeddingsBody)
SHOW: Final = msgspec.json.Decoder(ShowBody)

# --- reading ----------------------------------------------------------------------------------------------------------

Levels = Mapping[str, Any]
"""The names of fields whose objects, or lists of objects, have keys that are read in any case, and theirs in turn."""

_CALL: Final[Levels] = {"function": {}}
_LEVELS: Final[Levels] = {"messages": {"tool_calls": _CALL}, "tools": _CALL}
_CAPITAL_KEY: Final = re.compile(rb'"[A-Za-z_]*[A-Z][A-Za-z_]*"\s*:')
_TRAILING: Final = re.compile(r"trailing characters \(byte (\d+)\)")
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_LIST: Final = msgspec.json.Decoder(list[Raw])


def read(body: bytes, decoder: msgspec.json.Decoder[T], max_depth: int) -> T:
    """The request in ``body``. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
    if not body.strip():
        raise BadRequest("missing request body")
    strict_json.check_bounds(body, max_depth)
    text = bytes(_lowered(Raw(body), _LEVELS)) if _CAPITAL_KEY.search(body) else body
    try:
        return strict_json.decode(text, decoder, max_depth)
    except BadRequest as error:
        rest = _TRAILING.search(error.message)
        if rest is None:
            raise
    return read(text[: int(rest[1]) - 1], decoder, max_depth)


def _lowered(text: Raw, levels: Levels) -> Raw:
    """The same value with the keys of its objects in lower case, as deep as ``levels`` go; what is no such, as it is.

    Of two keys that are the same then, the last counts, as in Go.
    """
    try:
        fields = {key.lower(): value for key, value in _OBJECT.decode(text).items()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _lowered_items(text, levels)
    for name in fields.keys() & levels.keys():
        fields[name] = _lowered(fields[name], levels[name])
    return Raw(msgspec.json.encode(fields))


def _lowered_items(text: Raw, levels: Levels) -> Raw:
    try:
        items = _LIST.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return text
    return Raw(msgspec.json.encode([_lowered(item, levels) for item in items]))
