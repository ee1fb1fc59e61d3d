"""What Ollama says about its models: which there are, what each can do, and which are resident.

Shapes are those of Ollama 0.33.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from llm_queue.wire.shapes import JsonObject
from llm_queue.wire.upstreams.lines import decode


class Tag(Struct, frozen=True):
    """One line of ``/api/tags``. ``created`` is in Unix seconds, 0 where Ollama does not say."""

    name: str
    digest: str
    created: int = 0


class Shown(Struct, frozen=True):
    """What ``/api/show`` says of a model; ``trained`` is the context in tokens it was trained for."""

    trained: int | None = None
    capabilities: frozenset[str] = frozenset()


class Loaded(Struct, frozen=True):
    """One line of ``/api/ps``. ``context_length`` is what the runner has now; older versions do not say."""

    name: str
    digest: str
    context_length: int | None = None


class _Tag(Struct):
    name: str
    digest: str = ""
    modified_at: str | None = None


class _Tags(Struct):
    models: list[_Tag] | None = None


class _Show(Struct):
    model_info: JsonObject | None = None
    capabilities: list[str] | None = None


class _Ps(Struct):
    models: list[Loaded] | None = None


_TAGS: Final = msgspec.json.Decoder(_Tags)
_SHOW: Final = msgspec.json.Decoder(_Show)
_PS: Final = msgspec.json.Decoder(_Ps)


def parse_tags(body: bytes) -> tuple[Tag, ...]:
    """All models that are there. Raises :class:`~llm_queue.errors.UpstreamBroke`, as its two siblings do."""
    return tuple(Tag(tag.name, tag.digest, _unix(tag.modified_at)) for tag in decode(body, _TAGS).models or ())


def parse_show(body: bytes) -> Shown:
    """What a model can do."""
    show = decode(body, _SHOW)
    info = show.model_info or {}
    trained = info.get(f"{info.get('general.architecture')}.context_length")
    return Shown(trained if type(trained) is int and trained > 0 else None, frozenset(show.capabilities or ()))


def parse_ps(body: bytes) -> tuple[Loaded, ...]:
    """The models that are resident."""
    return tuple(decode(body, _PS).models or ())


def _unix(stamp: str | None) -> int:
    try:
        moment = msgspec.convert(stamp, datetime)
    except msgspec.ValidationError:
        return 0
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
