"""What the line asks of an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

import msgspec

from llm_queue.core.keys import RunnerKey
from llm_queue.wire.shapes import Completion, Piece, Request


class Model(msgspec.Struct, frozen=True):
    """A model of the upstream's catalogue.

    ``identity`` is equal for all names of the same weights (Ollama: the digest). ``trained`` is the largest context
    in tokens that the weights were trained for, or None when the upstream does not say. ``created`` is in Unix seconds.
    ``served`` is the context in tokens that an upstream which chooses it itself says to have, or None.
    ``remote``: it runs elsewhere, so that nothing of it is ever loaded here, and it takes nothing from those that are.
    """

    name: str
    identity: str
    trained: int | None = None
    capabilities: frozenset[str] = frozenset()
    created: int = 0
    served: int | None = None
    remote: bool = False


class Size(NamedTuple):
    """How many ``bytes`` a loaded model takes, and how many of them on the GPU (None: not said)."""

    bytes: int | None
    vram: int | None


NO_SIZES: Final[Mapping[str, Size]] = MappingProxyType({})
"""Of an engine that does not say."""


class Upstream(Protocol):
    """One engine. All calls may be cancelled at any time and then leave nothing running at the engine:
    ``load`` and ``run`` return or raise only after the engine's side of the connection was seen closed
    (or two seconds later), so that the next request never overlaps with this one. An engine that is ours and has not
    stopped by then is killed, and not resident any more.

    Every call raises :class:`~llm_queue.errors.UpstreamUnreachable` when no connection can be made.
    """

    name: str
    """What people call this engine, for messages: "Ollama"."""

    url: str
    """Where it is, for messages. Callers read these: it is no path of a file."""

    chooses_context: bool
    """False if there is no context size to choose: then every ``num_ctx`` of a runner key is 0, whatever was asked."""

    default_model: str
    """The model for requests that name none, unless a setting names one; empty for the first of the catalogue."""

    more_models: str
    """How to get another model, as one sentence for messages."""

    sizes: Mapping[str, Size]
    """What each loaded model takes, by its identity, as :meth:`resident` last found it; empty where nobody says."""

    @property
    def native(self) -> Native | None:
        """Ollama's own API where the engine is one, else None."""

    def check(self, request: Request) -> tuple[str, ...]:
        """The names of fields of ``request`` that this upstream leaves out, because it has no such thing.

        Asks nobody. Raises :class:`~llm_queue.errors.BadRequest`, with the field as its ``param``, for a request that
        it could only answer wrongly or not at all. ``run`` is given only what was checked.
        """

    def unlisted(self, name: str) -> Model | None:
        """The model of a name that need not be in the catalogue, because it runs elsewhere; None for any other name.

        Asks nobody, and nothing more is asked about such a model.
        """

    async def models(self) -> list[Model]:
        """The catalogue: names and identities, without what costs a question per model."""

    async def describe(self, model: Model) -> Model:
        """The same model with ``trained`` and ``capabilities`` filled in."""

    async def count_tokens(self, model: Model, request: Request) -> int | None:
        """How many tokens the prompt of ``request`` has for ``model``, exactly, or None where it cannot be said without
        model work. May be asked while a request runs, and loads nothing.
        """

    async def resident(self) -> frozenset[RunnerKey]:
        """What is loaded now. Loads nothing and may be asked while a request runs."""

    async def probe(self) -> None:
        """Return if the engine answers; raise otherwise. Loads nothing."""

    async def load(self, model: Model, num_ctx: int) -> None:
        """Make the model resident at that size.

        Raises :class:`~llm_queue.errors.LoadFailed` with the engine's text, and
        :class:`~llm_queue.errors.ConnectionLost` when the engine itself went away meanwhile.
        """

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        """Ask, hand each piece of the answer to ``emit`` as it arrives, and return its true end.

        A ``remote`` model has no context (``num_ctx`` is 0), and is asked on a connection of its own, while other runs
        and loads go on.
        Which kind of request it is decides what is asked: a chat and a text are answered with
        :class:`~llm_queue.wire.shapes.Delta` pieces, an embed with one :class:`~llm_queue.wire.shapes.Vectors`, a load
        or unload with none.
        ``emit`` is called without a checkpoint in between; an exception it raises ends the run as a cancellation would.
        For what is held back until it is whole, as a call is, it is given :data:`~llm_queue.wire.shapes.ALIVE`.
        Raises :class:`~llm_queue.errors.PromptTooLong` (the engine has counted more than fits),
        :class:`~llm_queue.errors.UpstreamRefused` (the engine said 4xx, as it does for a kind of request that
        the model cannot serve), :class:`~llm_queue.errors.UpstreamBusy` (it said 503),
        :class:`~llm_queue.errors.UpstreamBroke` (it said another 5xx, or the answer ended before its end), and
        :class:`~llm_queue.errors.EngineDied` (an engine of ours ended or had to be killed over this request; also in
        place of a cancellation).
        """

    async def aclose(self) -> None:
        """Close every connection."""


class NativeAnswer(msgspec.Struct, frozen=True):
    """What an Ollama said, whatever its status."""

    status: int
    media_type: str
    body: bytes


class Native(Protocol):
    """Ollama's own API, for what has nothing to do with the line: what it knows of its models, and changing them.

    Both raise :class:`~llm_queue.errors.UpstreamUnreachable` and :class:`~llm_queue.errors.ConnectionLost`.
    """

    async def ask(self, method: str, path: str, body: bytes = b"", *, program: str = "") -> NativeAnswer:
        """A question that loads nothing. ``program`` is the caller's ``User-Agent``, by which Ollama knows some."""

    async def relay(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        begin: Callable[[int, str], Awaitable[None]],
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """A request whose ``body`` is sent as it comes, and its answer likewise, on a connection of their own.

        ``begin`` gets the status and the media type of the answer, then ``write`` each piece of its body. Cancelled, it
        closes the connection, which ends the request at Ollama too.
        """
