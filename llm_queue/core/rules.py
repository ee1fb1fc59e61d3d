"""What is asked of an order of the line, and its knobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.habits import Habits
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.reasons import Rule
from llm_queue.core.turn import Hold, Turn

GUEST_PAUSE: Final = 20.0
"""Seconds: who usually pauses for so long waits for no turn of strands, also where the rules make turns longer. It is
the longest turn by default. In a simulation with turns of 80 s, a person in an agent's lane then waits no longer."""


@dataclass(frozen=True)
class OrderRules:
    """The knobs of the line; the settings of the same names say what they mean."""

    lane_burst: int = 8
    turn_factor: float = 9.0
    switch_wait: float = 20.0
    hold: bool = True
    strands: bool = True

    def turn_length(self, cost: float) -> float:
        """Seconds of slot time for a turn that begins with a switch of ``cost`` seconds.

        The documentation calls it T.
        """
        return max(cost, min(self.turn_factor * cost, self.switch_wait))

    def guest_pause(self, cost: float) -> float:
        """Seconds for which somebody usually pauses who waits for no turn that saves ``cost`` seconds."""
        return min(self.turn_length(cost), max(cost, GUEST_PAUSE))


class Order(Protocol):
    """What the scheduler asks of an order. All times are in seconds.

    An order knows the jobs that wait. What differs from one upstream to another, it is given as that upstream's turn.
    """

    rule: Rule
    """What decided the last choice of a job."""

    habits: Habits
    """How programs call, to look ahead with."""

    def __len__(self) -> int:
        """How many jobs wait."""

    def waiting_in(self, lane: Lane) -> int:
        """How many of them wait in this lane."""

    def add(self, job: Job) -> None:
        """A job waits, for the first time or again."""

    def remove(self, job: Job) -> None:
        """A waiting job is over."""

    def choose(self, turn: Turn, now: float, *, may_hold: bool) -> Job | Hold | None:
        """The job that goes next, a hold, or None if no job waits.

        The job keeps waiting until :meth:`serve`; if it needs a load, until that is done.
        """

    def serve(self, turn: Turn, job: Job) -> None:
        """The chosen job gets the slot for an attempt."""

    def bill(
        self,
        turn: Turn,
        job: Job,
        seconds: float,
        prompt: PromptWork | None = None,
        ending: Ending | None = None,
    ) -> None:
        """The attempt of the job served last took ``seconds`` of slot time.

        ``prompt`` is what its prompt took (None: it was not answered, or that was not reported), and ``ending`` how the
        answer ended (None: not known).
        """

    def foresee(self, turn: Turn, job: Job, seconds: float) -> None:
        """Looking ahead, :meth:`bill` for an attempt whose prompt and answer are as usual."""

    def load_ended(
        self, turn: Turn, job: Job, key: RunnerKey, seconds: float, *, succeeded: bool, job_waits: bool
    ) -> None:
        """The load of ``key`` that ``job`` caused took ``seconds`` of slot time.

        If it succeeded and the job still waits, the job is bound to it: see the rules.
        """

    def arrives(self, job: Job, now: float) -> None:
        """A job was accepted; its model is known."""

    def leaves(self, job: Job, now: float, *, answered: bool) -> None:
        """A job that has arrived is over; ``answered`` is true if it succeeded."""

    def rekey(self, model: str) -> None:
        """The current context size of this model has changed."""

    def waiting(self) -> Iterable[Job]:
        """All waiting jobs, in no order."""

    def key_of(self, job: Job) -> RunnerKey:
        """What must be resident for a waiting job to run."""

    def expected_run(self, job: Job, turn: Turn | None = None) -> float | None:
        """How many seconds a run of this job will probably take; None if nothing is known.

        With a ``turn``, that is with what of its prompt has to be computed in it.
        """

    def copy(self, contexts: ContextSizes) -> Order:
        """Another order with the same jobs, to look ahead with. It has ``contexts`` for its context sizes.

        Nothing that is done to it changes a job, or this order. It is to be used only until this order changes.
        """
