"""The last picks of a line: what got the slot, by which rule, and what that cost. Every explanation is cut from it.

Nothing is kept per waiting job, and nothing that a caller said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.prompts import PromptWork
from llm_queue.core.reasons import Rule
from llm_queue.core.turn import Hold, Turn

REMEMBERED: Final = 2000
"""Picks that are remembered: 40 minutes at 50 jobs a minute, in some 500 kB."""


@dataclass(slots=True)
class Pick:
    """One pick. Times are in seconds of the caller's clock, durations in seconds.

    It was made at ``at``. ``load`` is how long the load took that it caused (None: none, or it is under way, or it
    failed: see ``loading`` and ``load_failed``). ``hold`` is how long the slot had been kept free before it for
    ``held_for``. ``started`` is when the job got the slot for an attempt, and ``ended`` when that was over. ``prompt``
    is what its prompt took, where the upstream says so.
    """

    job: str
    client: str
    lane: Lane
    key: RunnerKey
    rule: Rule
    at: float
    hold: float = 0.0
    held_for: str | None = None
    loading: bool = False
    load: float | None = None
    load_failed: bool = False
    started: float | None = None
    ended: float | None = None
    prompt: PromptWork | None = None

    @property
    def over(self) -> float | None:
        """When it gave the slot back; None if it has it, or will have it for its attempt."""
        if self.ended is None and self.started is None and self.load is not None:
            return self.at + self.load
        return self.ended

    @property
    def cold_prompt(self) -> float | None:
        """Seconds that its prompt took, if the upstream had less than half of it in memory; else None."""
        return self.prompt.seconds if self.prompt is not None and self.prompt.cold else None


class Picks:
    """The log of picks. The scheduler tells it of each, and of what became of it."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._picks: deque[Pick] = deque(maxlen=most)
        self._held_for: str | None = None
        self._held_before = 0.0
        self.forgotten_until: float | None = None
        """When the last pick was made that is forgotten; None if none is."""

    def __len__(self) -> int:
        return len(self._picks)

    def none_made(self, hold: Hold | None, turn: Turn) -> None:
        """The slot is kept free by ``hold``. If None, it is just free, and a hold that ended so delayed no pick."""
        self._held_for = None if hold is None else hold.client
        if hold is None:
            self._held_before = turn.held_seconds

    def picked(self, job: Job, key: RunnerKey, rule: Rule, turn: Turn, now: float) -> None:
        """``job`` was chosen by ``rule``, and gets the slot: for its attempt if ``key`` is resident, else for a load.

        When a load was caused by the job before, its attempt belongs to that pick.
        """
        hold, self._held_before = turn.held_seconds - self._held_before, turn.held_seconds
        resident = key in turn.resident
        pick = (
            next((each for each in reversed(self._picks) if each.job == job.id), None) if rule is Rule.BOUND else None
        )
        if pick is None or pick.started is not None or not resident:
            if len(self._picks) == self._picks.maxlen:
                self.forgotten_until = self._picks[0].at
            pick = Pick(job.id, job.client, job.lane, key, rule, now, hold, self._held_for if hold > 0 else None)
            pick.loading = not resident
            self._picks.append(pick)
        if resident:
            pick.started = now
        self._held_for = None

    def load_ended(self, job: Job, seconds: float, *, succeeded: bool) -> None:
        """The load that ``job`` has caused took ``seconds``."""
        pick = self.last_of(job.id)
        if pick is not None:
            pick.loading, pick.load, pick.load_failed = False, seconds, not succeeded

    def attempt_ended(self, job: Job, prompt: PromptWork | None, now: float) -> None:
        """The attempt of ``job`` is over."""
        pick = self.last_of(job.id)
        if pick is not None:
            pick.ended, pick.prompt = now, prompt

    def last_of(self, job_id: str) -> Pick | None:
        """The last pick of this job that is remembered."""
        return next((pick for pick in reversed(self._picks) if pick.job == job_id), None)

    def latest_first(self) -> Iterator[Pick]:
        """All that are remembered."""
        return reversed(self._picks)
