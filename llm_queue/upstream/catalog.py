"""Which models there are, what their names mean, and how large a context each was trained for."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec
import trio

from llm_queue.errors import ModelNotFound, QueueError, UpstreamRefused
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import Request

MAX_NAMED: Final = 20
"""Models that a ModelNotFound lists: a message, not a catalogue."""

REGISTRIES: Final = ("registry.ollama.ai/", "registry/")
"""Beginnings of names in full: the place where a model comes from that has no other place in its name."""

T = TypeVar("T")


class Catalog:
    """The upstream's models, remembered: a name that is known costs no question.

    Asked again when a name is not found and by :meth:`refresh` (after an outage), and once per identity for what its
    weights can do. Those who miss at the same time share one question. Safe to cancel: a caller that leaves while it
    asks on behalf of others is replaced by the next of them.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._listed: dict[str, Model] = {}
        self._described: dict[str, Model] = {}
        self._listing = _Shared[None]()
        self._describing: dict[str, _Shared[Model]] = {}

    def lookup(self, name: str) -> Model | None:
        """The model of that name with all that is known of it, or None if it would take a question to say so."""
        listed = self._find(name)
        described = listed and self._described.get(listed.identity)
        if listed is None or described is None:
            return None
        return msgspec.structs.replace(listed, trained=described.trained, capabilities=described.capabilities)

    async def resolve(self, name: str) -> Model:
        """The model of that name, described; of no name, the first there is.

        Raises :class:`~llm_queue.errors.ModelNotFound` with the names that are there, and what the upstream raises
        when it cannot be asked (:class:`~llm_queue.errors.UpstreamUnreachable`).
        """
        if (known := self.lookup(name)) is not None:
            return known
        listed = self._find(name)
        if listed is None:
            await self.refresh()
            listed = self._find(name)
        if listed is None:
            raise self._not_found(name)
        described = await self._describe(listed)
        return msgspec.structs.replace(listed, trained=described.trained, capabilities=described.capabilities)

    async def refresh(self) -> None:
        """Ask the upstream which models it has; together with whoever is asking just now."""
        await self._listing.do(self._list)

    def check(self, request: Request) -> tuple[str, ...]:
        """What the upstream leaves out of a request: see :meth:`llm_queue.upstream.protocol.Upstream.check`."""
        return self.upstream.check(request)

    def models(self) -> list[Model]:
        """The models of the last answer, in the upstream's order."""
        return list(self._listed.values())

    def _find(self, name: str) -> Model | None:
        return self._listed.get(canonical(name)) if name else next(iter(self._listed.values()), None)

    async def _list(self) -> None:
        listed = {canonical(model.name): model for model in await self.upstream.models()}
        identities = {model.identity for model in listed.values()}
        self._listed = listed
        for remembered in (self._described, self._describing):
            for gone in remembered.keys() - identities:
                del remembered[gone]

    async def _describe(self, listed: Model) -> Model:
        if (known := self._described.get(listed.identity)) is not None:
            return known
        question = self._describing.setdefault(listed.identity, _Shared())
        try:
            described = await question.do(lambda: self.upstream.describe(listed))
        except UpstreamRefused as refusal:
            if refusal.http_status != 404:
                raise
            self._listed.pop(canonical(listed.name), None)  # it was deleted since it was listed
            raise self._not_found(listed.name) from refusal
        self._described[listed.identity] = described
        return described

    def _not_found(self, name: str) -> ModelNotFound:
        names = [model.name for model in self._listed.values()]
        if not names:
            there = "The upstream has no models yet"
        else:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            there = "There are: " + ", ".join(names[:MAX_NAMED]) + more
        return ModelNotFound(
            f"model {name!r} not found. {there}. {self.upstream.more_models}", param="model", model=name
        )


def canonical(name: str) -> str:
    """What a name is compared by: like Ollama's own, ``x`` is ``X:latest`` and ``library/x``, also in full."""
    name = name.strip().casefold()
    for registry in REGISTRIES:
        name = name.removeprefix(registry)
    name = name.removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


class _Shared(Generic[T]):
    """One question for all tasks that ask at the same time: they share its answer or its error.

    If the caller who asks is cancelled, the next one asks in its place.
    """

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._rounds = 0
        self._result: Callable[[], T]

    async def do(self, ask: Callable[[], Awaitable[T]]) -> T:
        round_at_call = self._rounds
        async with self._turn:
            if self._rounds == round_at_call:
                self._result = await _outcome(ask)
                self._rounds += 1
            return self._result()


async def _outcome(ask: Callable[[], Awaitable[T]]) -> Callable[[], T]:
    """What ``ask`` returned or raised, to be had more than once."""
    try:
        answer = await ask()
    except QueueError as error:
        failure = error  # each gets a copy: a traceback belongs to one task

        def fail() -> T:
            raise copy.copy(failure)

        return fail
    return lambda: answer
