"""The parameters that several of OpenAI's operations have, as types, and what becomes of them.

Decoding into these is the validation. A field that stands here has its type and range; one that does not is ignored.
Optional fields may be null. Beside OpenAI's own fields stand those of the ancestor (``priority``, ``numCtx``) and what
clients of Ollama send along (``options``, sampling parameters at the top level).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from llm_queue.errors import BadRequest
from llm_queue.wire import shapes, strict_json
from llm_queue.wire.callers.dialect import RequestLimits
from llm_queue.wire.fields import Count, Int, Name, NotNegative, Share, scalar, stops_of
from llm_queue.wire.shapes import JsonObject
from llm_queue.wire.wishes import Wishes, bad_num_ctx, from_body, session_name

One = Annotated[int, Meta(ge=1, le=1)]

T = TypeVar("T")


# --- types ------------------------------------------------------------------------------------------------------------


class StreamOptions(Struct):
    """What a stream brings along."""

    include_usage: bool | None = None


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


class TextBody(Parameters, kw_only=True):
    """What the requests for text have in common, whether a chat is to go on or a text."""

    model: Name | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: One | None = None
    max_tokens: Int | None = None
    options: Options | None = None
    num_ctx: Count | None = None
    num_ctx_camel: Count | None = field(name="numCtx", default=None)
    # Of any type: what they say to the line is never an error.
    priority: Raw = field(default_factory=Raw)
    service_tier: Raw = field(default_factory=Raw)
    prompt_cache_key: Raw = field(default_factory=Raw)
    # Of any type: nothing here can do what they ask for.
    logit_bias: Any = None


EFFORTS: Final[dict[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}
"""How hard to think, in OpenAI's words and in those of models."""

SAMPLING: Final = Sampling.__struct_fields__
RELOADING: Final = Parameters.__struct_fields__[len(SAMPLING) :]


class LineFields(Protocol):
    """The fields of a body that are meant for the line."""

    num_ctx: int | None
    num_ctx_camel: int | None
    priority: Raw
    service_tier: Raw


# --- from these to our own --------------------------------------------------------------------------------------------


def decode(body: bytes, decoder: msgspec.json.Decoder[T], limits: RequestLimits) -> T:
    """The request in a body. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
    try:
        return strict_json.decode(body, decoder, limits.max_depth)
    except BadRequest as error:
        if error.param and error.param.endswith(("numCtx", "num_ctx")):
            raise bad_num_ctx(error.param, limits.num_ctx_ceiling) from None
        raise


def sampling_of(body: Sampling, options: Options | None = None) -> shapes.Sampling:
    """What the caller gave, its own fields before those in ``options``; nothing else, so the model's defaults stand."""
    options = options or Options()
    given: JsonObject = {}
    for name in SAMPLING:
        value = getattr(body, name)
        given[name] = getattr(options, name) if value is None else value
    return shapes.Sampling(**given | {"stop": stops_of(given["stop"])})


def texts_of(given: str | list[Any], field: str, most: int) -> list[str]:
    """One text or a list of texts, of 1 to ``most``; ``field`` is what errors name."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise BadRequest(f"{field}: the list is empty; send a text, or a list of texts.", param=field)
    if any(isinstance(one, (int, list)) for one in given):
        raise BadRequest(f"{field}: token ids are not read here; send text.", param=field)
    if len(given) > most:
        raise BadRequest(f"{field}: {len(given)} texts; at most {most}.", param=field)
    for at, one in enumerate(given):
        if not isinstance(one, str):
            raise BadRequest(f"{field}[{at}]: Expected a string.", param=f"{field}[{at}]")
    return given


def max_tokens_of(*limits: int | None) -> int | None:
    """The first limit that was given. 0 and less mean "no limit", as in Ollama and llama.cpp."""
    limit = next((limit for limit in limits if limit is not None), 0)
    return limit if limit > 0 else None


def text_wishes(body: TextBody, limits: RequestLimits, without_effect: tuple[str, ...] = ()) -> Wishes:
    """What a request for text says to the line. ``without_effect`` are names of more fields that can have none."""
    options = body.options or Options()
    session = scalar(body.prompt_cache_key)
    return msgspec.structs.replace(
        line_wishes(body, limits, options.num_ctx),
        session=session_name(session) if isinstance(session, str) else None,
        dropped=tuple(
            name for name in RELOADING if getattr(body, name) is not None or getattr(options, name) is not None
        )
        + tuple(name for name in ("logit_bias", *without_effect) if getattr(body, name)),
    )


def line_wishes(body: LineFields, limits: RequestLimits, in_options: int | None = None) -> Wishes:
    """The lane and the context size that a body asks for; ``in_options`` is the size in its ``options``."""
    wanted = from_body(scalar(body.priority), scalar(body.service_tier))
    asked = {"numCtx": body.num_ctx_camel, "num_ctx": body.num_ctx, "options.num_ctx": in_options}
    given = {name: size for name, size in asked.items() if size is not None}
    for name, size in given.items():
        if size > limits.num_ctx_ceiling:
            raise bad_num_ctx(name, limits.num_ctx_ceiling)
    if len(set(given.values())) > 1:
        raise BadRequest(f"{' and '.join(given)} differ; send one of them.", param=next(iter(given)))
    return msgspec.structs.replace(wanted, num_ctx=next(iter(given.values()), None))
