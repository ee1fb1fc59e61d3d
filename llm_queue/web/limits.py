"""A limit of time that many waits share."""

from __future__ import annotations

import math
from collections import OrderedDict
from types import TracebackType
from typing import Final, Self

import trio

AT_ONCE: Final = 32
"""Waits that are ended in one go when several are over: a pass of the loop does not become long, and few are needed."""


class TimeLimit:
    """The same timeout for many waits at once.

    trio keeps deadlines in a heap, and rebuilds that now and then, which with ten thousand of them takes some 13 ms.
    Deadlines that are all as far away as each other come in the order in which they were set, so trio knows only the
    next one here. No wait ends before its time, and each one about then: if many are over in the same moment,
    :data:`AT_ONCE` of them in a pass of the loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Not a dict: to find the first key of that, Python walks over all that were deleted before it.
        self._deadlines: OrderedDict[trio.CancelScope, float] = OrderedDict()
        self._next: trio.CancelScope | None = None

    def scope(self) -> LimitedScope:
        """A context manager like :func:`trio.move_on_after`."""
        return LimitedScope(self)

    def begin(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the time is up from now on, unless :meth:`end` is called before."""
        self.end(scope)
        self._deadlines[scope] = trio.current_time() + self._seconds
        if self._next is None:
            self._watch_next()

    def end(self, scope: trio.CancelScope) -> None:
        """Forget ``scope``, which has no deadline then. It may have none here."""
        self._deadlines.pop(scope, None)
        if scope is self._next:
            scope.deadline = math.inf
            self._watch_next()

    def _watch_next(self) -> None:
        """End what is over by now, and set the deadline that comes next."""
        self._next = None
        now = trio.current_time()
        for _ in range(AT_ONCE):
            if not self._deadlines:
                return
            scope, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                break
            del self._deadlines[scope]
            scope.cancel()
        if self._deadlines:
            scope, deadline = next(iter(self._deadlines.items()))
            self._next, scope.deadline = scope, deadline


class LimitedScope:
    """A cancel scope of a :class:`TimeLimit`."""

    __slots__ = ("_limit", "_scope")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._scope = trio.CancelScope()

    @property
    def cancelled_caught(self) -> bool:
        """True if the block was left because its time was up."""
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
