"""The turn of the keys that are loaded at one upstream: how much of it is used, who has a claim to the slot, and what
their prompts have come to.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

from llm_queue.core.costs import SwitchCosts
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.prompts import PromptWork
from llm_queue.core.strands import Strands, strand_of


@dataclass(frozen=True, slots=True)
class Hold:
    """The slot is kept free until ``until``, because ``client`` is expected to ask for ``key`` again in ``lane``.

    ``label`` and ``share`` are those of its last job.
    """

    until: float
    client: str
    key: RunnerKey
    lane: Lane
    share: float = 1.0
    label: str = ""


@dataclass(slots=True)
class Turn:
    """A turn begins when a load succeeds. All keys that are resident then share it.

    ``used`` is the slot time that they have had, in seconds. ``bound`` is the job that caused the load, until it runs.
    ``cold`` is the key that was loaded, until its first run has ended. ``strands`` are those of each model of which
    prompts were reported. ``hold`` began at ``held_since``; ``holds`` and ``held_seconds`` count all holds since the
    start.
    """

    resident: frozenset[RunnerKey] = frozenset()
    costs: SwitchCosts = field(default_factory=SwitchCosts)
    strands: dict[str, Strands] = field(default_factory=dict)
    used: float = 0.0
    bound: Job | None = None
    cold: RunnerKey | None = None
    hold: Hold | None = None
    held_since: float = 0.0
    holds: int = 0
    held_seconds: float = 0.0

    def copy(self) -> Turn:
        """Another turn, the same so far."""
        strands = {model: each.copy() for model, each in self.strands.items()}
        return replace(self, costs=self.costs.copy(), strands=strands)

    def used_at(self, now: float) -> float:
        """Seconds used, with those of the hold that lasts."""
        return self.used + (min(now, self.hold.until) - self.held_since if self.hold is not None else 0.0)

    def strands_used_at(self, now: float, model: str) -> float:
        """Seconds used of the turn of this model's strands, with those of a hold on it that lasts."""
        lasts = self.hold is not None and self.hold.key.model == model
        return self.strands[model].used + (self.used_at(now) - self.used if lasts else 0.0)

    def switch_cost(self, keys: Set[RunnerKey]) -> float:
        """Seconds that going from one of these keys to another costs at most: what the costs say, or a load and the
        dearest prompt that it throws out.
        """
        costs = [self.costs.largest(keys)]
        for model in {key.model for key in keys}:
            loss = self.strands[model].largest_loss if model in self.strands else 0.0
            costs += [self.costs.load(model) + loss] if loss else []
        return max(costs)

    def begin(self, key: RunnerKey, bound: Job | None) -> None:
        """A load of ``key`` succeeded; ``bound`` is the job that caused it, if it still waits."""
        self.used = 0.0
        self.cold = key
        self.bound = bound
        self.reloaded(key.model)

    def now_resident(self, keys: frozenset[RunnerKey]) -> None:
        """These keys are loaded now. A model that has gone has lost its prompts, whoever loads it again."""
        for model in {key.model for key in self.resident} - {key.model for key in keys}:
            self.reloaded(model)
        self.resident = keys

    def reloaded(self, model: str) -> None:
        """The upstream has loaded this model: none of its prompts is computed any more."""
        if model in self.strands:
            self.strands[model].loaded()

    def bill(self, job: Job, key: RunnerKey, seconds: float, prompt: PromptWork | None) -> None:
        """An attempt of ``job`` took ``seconds`` and its ``prompt`` so much (None: not reported).

        A prompt that was cold because of a load is a part of what the load costs, and does not count to the turn.
        """
        if prompt is not None:
            self.strands.setdefault(key.model, Strands()).ran(strand_of(job), prompt, seconds)
        elif key.model in self.strands:
            self.strands[key.model].ran_unreported(strand_of(job))
        self._count(job, key, seconds, 0.0 if prompt is None else prompt.seconds)

    def foresee(self, job: Job, key: RunnerKey, seconds: float) -> None:
        """Looking ahead: ``job`` will have taken ``seconds``, and its prompt what it usually does."""
        strands = self.strands.get(key.model)
        self._count(job, key, seconds, 0.0 if strands is None else strands.prompt_seconds(strand_of(job)))
        if strands is not None:
            strands.foresee(strand_of(job))

    def _count(self, job: Job, key: RunnerKey, seconds: float, prompt_seconds: float) -> None:
        strands = self.strands.get(key.model)
        if strands is not None:
            strands.bill(job, seconds, prompt_seconds)
        cold = self.cold == key and strands is not None and strands.lost
        self.used += seconds - (min(seconds, prompt_seconds) if cold else 0.0)

    def unbind(self) -> None:
        """A new load begins or the upstream is away, so no job is bound to the last load any more."""
        self.bound = None

    def release(self, job: Job) -> None:
        """``job`` runs or is over. If it was bound to the last load, no job is now."""
        if job is self.bound:
            self.bound = None

    def change_hold(self, hold: Hold | None, now: float) -> tuple[Hold, float] | None:
        """Begin, replace or (None) end a hold.

        Returns the hold that is over and how many seconds it lasted, for its client's bill; None if none is over.
        """
        before, self.hold = self.hold, hold
        if before is None and hold is not None:
            self.holds += 1
            self.held_since = now
        if before is None or before == hold:
            return None
        seconds = min(now, before.until) - self.held_since  # an outage may have begun before the hold's end
        self.held_since = now
        self.used += seconds
        self.held_seconds += seconds
        if before.key.model in self.strands:
            self.strands[before.key.model].used += seconds
        return before, seconds
