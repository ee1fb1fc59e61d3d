"""What engines of the tests remember of prompts, as llama.cpp does: the last few, whole."""

from __future__ import annotations

from collections.abc import Sequence

from llm_queue.wire.labels import fixed_beginning, what_follows
from llm_queue.wire.shapes import Request


class PromptCache:
    """The last ``most`` prompts; 0: none, not even the one before."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[list[str]] = []  # the least recently used first

    def take(self, words: Sequence[str]) -> int:
        """How many words at the beginning of this prompt are found; from now on the prompt is kept itself.

        The last word is always computed, as an engine must to go on from it. A prompt that goes on with a kept one
        takes its place; one that only begins alike is kept beside it.
        """
        found, like = 0, None
        for kept in self._kept:
            if (alike := _alike(kept, words)) > found:
                found, like = alike, kept
        if like is not None and 2 * found >= len(like):
            self._kept.remove(like)
        self._kept.append(list(words))
        del self._kept[: max(0, len(self._kept) - self._most)]
        return min(found, max(0, len(words) - 1))

    def clear(self) -> None:
        """Nothing is kept any more."""
        self._kept.clear()


def words_of(request: Request) -> list[str]:
    """The words of a prompt, in the order of a template: system, tools, what was said."""
    return " ".join((*fixed_beginning(request), *what_follows(request))).split()


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    most = min(len(one), len(other))
    return next((at for at in range(most) if one[at] != other[at]), most)
