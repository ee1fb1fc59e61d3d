"""How often jobs start within the range that was shown, in virtual time: ``python -m tests.bench.estimates``.

Every job is looked at when it comes, and all that wait every five seconds, as ``GET /queue`` would show them. The
figures are the same every time; ``--write`` puts them into the documentation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from llm_queue.core.actions import Action, StartAttempt
from llm_queue.dispatch.places import Places
from llm_queue.simulate.simulation import Program, Seconds, Simulation, uniform
from llm_queue.simulate.stories import STORIES
from tests.bench.page import write_section

SHOWN: Final = 1000
"""Jobs that are looked at."""

EVERY: Final = 5.0
LOADS: Final = {"0.5 s": uniform(0.4, 0.6), "6 s": uniform(5.0, 7.0)}
SEEDS: Final = (1, 2, 3)
SECONDS: Final = 600.0

CUT: Final = 60.0
"""Seconds before the end of a story in which nobody is asked: all programs stop at its end at once, as no one does."""


@dataclass(frozen=True)
class Shown:
    """What was shown of one job at one time: how long it then took to start, and the range (None: unknown)."""

    took: float
    between: tuple[float, float] | None

    @property
    def inside(self) -> bool:
        """True if it started within the range."""
        return self.between is not None and self.between[0] <= self.took <= self.between[1]


class Watched(Simulation):
    """A simulation that somebody watches."""

    def __init__(self, programs: Iterable[Program], *, load: Seconds, seconds: float, seed: int) -> None:
        super().__init__(programs, load=load, seconds=seconds, seed=seed)
        self.shown: list[Shown] = []
        self._places = Places(self._scheduler)
        self._open: dict[str, list[tuple[float, tuple[float, float] | None]]] = {}
        self._next = EVERY

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, StartAttempt):
                opened = self._open.pop(action.job.id, ())
                self.shown += [Shown(self._now - at, between) for at, between in opened]
        super()._act(actions)
        waiting = {job.id for job in self._scheduler.waiting_jobs() if not job.picked}
        asked = waiting if self._now >= self._next else waiting - self._open.keys()
        if asked is waiting:
            self._next = self._now + EVERY
        if asked and self._now < self._seconds - CUT:
            found = {one.job.id: one.between for one in self._places.first(SHOWN, self._now)}
            for job in asked:
                self._open.setdefault(job, []).append((self._now, found[job]))


@dataclass(frozen=True)
class Figures:
    """How often was ``asked``, for which share of these a range was ``told``, and which share of the told starts fell
    ``inside`` it, or came ``earlier`` or ``later``; ``width`` is the median of the ranges in seconds.
    """

    asked: int
    told: float
    inside: float
    earlier: float
    later: float
    width: float


def figures(shown: list[Shown]) -> Figures:
    """The figures of all that was shown."""
    told = [(one.took, *one.between) for one in shown if one.between is not None]
    return Figures(
        asked=len(shown),
        told=len(told) / len(shown),
        inside=sum(low <= took <= high for took, low, high in told) / len(told),
        earlier=sum(took < low for took, low, _ in told) / len(told),
        later=sum(took > high for took, _, high in told) / len(told),
        width=median(high - low for _, low, high in told),
    )


def watched(story: str, load: Seconds, seeds: Iterable[int] = SEEDS, seconds: float = SECONDS) -> list[Shown]:
    """Play a story, and watch it."""
    shown: list[Shown] = []
    for seed in seeds:
        played = Watched(STORIES[story].programs, load=load, seconds=seconds, seed=seed)
        played.run()
        shown += played.shown
    return shown


def table() -> str:
    """All stories, as a table for the documentation."""
    lines = [
        "| story | a load takes | asked | told | starts inside | earlier | later | median width |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in STORIES:
        for label, load in LOADS.items():
            one = figures(watched(name, load))
            shares = " | ".join(f"{share:.0%}" for share in (one.told, one.inside, one.earlier, one.later))
            lines.append(f"| {name} | {label} | {one.asked} | {shares} | {one.width:.1f} s |")
    return "\n".join(lines)


def show(*, write: bool) -> None:
    """Print the table, and ``write`` it into the documentation."""
    print(found := table())
    if write:
        write_section("estimates", found, Path("docs", "scheduling.md"))


if __name__ == "__main__":
    show(write="--write" in sys.argv)
