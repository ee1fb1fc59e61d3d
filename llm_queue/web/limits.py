"""A limit of time that many waits share."""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType
from typing import Self

import trio


class TimeLimit:
    """The same number of seconds for many waits at once.

    trio keeps deadlines in a heap, and rebuilds that now and then, which with ten thousand of them takes some 13 ms.
    Waits of the same length end in the order in which they began, so only the oldest one has a deadline here.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: OrderedDict[trio.CancelScope, float] = OrderedDict()

    def wait(self) -> Wait:
        """A context manager like :func:`trio.move_on_after`, which leaves its block when the time is up."""
        return Wait(self)

    def begin(self, scope: trio.CancelScope) -> None:
        """The block of ``scope`` has begun."""
        self._deadlines[scope] = trio.current_time() + self._seconds
        if len(self._deadlines) == 1:
            self._watch_oldest()

    def end(self, scope: trio.CancelScope) -> None:
        """The block of ``scope`` is over."""
        oldest = next(iter(self._deadlines)) is scope
        del self._deadlines[scope]
        if oldest:
            self._watch_oldest()

    def _watch_oldest(self) -> None:
        for scope, deadline in self._deadlines.items():
            scope.deadline = deadline
            return


class Wait:
    """One wait."""

    __slots__ = ("_limit", "_scope")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._scope = trio.CancelScope()

    @property
    def over(self) -> bool:
        """True if the block was left because the time was up."""
        return self._scope.cancelled_caught

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._limit.begin(self._scope)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._limit.end(self._scope)
        return self._scope.__exit__(kind, error, traceback)
