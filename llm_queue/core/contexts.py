"""One context size per model.

An engine reloads a model when a request names another context size, larger or smaller. So all requests of a model
carry its one current size, which grows with what is asked for and never shrinks while the process lives.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_queue.core.keys import RunnerKey


class ContextSizes:
    """The current size of every model, in tokens, between ``floor`` and ``ceiling``."""

    def __init__(self, floor: int, ceiling: int) -> None:
        self.floor = floor
        self.ceiling = ceiling
        self._current: dict[str, int] = {}
        self._limit: dict[str, int] = {}
        self._reported: dict[RunnerKey, RunnerKey] = {}

    def copy(self) -> ContextSizes:
        """Other sizes, the same so far."""
        twin = ContextSizes(self.floor, self.ceiling)
        twin._current, twin._limit, twin._reported = self._current.copy(), self._limit.copy(), self._reported.copy()
        return twin

    def wanted_ctx(self, asked: int | None, trained: int | None) -> int:
        """What a job needs that asked for so much, of a model that was trained for so much (None: not known)."""
        return min(max(self.floor, asked or 0), trained or self.ceiling, self.ceiling)

    def key(self, model: str, wanted_ctx: int) -> RunnerKey:
        """What must be resident for a job of this model with this wanted_ctx, as of now."""
        return RunnerKey(model, max(wanted_ctx, self._current.get(model, 0)))

    def limit(self, model: str) -> int | None:
        """The largest size that this model can be loaded at, if a larger one has failed."""
        limit = self._limit.get(model)
        return None if limit is None else max(limit, self._current.get(model, 0))

    def loaded(self, key: RunnerKey, reported: Iterable[RunnerKey]) -> frozenset[RunnerKey]:
        """A load of ``key`` succeeded and the engine then showed ``reported``: what is resident, in our terms.

        An engine may show another size than it was asked for (it clamps, or says nothing). Believing it would load
        the model again for every job, so what it shows for this model stands for the key from now on.
        """
        self._current[key.model] = max(key.num_ctx, self._current.get(key.model, 0))
        self._reported = {other: mine for other, mine in self._reported.items() if mine.model != key.model}
        self._reported |= {other: key for other in reported if other.model == key.model and other != key}
        return self.translate(reported) | {key}

    def failed(self, key: RunnerKey) -> int | None:
        """A load of ``key`` failed. If that was a raise, the last good size is the model's limit now, and returned."""
        current = self._current.get(key.model)
        if current is None or current >= key.num_ctx:
            return None
        self._limit[key.model] = current
        return current

    def adopt(self, reported: Iterable[RunnerKey]) -> frozenset[RunnerKey]:
        """Take over what was loaded before us, rather than load it again. Returns what is resident, in our terms."""
        resident = self.translate(reported)
        for key in resident:
            if self.floor <= key.num_ctx <= self.ceiling:
                self._current[key.model] = max(key.num_ctx, self._current.get(key.model, 0))
        return resident

    def translate(self, reported: Iterable[RunnerKey]) -> frozenset[RunnerKey]:
        """What the engine shows, in our terms."""
        return frozenset(self._reported.get(key, key) for key in reported)
