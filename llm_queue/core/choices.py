"""Which job of one key goes next: the choice of fair share, but for the turn of the strands that are cached.

Below the key it is the same problem as among keys: going to a strand whose prompt is not computed has a cost, so those
that are computed have a turn. Who seldom asks is not made to wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_queue.core.client_jobs import least_grade, pause_grade
from llm_queue.core.fairness import FairQueue
from llm_queue.core.jobs import Job
from llm_queue.core.reasons import Rule
from llm_queue.core.rules import OrderRules
from llm_queue.core.strands import Strands, strand_of


@dataclass(frozen=True, slots=True)
class Choice:
    """``job`` is next by ``rule``, and ``begins`` a turn of its strand when it runs. ``loses`` is how many seconds it
    loses by ending the turn of the cached ones before its time; for one of those the slot may be worth keeping.
    """

    job: Job
    rule: Rule
    begins: bool = False
    loses: float = 0.0


def choice_among(queue: FairQueue, strands: Strands, rules: OrderRules, used: float, rule: Rule) -> Choice:
    """The next job of a resident key, of which at least one waits; ``used`` seconds of its strands' turn are over.

    ``rule`` is what decides if strands do not.
    """
    fair = queue.first()
    cost = strands.cost(strand_of(fair))
    if cost <= 0:
        return Choice(fair, rule, begins=strand_of(fair) not in strands.cached)
    guests_pause = rules.guest_pause(cost)
    if used >= rules.turn_length(cost):
        return Choice(fair, rule, begins=not _pauses(fair, guests_pause))
    favoured = queue.first_among(strands.cached, guests_pause)
    if favoured is not None:
        first = strand_of(favoured) in strands.cached
        return Choice(favoured, Rule.STRAND_FIRST if first else Rule.GUEST)
    return Choice(fair, rule, begins=True, loses=cost)


def turn_before(job: Job, strands: Strands, rules: OrderRules) -> float | None:
    """How long the turn of the cached strands is that goes before this job, in seconds; None if it waits for none."""
    cost = strands.cost(strand_of(job))
    return None if cost <= 0 or _pauses(job, rules.guest_pause(cost)) else rules.turn_length(cost)


def _pauses(job: Job, seconds: float) -> bool:
    """True for a job of a program that usually pauses for ``seconds`` or longer."""
    grade = pause_grade(job.pause)
    return grade is not None and grade >= least_grade(seconds)
