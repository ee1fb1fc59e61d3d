"""A priority heap whose items can leave from anywhere in it."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Rank = tuple[float, int]


class RemovableHeap(Generic[Item]):
    """A priority heap from which any item can be taken out again. An item is in it once at most.

    Every operation costs amortized O(log n). A removed entry stays in the heap until it is the smallest, or until the
    removed entries outnumber the others: memory stays proportional to the number of items.
    """

    __slots__ = ("_entries", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, Item]] = []
        self._entries: dict[Item, tuple[Rank, int, Item]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: Item) -> bool:
        return item in self._entries

    def push(self, rank: Rank, item: Item) -> None:
        """Add an item that is not in it. The smallest rank comes out first; of equal ranks, the one added first."""
        self._serial += 1
        entry = (rank, self._serial, item)
        self._entries[item] = entry
        heapq.heappush(self._heap, entry)

    def remove(self, item: Item) -> None:
        """Take an item out, wherever it stands."""
        del self._entries[item]
        if len(self._heap) > 2 * len(self._entries) + 8:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def discard(self, item: Item) -> None:
        """Take an item out if it is in it."""
        if item in self:
            self.remove(item)

    def first(self) -> Item:
        """The item that is next; it stays in."""
        while True:
            entry = self._heap[0]
            if self._entries.get(entry[2]) is entry:
                return entry[2]
            heapq.heappop(self._heap)

    def rank(self, item: Item) -> Rank:
        """The rank with which an item that is in it was added."""
        return self._entries[item][0]

    def items(self) -> list[Item]:
        """All of them, in no order."""
        return list(self._entries)

    def copy(self) -> RemovableHeap[Item]:
        """Another heap with the same items."""
        twin = RemovableHeap[Item]()
        twin._heap, twin._entries, twin._serial = self._heap.copy(), self._entries.copy(), self._serial
        return twin
