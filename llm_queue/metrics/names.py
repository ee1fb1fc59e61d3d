"""Names that callers choose, bounded to the busiest few: each label value is a series that somebody has to store.

Each of the first names has a label of its own. Once the places are taken, a name that is much busier than the least
busy of those takes its place, whose series end. All other names are one, ``other``. So every series only ever grows,
and one that has ended and comes back begins at 0, which Prometheus takes for a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

OTHER: Final = "other"

CANDIDATES: Final = 8
"""Names without a place that are counted, for each place. A name that is not counted begins anew when it comes back."""

MUCH: Final = 2
"""A name takes the place of one that was used less than half as often lately."""

FORGETTING: Final = 1000
"""Uses after which all counts are halved: what was busy yesterday makes room."""


class TopNames:
    """The labels of names, ``most`` and ``other`` at a time."""

    def __init__(self, most: int, ended: Callable[[str], None]) -> None:
        """``ended`` is told of each name that has lost its place."""
        self._most = most
        self._ended = ended
        self._placed: dict[str, int] = {}
        self._others: dict[str, int] = {}
        self._uses = 0

    def use(self, name: str) -> str:
        """The label of ``name``, which is used once more now."""
        if name == OTHER:
            return OTHER  # else it could lose its place, and end what stands for all others
        self._uses += 1
        if self._uses % FORGETTING == 0:
            self._forget()
        if name in self._placed:
            self._placed[name] += 1
        elif len(self._placed) < self._most:
            self._placed[name] = 1
        else:
            self._count_other(name)
        return self.label(name)

    @property
    def placed(self) -> Iterable[str]:
        """The names that have a label of their own now."""
        return self._placed.keys()

    def label(self, name: str) -> str:
        """The label that ``name`` has now."""
        return name if name in self._placed else OTHER

    def _count_other(self, name: str) -> None:
        used = self._others[name] = self._others.get(name, 0) + 1
        least = min(self._placed, key=self._placed.__getitem__)
        if used > MUCH * self._placed[least]:
            del self._others[name], self._placed[least]
            self._placed[name] = used
            self._ended(least)
        elif len(self._others) > CANDIDATES * self._most:
            del self._others[min(self._others, key=self._others.__getitem__)]

    def _forget(self) -> None:
        self._placed = {name: used // 2 for name, used in self._placed.items()}
        self._others = {name: used // 2 for name, used in self._others.items() if used > 1}
