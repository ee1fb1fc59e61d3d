"""Which models there are, what their names mean, and how large a context each was trained for."""

from __future__ import annotations

import copy
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar

import msgspec
import trio

from llm_queue.errors import (
    ConnectionLost,
    ModelNotFound,
    QueueError,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.upstream.aliases import SETTING, Aliases, advice
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import Request

DESCRIBE_ALL: Final = 2.0
"""Seconds that describing the whole catalogue may take in one go. Ollama takes some milliseconds for each model."""

MAX_NAMED: Final = 20
"""Models that a ModelNotFound lists: a message, not a catalogue."""

REGISTRIES: Final = ("registry.ollama.ai/", "registry/")
"""Beginnings of names in full: the place where a model comes from that has no other place in its name."""

TRUST: Final = 10.0
"""Seconds for which a list of models says that a name is not in it, so that an alias answers without a question. A
model that is pulled under an aliased name is found after that."""

PAUSE: Final = 0.1
"""Seconds between two questions for the list of models. Who asks sooner waits: names that nobody has, and programs that
look at the list all the time, would cost the upstream a question each."""

T = TypeVar("T")


class Catalog:
    """The upstream's models, remembered: a name that is known costs no question.

    Asked again when a name is not found and by :meth:`refresh` (after an outage), and once per identity for what its
    weights can do. Those who miss at the same time share one question. Safe to cancel: a caller that leaves while it
    asks on behalf of others is replaced by the next of them.

    A name that the upstream does not have may be an alias of one that it has.
    """

    def __init__(self, upstream: Upstream, aliases: Iterable[tuple[str, str]] = ()) -> None:
        """``aliases`` are pairs of a name, or a pattern of names, and a model's name: see :class:`.Aliases`."""
        self.upstream = upstream
        self._aliases = Aliases(aliases)
        self._listed_at = self._asked_at = -math.inf
        self._listed: dict[str, Model] = {}
        self._described: dict[str, Model] = {}
        self._indescribable: set[str] = set()
        self._listing = _Shared[None]()
        self._describing: dict[str, _Shared[Model]] = {}

    def lookup(self, name: str) -> Model | None:
        """The model of that name with all that is known of it, or None if it would take a question to say so."""
        listed = self._find(name)
        if listed is None:
            return self.upstream.unlisted(name)
        described = self._described.get(listed.identity)
        return None if described is None else _joined(listed, described)

    async def resolve(self, name: str) -> Model:
        """The model of that name, described; of no name, the first there is; of an alias, the model that it stands for.

        Raises :class:`~llm_queue.errors.ModelNotFound` with the names that are there, and what the upstream raises
        when it cannot be asked (:class:`~llm_queue.errors.UpstreamUnreachable`).
        """
        if (known := self.lookup(name)) is not None:
            return known
        listed = self._find(name)
        if listed is None and trio.current_time() - self._listed_at < TRUST:
            listed = self._find_alias(name)
        if listed is None:
            await self.refresh()
            listed = self._find(name) or self._find_alias(name)
        if listed is None:
            raise self._not_found(name)
        return _joined(listed, await self._describe(listed))

    async def refresh(self) -> None:
        """Ask the upstream which models it has; together with whoever is asking just now, and :data:`PAUSE` seconds
        after the last question.
        """
        await self._listing.do(self._list_later)

    async def missing(self, model: Model, name: str) -> ModelNotFound | None:
        """Ask whether the upstream still has ``model``. Returns the error for whoever asked for it as ``name`` if not.

        Raises what the upstream raises when it cannot be asked.
        """
        await self.refresh()
        gone = self._find(model.name) is None and self.upstream.unlisted(model.name) is None
        return self._not_found(name) if gone else None

    async def describe_all(self) -> None:
        """Have as many models as possible described, within :data:`DESCRIBE_ALL` seconds; the next call goes on.

        Each is asked about once: what is known then costs no question any more, and neither does a model that the
        upstream cannot describe. Raises nothing: :meth:`lookup` knows those that are described.
        """
        with trio.move_on_after(DESCRIBE_ALL):
            for model in self.models():
                if model.identity in self._described or model.identity in self._indescribable:
                    continue
                try:
                    await self._describe(model)
                except (UpstreamUnreachable, UpstreamBusy, ConnectionLost):
                    return  # that says nothing of the model
                except QueueError:
                    self._indescribable.add(model.identity)

    def check(self, request: Request) -> tuple[str, ...]:
        """What the upstream leaves out of a request: see :meth:`llm_queue.upstream.protocol.Upstream.check`."""
        return self.upstream.check(request)

    def models(self) -> list[Model]:
        """The models of the last answer, in the upstream's order, and behind them the aliases that are whole names."""
        aliases = [
            msgspec.structs.replace(model, name=name)
            for name, target in self._aliases.exact()
            if (model := self._find(target)) is not None and self._find(name) is None
        ]
        return [*self._listed.values(), *aliases]

    def _find(self, name: str) -> Model | None:
        return self._listed.get(canonical(name)) if name else next(iter(self._listed.values()), None)

    def _find_alias(self, name: str) -> Model | None:
        found = self._aliases.find(name) if name else None
        return self._find(found[1]) if found else None

    async def _list_later(self) -> None:
        await trio.sleep_until(self._asked_at + PAUSE)
        try:
            await self._list()
        finally:
            self._asked_at = trio.current_time()

    async def _list(self) -> None:
        listed = {canonical(model.name): model for model in await self.upstream.models()}
        identities = {model.identity for model in listed.values()}
        self._listed = listed
        self._indescribable &= identities
        self._listed_at = trio.current_time()
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
        sentences = [self._whose_fault(name), there]
        if names and not self._aliases.find(name):
            default = self._find(self.upstream.default_model)
            sentences.append(advice(name, default.name if default else names[0]))
        text = ". ".join(filter(None, sentences))
        return ModelNotFound(f"{text}. {self.upstream.more_models}", param="model", model=name)

    def _whose_fault(self, name: str) -> str:
        alias = self._aliases.find(name)
        if alias is None:
            return f"model {name!r} not found"
        return (
            f"model {name!r} not found, and neither is {alias[1]!r}, which {SETTING} {alias[0]}={alias[1]} names for it"
        )


def _joined(listed: Model, described: Model) -> Model:
    """What the catalogue says of a name, and of its weights."""
    return msgspec.structs.replace(
        listed,
        trained=described.trained,
        capabilities=described.capabilities,
        remote=listed.remote or described.remote,
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
