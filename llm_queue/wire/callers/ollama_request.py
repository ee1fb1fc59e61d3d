"""From Ollama's requests to ours.

What their answers must know of them is how many other tokens are listed beside each in its ``logprobs``.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal, NamedTuple

import msgspec

from llm_queue.errors import BadRequest, ModelNotFound
from llm_queue.wire import strict_json
from llm_queue.wire.callers import ollama_shapes as shapes
from llm_queue.wire.callers.dialect import Parsed, RequestLimits
from llm_queue.wire.callers.ollama_messages import images_of, messages_of
from llm_queue.wire.durations import lifetime
from llm_queue.wire.fields import scalar
from llm_queue.wire.shapes import ChatRequest, EmbedRequest, JsonObject, LoadRequest, Request, Sampling, TextRequest
from llm_queue.wire.wishes import Wishes, from_body

NO_TOKENS: Final = 1024
"""Tokens that ``num_predict: 0`` is read as. To Ollama it is no limit at all, which nobody can have meant who wrote it:
the answer would hold up the line until it has filled the context ten times over."""

_EFFORTS: Final = ("high", "medium", "low", "max")
_THINK: Final = ", ".join(f'"{effort}"' for effort in _EFFORTS) + ", true, or false"
_BIGGEST: Final = 2.0**63
_FORMAT: Final = msgspec.json.Decoder(JsonObject)


def parse_chat(body: bytes, limits: RequestLimits) -> Parsed[int]:
    """Read and check the body of a chat; one without messages is a load.

    Raises :class:`~llm_queue.errors.BadRequest`, with the field that is wrong as its ``param``.
    """
    chat = shapes.read(body, shapes.CHAT, limits.max_depth)
    if not chat.model:
        raise BadRequest("model is required", param="model")
    turns = chat.messages or ()
    if len(turns) > limits.max_messages:
        raise BadRequest(f"messages: {len(turns)} of them; at most {limits.max_messages}.", param="messages")
    if not turns:
        return _load(chat, limits)
    options = chat.options or shapes.Options()
    request = ChatRequest(
        model=chat.model,
        messages=messages_of(turns),
        sampling=_sampling(options),
        max_tokens=_max_tokens(options),
        format=_format(chat.format, limits.max_depth),
        tools=_tools(chat.tools or []),
        think=_think(chat.think),
        logprobs=bool(chat.logprobs),
        top_logprobs=_top_logprobs(chat),
        truncate=chat.truncate,
        keep_alive=_keep_alive(chat.keep_alive) or None,
    )
    return _parsed(request, chat, limits)


def parse_generate(body: bytes, limits: RequestLimits) -> Parsed[int]:
    """Read and check the body of a text to go on with; one without a prompt is a load.

    Raises what :func:`parse_chat` does, and :class:`~llm_queue.errors.ModelNotFound` without a model, as Ollama has it.
    """
    text = shapes.read(body, shapes.GENERATE, limits.max_depth)
    if not text.model:
        raise ModelNotFound(param="model", model="")
    if text.raw and (text.template or text.system or text.context):
        raise BadRequest("raw mode does not support template, system, or context", param="raw")
    if not text.prompt:
        return _load(text, limits)
    options = text.options or shapes.Options()
    request = TextRequest(
        model=text.model,
        prompt=text.prompt,
        suffix=text.suffix or None,
        system=text.system or None,
        template=text.template or None,
        raw=bool(text.raw),
        templated=not text.raw and not text.suffix,
        images=images_of(text.images or (), ""),
        context=tuple(text.context or ()),
        sampling=_sampling(options),
        max_tokens=_max_tokens(options),
        format=_format(text.format, limits.max_depth),
        think=_think(text.think),
        logprobs=bool(text.logprobs),
        top_logprobs=_top_logprobs(text),
        truncate=text.truncate,
        keep_alive=_keep_alive(text.keep_alive) or None,
    )
    pictures = tuple(name for name in ("width", "height", "steps") if getattr(text, name) is not None)
    return _parsed(request, text, limits, pictures)


def parse_embed(body: bytes, limits: RequestLimits) -> Parsed[int]:
    """Read and check the body of texts to embed; one without a text is a load. Raises as :func:`parse_generate`."""
    embed = shapes.read(body, shapes.EMBED, limits.max_depth)
    if not embed.model:
        raise ModelNotFound(param="model", model="")
    inputs = _inputs(embed.input)
    if len(inputs) > limits.max_messages:
        raise BadRequest(f"input: {len(inputs)} of them; at most {limits.max_messages}.", param="input")
    if not inputs:
        return _load(embed, limits)
    request = EmbedRequest(
        embed.model,
        inputs,
        dimensions=embed.dimensions if embed.dimensions and embed.dimensions > 0 else None,
        truncate=embed.truncate,
        keep_alive=_keep_alive(embed.keep_alive) or None,
    )
    return Parsed(request, 0, wishes=_wishes(embed, limits))


def parse_embeddings(body: bytes, limits: RequestLimits) -> Parsed[int]:
    """Read and check the body of one text to embed in the older way. Raises as :func:`parse_chat`."""
    embed = shapes.read(body, shapes.EMBEDDINGS, limits.max_depth)
    if not embed.model:
        raise BadRequest("model is required", param="model")
    if not embed.prompt:
        return _load(embed, limits)
    keep_alive = _keep_alive(embed.keep_alive) or None
    request = EmbedRequest(embed.model, (embed.prompt,), normalized=False, keep_alive=keep_alive)
    return Parsed(request, 0, wishes=_wishes(embed, limits))


def asked_to_show(body: bytes, max_depth: int) -> str:
    """The model that ``/api/show`` is asked for. Raises :class:`~llm_queue.errors.BadRequest`."""
    show = shapes.read(body, shapes.SHOW, max_depth)
    if not (show.model or show.name):
        raise BadRequest("model is required", param="model")
    return show.model or show.name or ""


class Change(NamedTuple):
    """What a request that is not served says: of which model it is, if that is a plain name, and whether it would
    stream.
    """

    name: str = ""
    stream: bool = True


def asked_to_change(body: bytes, max_depth: int) -> Change:
    """What can be read of the body of a request that would change Ollama. Raises nothing."""
    try:
        said = strict_json.decode(body, _CHANGE, max_depth)
    except BadRequest:
        return Change()
    names = (name for name in (said.model, said.name, said.source) if isinstance(name, str) and _PLAIN.fullmatch(name))
    return Change(next(names, ""), said.stream is not False)


_PLAIN: Final = re.compile(r"\w[\w.:/@-]{0,199}", re.ASCII)  # it stands in a command that people copy


class _Change(msgspec.Struct):
    model: Any = None
    name: Any = None
    source: Any = None
    stream: Any = None


_CHANGE: Final = msgspec.json.Decoder(_Change)


def _parsed(
    request: Request, body: shapes.Conversing, limits: RequestLimits, dropped: tuple[str, ...] = ()
) -> Parsed[int]:
    if body.debug_render_only:
        field = "_debug_render_only"
        raise BadRequest(f"{field}: only Ollama itself shows prompts; ask it past the line.", param=field)
    wishes = _wishes(body, limits)
    if body.shift is not None:
        dropped = ("shift", *dropped)  # another value than the model's would have it loaded anew
    wishes = msgspec.structs.replace(wishes, dropped=wishes.dropped + dropped)
    return Parsed(request, body.top_logprobs or 0, body.stream is not False, wishes)


def _load(body: shapes.Common, limits: RequestLimits) -> Parsed[int]:
    """Nothing to compute. Ollama answers it with one object, also where a stream was asked for."""
    keep_alive = _keep_alive(body.keep_alive)
    request = LoadRequest(body.model or "", keep_alive or None, unload=keep_alive == 0)
    wishes = _wishes(body, limits)
    dropped = tuple(name for name in wishes.dropped if name != "keep_alive")
    return Parsed(request, 0, wishes=msgspec.structs.replace(wishes, dropped=dropped))


def _wishes(body: shapes.Common, limits: RequestLimits) -> Wishes:
    """What is meant for the line. Ollama clamps a context size that cannot be had, so no size is an error."""
    options = body.options or shapes.Options()
    num_ctx = None if options.num_ctx is None else int(min(options.num_ctx, limits.num_ctx_ceiling))
    dropped = [name for name in shapes.RELOADING if getattr(options, name) is not None]
    if _keep_alive(body.keep_alive) == 0:
        dropped.append("keep_alive")
    return msgspec.structs.replace(
        from_body(scalar(body.priority), None),
        num_ctx=num_ctx if num_ctx and num_ctx > 0 else None,
        dropped=tuple(dropped),
    )


def _sampling(options: shapes.Options) -> Sampling:
    given: JsonObject = {
        name: getattr(options, name) for name in Sampling.__struct_fields__ if getattr(options, name) is not None
    }
    for name in shapes.WHOLE:
        if name in given:
            given[name] = _whole(given[name], f"options.{name}")
    stop = given.pop("stop", None)
    return Sampling(stop=((stop,) if isinstance(stop, str) else tuple(stop)) if stop else None, **given)


def _max_tokens(options: shapes.Options) -> int | None:
    if options.num_predict is None:
        return None
    limit = _whole(options.num_predict, "options.num_predict")
    return None if limit < 0 else limit or NO_TOKENS


def _whole(number: float, field: str) -> int:
    """The number without what follows its point. Raises ``BadRequest`` for one that Go's integers cannot hold."""
    if not -_BIGGEST <= number < _BIGGEST:
        raise BadRequest(f"{field}: no such number.", param=field)
    return math.trunc(number)


