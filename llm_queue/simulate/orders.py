"""Simpler ways of ordering the line, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.habits import Habits
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.reasons import Rule
from llm_queue.core.rules import Order
from llm_queue.core.turn import Hold, Turn


class Simple:
    """The orders that the line is compared with, in a few lines each.

    ``lanes``: a higher lane goes first. ``grouping``: the resident key goes on while anybody wants it. Arrival decides
    the rest; without either this is first come, first served.
    """

    def __init__(self, contexts: ContextSizes, *, lanes: bool, grouping: bool) -> None:
        self._contexts = contexts
        self._lanes = lanes
        self._grouping = grouping
        self._waiting: dict[str, Job] = {}
        self.rule = Rule.FIRST_COME
        self.habits = Habits()

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting_in(self, lane: Lane) -> int:
        return sum(job.lane is lane for job in self._waiting.values())

    def add(self, job: Job) -> None:
        job.key = self.key_of(job)
        self._waiting[job.id] = job

    def remove(self, job: Job) -> None:
        del self._waiting[job.id]

    def choose(self, turn: Turn, now: float, *, may_hold: bool) -> Job | Hold | None:
        def rank(job: Job) -> tuple[int, bool, int]:
            return (
                job.lane if self._lanes else 0,
                self._grouping and self.key_of(job) not in turn.resident,
                job.arrival,
            )

        return min(self._waiting.values(), key=rank, default=None)

    def serve(self, turn: Turn, job: Job) -> None:
        self.remove(job)

    def bill(
        self,
        turn: Turn,
        job: Job,
        seconds: float,
        prompt: PromptWork | None = None,
        ending: Ending | None = None,
    ) -> None: ...
    def foresee(self, turn: Turn, job: Job, seconds: float) -> None: ...
    def load_ended(
        self, turn: Turn, job: Job, key: RunnerKey, seconds: float, *, succeeded: bool, job_waits: bool
    ) -> None: ...
    def arrives(self, job: Job, now: float) -> None: ...
    def leaves(self, job: Job, now: float, *, answered: bool) -> None: ...

    def rekey(self, model: str) -> None: ...

    def waiting(self) -> Sequence[Job]:
        return list(self._waiting.values())

    def key_of(self, job: Job) -> RunnerKey:
        assert job.model is not None
        return self._contexts.key(job.model, job.wanted_ctx)

    def expected_run(self, job: Job, turn: Turn | None = None) -> float | None:
        return None

    def copy(self, contexts: ContextSizes) -> Simple:
        twin = Simple(contexts, lanes=self._lanes, grouping=self._grouping)
        twin._waiting = self._waiting.copy()
        return twin


def first_come(contexts: ContextSizes) -> Order:
    """First come, first served: what Ollama does by itself."""
    return Simple(contexts, lanes=False, grouping=False)


def priority_only(contexts: ContextSizes) -> Order:
    """Higher lanes first, then arrival: what HAProxy can do."""
    return Simple(contexts, lanes=True, grouping=False)


def grouping(contexts: ContextSizes) -> Order:
    """Higher lanes first, then whoever needs no load, without any bound: what llama-swap does."""
    return Simple(contexts, lanes=True, grouping=True)
