"""An engine that is made up: it keeps the computed prompts of a few conversations, and says what each prompt took."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from llm_queue.core.prompts import PromptWork
from llm_queue.core.strands import Strand


@dataclass(frozen=True)
class Prompts:
    """What the prompts of a program take: ``cold`` seconds if the engine has nothing of it, and ``warm`` seconds if it
    still has the last one. Each has so many ``tokens``. If it ``breaks`` its own beginning, nothing is found, ever.
    A prompt that takes no time was found as a whole.
    """

    cold: float
    warm: float = 0.0
    tokens: int = 26_000
    breaks: bool = False

    @property
    def pace(self) -> float:
        """Seconds per computed token."""
        return self.cold / self.tokens


class SimulatedPromptCache:
    """The prompts of the last ``keeps`` conversations of the model that is loaded (None: of all)."""

    def __init__(self, keeps: int | None) -> None:
        self._keeps = keeps
        self._kept: OrderedDict[Strand, None] = OrderedDict()

    def clear(self) -> None:
        """A model was loaded."""
        self._kept.clear()

    def run(self, strand: Strand, prompts: Prompts) -> PromptWork:
        """What the next prompt of this conversation takes; it is kept, and the one used longest ago may go for it."""
        computed = prompts.tokens
        if not prompts.cold:
            computed = 0
        elif strand in self._kept and not prompts.breaks:
            computed = round(prompts.tokens * prompts.warm / prompts.cold)
        self._kept[strand] = None
        self._kept.move_to_end(strand)
        if self._keeps is not None and len(self._kept) > self._keeps:
            self._kept.popitem(last=False)
        return PromptWork(prompts.tokens, prompts.tokens - computed, computed * prompts.pace)