def _format(raw: msgspec.Raw, max_depth: int) -> Literal["json"] | JsonObject | None:
    text = bytes(raw).strip()
    if text in (b"", b"null", b'""'):
        return None
    if text == b'"json"':
        return "json"
    if text[:1] != b"{":
        said = msgspec.json.encode(text.decode()[:200]).decode()
        raise BadRequest(f'invalid format: {said}; expected "json" or a valid JSON Schema object', param="format")
    return strict_json.decode(text, _FORMAT, max_depth, within="format")


def _think(raw: msgspec.Raw) -> bool | str | None:
    said = scalar(raw)
    if said is None or isinstance(said, bool):
        return said
    if not isinstance(said, str) or bytes(raw)[:1] != b'"':
        raise BadRequest(f"think must be a boolean or string ({_THINK})", param="think")
    if said not in _EFFORTS:
        shown = msgspec.json.encode(said[:200]).decode()
        raise BadRequest(f"invalid think value: {shown} (must be {_THINK})", param="think")
    return said


def _keep_alive(raw: msgspec.Raw) -> float | None:
    said = scalar(raw)
    if said is None:
        return None
    try:
        if isinstance(said, bool) or (isinstance(said, str) and bytes(raw)[:1] != b'"'):
            raise ValueError("it takes a duration such as 5m, or a number of seconds")
        return lifetime(said)
    except ValueError as error:
        raise BadRequest(f"keep_alive: {error}"[:300], param="keep_alive") from None


def _top_logprobs(body: shapes.Conversing) -> int | None:
    if body.top_logprobs is not None and not 0 <= body.top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20", param="top_logprobs")
    return body.top_logprobs


def _tools(tools: list[JsonObject]) -> tuple[JsonObject, ...]:
    for index, tool in enumerate(tools):
        strict_json.converted(tool, shapes.Tool, f"tools[{index}]")
    return tuple(tools)


def _inputs(raw: msgspec.Raw) -> tuple[str, ...]:
    """A text or a list of them. An empty text alone, or none, is nothing to embed."""
    text = bytes(raw).strip()
    try:
        said = msgspec.json.decode(text, type=str | list[str] | None) if text else None
    except msgspec.ValidationError:
        raise BadRequest("invalid input type", param="input") from None
    return (said,) * bool(said) if isinstance(said, str) else tuple(said or ())
