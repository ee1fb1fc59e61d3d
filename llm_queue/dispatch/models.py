"""What the line says of models: their contexts, how long prompts are to them, and what is loaded."""

from __future__ import annotations

from collections.abc import Callable

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.seat import Seat
from llm_queue.dispatch.fit import ContextFit
from llm_queue.errors import QueueError
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.protocol import Model, Native
from llm_queue.wire.shapes import Request


class LineModels:
    """The models of one line. Nothing here asks the upstream but :meth:`count_tokens`."""

    def __init__(
        self,
        catalog: Catalog,
        contexts: ContextSizes,
        fit: ContextFit,
        seat: Seat,
        wanted: Callable[[str], bool],
    ) -> None:
        """``wanted`` tells by a model's identity whether a job that has not ended is for it."""
        self._catalog = catalog
        self._contexts = contexts
        self._fit = fit
        self._seat = seat
        self._wanted = wanted

    @property
    def native(self) -> Native | None:
        """Ollama's own API if that is the upstream, else None."""
        return self._catalog.upstream.native

    def estimate_tokens(self, request: Request, model: Model | None) -> int:
        """About how many tokens the prompt of ``request`` has for ``model`` (None: not known yet)."""
        return self._fit.estimate(model, request)

    async def count_tokens(self, request: Request, model: Model) -> int | None:
        """How many tokens the prompt of ``request`` has for ``model``. None where the upstream cannot tell, or not
        without work, or is away. Takes no slot.
        """
        try:
            return await self._catalog.upstream.count_tokens(model, request)
        except QueueError:
            return None

    def largest_ctx(self, model: Model) -> int:
        """The largest context in tokens that the line gives ``model`` now; 0 where the upstream chooses it."""
        return self._contexts.most(model.identity, model.trained)

    def granted_ctx(self, model: Model) -> int:
        """The context in tokens that a job of ``model``, a described one, gets now if it asks for none.

        Where the upstream chooses it, that is what the upstream says of it; 0 if it says nothing.
        """
        wanted = self._contexts.wanted_ctx(None, model.trained)
        return self._contexts.key(model.identity, wanted).num_ctx or model.served or 0

    def loaded(self) -> list[tuple[Model, int]]:
        """The models of the catalogue that are resident, as far as is known, and at which context size in tokens."""
        sizes = {key.model: key.num_ctx for key in self._seat.resident}
        return [(model, sizes[model.identity]) for model in self._catalog.models() if model.identity in sizes]

    def may_unload(self, model: Model) -> bool:
        """True if ``model`` is resident and nobody else waits for it or is served by it."""
        return any(key.model == model.identity for key in self._seat.resident) and not self._wanted(model.identity)
