"""One context size per model.

An upstream reloads a model when a request names another context size, larger or smaller. So all requests of a model
carry its one current size. It grows with what is asked for, and never shrinks while the process lives.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_queue.core.keys import RunnerKey


class ContextSizes:
    """The current context size of each model, in tokens, between ``floor`` and ``ceiling``."""

    def __init__(self, floor: int, ceiling: int) -> None:
        self.floor = floor
        self.ceiling = ceiling
        self._current: dict[str, int] = {}
        self._limit: dict[str, int] = {}
        self._reported: dict[RunnerKey, RunnerKey] = {}

    def copy(self) -> ContextSizes:
        """An independent copy, which later changes of this one leave as it is."""
        twin = ContextSizes(self.floor, self.ceiling)
        twin._current, twin._limit, twin._reported = self._current.copy(), self._limit.copy(), self._reported.copy()
        return twin

    def wanted_ctx(self, asked: int | None, trained: int | None) -> int:
        """Context size in tokens for a job: what it ``asked`` for (None: nothing), at least the floor, at most
        ``trained`` (None: unknown) and the ceiling.
        """
        return min(max(self.floor, asked or 0), trained or self.ceiling, self.ceiling)

    def fitting(self, tokens: int, most: int) -> int:
        """Context size for a prompt and its answer of that many ``tokens`` together: the floor, doubled until they fit,
        and at most ``most``. Doubling keeps the sizes few: each new one costs a load.
        """
        size = self.floor
        while size < min(tokens, most):
            size *= 2
        return min(size, most)

    def most(self, model: str | None, trained: int | None) -> int:
        """The largest context size in tokens that ``model`` (None: not known yet) can have: what it was ``trained`` for
        (None: unknown), the ceiling, or what could be loaded.
        """
        limit = None if model is None else self.limit(model)
        return min(trained or self.ceiling, self.ceiling, limit or self.ceiling)

    def key(self, model: str, wanted_ctx: int) -> RunnerKey:
        """The key that must be resident for a job of ``model`` that needs ``wanted_ctx`` tokens: that size, or the
        model's current one if it is larger.
        """
        return RunnerKey(model, max(wanted_ctx, self._current.get(model, 0)))

    def limit(self, model: str) -> int | None:
        """The largest size in tokens that ``model`` can be loaded at; None if no larger one has failed."""
        limit = self._limit.get(model)
        return None if limit is None else max(limit, self._current.get(model, 0))

    def loaded(self, key: RunnerKey, reported: Iterable[RunnerKey]) -> frozenset[RunnerKey]:
        """A load of ``key`` succeeded, and the upstream then ``reported`` what is loaded. Returns the resident keys.

        An upstream may report another size than it was asked for (it clamps, or does not say). Taken literally, that
        would load the model again for every job. So what it reports for this model stands for ``key`` from now on.
        """
        self._current[key.model] = max(key.num_ctx, self._current.get(key.model, 0))
        self._reported = {other: mine for other, mine in self._reported.items() if mine.model != key.model}
        self._reported |= {other: key for other in reported if other.model == key.model and other != key}
        return self.translate(reported) | {key}

    def failed(self, key: RunnerKey) -> int | None:
        """A load of ``key`` failed. Returns the model's last good size in tokens if that was a raise, else None.

        The last good size is the model's limit from now on.
        """
        current = self._current.get(key.model)
        if current is None or current >= key.num_ctx:
            return None
        self._limit[key.model] = current
        return current

    def adopt(self, reported: Iterable[RunnerKey]) -> frozenset[RunnerKey]:
        """Take over the sizes of what was loaded before this process, so that it is not loaded again.

        Returns the resident keys.
        """
        resident = self.translate(reported)
        for key in resident:
            if self.floor <= key.num_ctx <= self.ceiling:
                self._current[key.model] = max(key.num_ctx, self._current.get(key.model, 0))
        return resident

    def translate(self, reported: Iterable[RunnerKey]) -> frozenset[RunnerKey]:
        """The keys that the upstream's ``reported`` ones stand for."""
        return frozenset(self._reported.get(key, key) for key in reported)
