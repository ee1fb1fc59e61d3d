"""A story to simulate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_queue.simulate.simulation import Program

LOAD_COSTS: Final = (0.5, 6.0)
"""Seconds: a small model from memory, a large one from disk."""


@dataclass(frozen=True)
class Story:
    """Some programs, played for ``seconds``. ``title`` says which, and ``shows`` what to look at in the table.

    The engine ``keeps`` the prompts of so many conversations (None: of all). It is played once for each of ``loads``,
    the seconds that a load takes, unless others are asked for.
    """

    title: str
    shows: str
    programs: tuple[Program, ...]
    seconds: float = 600.0
    keeps: int | None = None
    loads: tuple[float, ...] = LOAD_COSTS

    @property
    def has_prompts(self) -> bool:
        """True if prompts take time in it."""
        return any(program.prompts for program in self.programs)
