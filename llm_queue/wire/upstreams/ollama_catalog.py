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
    """One line of ``/api/tags``. ``created`` is in Unix seconds, 0 where Ollama does not say; a ``remote`` model runs
    elsewhere.
    """

    name: str
    digest: str
    created: int = 0
    remote: bool = False


class Shown(Struct, frozen=True):
    """What ``/api/show`` says of a model; ``trained`` is the context in tokens it was trained for, ``remote`` as in
    :class:`Tag`.
    """

    trained: int | None = None
    capabilities: frozenset[str] = frozenset()
    remote: bool = False


class Loaded(Struct, frozen=True):
    """One line of ``/api/ps``. ``context_length`` is what the runner has now; older versions do not say. ``size`` is
    what it takes in bytes, and ``size_vram`` how much of that on the GPU.
    """

    name: str
    digest: str
    context_length: int | None = None
    size: int | None = None
    size_vram: int | None = None


class _Remote(Struct):
    remote_model: str | None = None
    remote_host: str | None = None

    @property
    def remote(self) -> bool:
        return bool(self.remote_model or self.remote_host)


class _Tag(_Remote, kw_only=True):
    name: str
    digest: str = ""
    modified_at: str | None = None


class _Tags(Struct):
    models: list[_Tag] | None = None


class _Show(_Remote):
    model_info: JsonObject | None = None
    capabilities: list[str] | None = None


class _Ps(Struct):
    models: list[Loaded] | None = None


_TAGS: Final = msgspec.json.Decoder(_Tags)
_SHOW: Final = msgspec.json.Decoder(_Show)
_PS: Final = msgspec.json.Decoder(_Ps)


def parse_tags(body: bytes) -> tuple[Tag, ...]:
    """All models that are there. Raises :class:`~llm_queue.errors.UpstreamBroke`, as its two siblings do."""
    return tuple(
        Tag(tag.name, tag.digest, _unix(tag.modified_at), tag.remote or named_remote(tag.name))
        for tag in decode(body, _TAGS).models or ()
    )


def parse_show(body: bytes) -> Shown:
    """What a model can do."""
    show = decode(body, _SHOW)
    info = show.model_info or {}
    trained = info.get(f"{info.get('general.architecture')}.context_length")
    known = trained if type(trained) is int and trained > 0 else None
    return Shown(known, frozenset(show.capabilities or ()), show.remote)


def parse_ps(body: bytes) -> tuple[Loaded, ...]:
    """The models that are resident."""
    return tuple(decode(body, _PS).models or ())


def named_remote(name: str) -> bool:
    """True if a name itself says that the model runs in Ollama's cloud: its tag is ``cloud`` or ends in ``-cloud``.

    Such a model need not be in ``/api/tags``: Ollama passes on whatever is asked of it.
    """
    _, colon, tag = name.strip().casefold().rpartition("/")[2].rpartition(":")
    return bool(colon) and (tag == "cloud" or tag.endswith("-cloud"))


def _unix(stamp: str | None) -> int:
    try:
        moment = msgspec.convert(stamp, datetime)
    except msgspec.ValidationError:
        return 0
    return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
