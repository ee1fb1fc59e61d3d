"""The turn of the keys that are loaded at one upstream: how much of it is used, and who has a claim to the slot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from llm_queue.core.costs import SwitchCosts
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey


@dataclass(frozen=True, slots=True)
class Hold:
    """The slot is kept free until ``until``, because ``client`` is expected to ask for ``key`` again in ``lane``.

    ``share`` is that of its last job.
    """

    until: float
    client: str
    key: RunnerKey
    lane: Lane
    share: float = 1.0


@dataclass(slots=True)
class Turn:
    """A turn begins when a load succeeds. All keys that are resident then share it.

    ``used`` is the slot time that they have had, in seconds. ``bound`` is the job that caused the load, until it runs.
    ``cold`` is the key that was loaded, until its first run has ended. ``hold`` began at ``held_since``; ``holds`` and
    ``held_seconds`` count all holds since the start.
    """

    resident: frozenset[RunnerKey] = frozenset()
    costs: SwitchCosts = field(default_factory=SwitchCosts)
    used: float = 0.0
    bound: Job | None = None
    cold: RunnerKey | None = None
    hold: Hold | None = None
    held_since: float = 0.0
    holds: int = 0
    held_seconds: float = 0.0

    def copy(self) -> Turn:
        """Another turn, the same so far."""
        return replace(self, costs=self.costs.copy())

    def used_at(self, now: float) -> float:
        """Seconds used, with those of the hold that lasts."""
        return self.used + (min(now, self.hold.until) - self.held_since if self.hold is not None else 0.0)

    def begin(self, key: RunnerKey, bound: Job | None) -> None:
        """A load of ``key`` succeeded; ``bound`` is the job that caused it, if it still waits."""
        self.used = 0.0
        self.cold = key
        self.bound = bound

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
        return before, seconds
