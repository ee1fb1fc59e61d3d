"""Where waiting jobs stand, and about when they start."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from llm_queue.core.jobs import Job, Lane
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.dispatch.tickets import Place

KEPT: Final = 1.0
"""Seconds for which the places of all jobs are not worked out again: that costs a look at every waiting job."""

SMOOTHING: Final = 8
"""Runs over which the usual run time is averaged."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A job in the order in which jobs are expected to run; ``starts_in`` is in seconds (None: unknown)."""

    job: Job
    place: int
    starts_in: float | None


class Places:
    """The expected order of one line."""

    def __init__(self, scheduler: Scheduler, seat: Seat) -> None:
        self._scheduler = scheduler
        self._seat = seat
        self._placed_at = -math.inf
        self._places: dict[str, int] = {}
        self._usual_run = 0.0

    def ran(self, seconds: float) -> None:
        """A job has run for so many ``seconds``."""
        self._usual_run += (seconds - self._usual_run) / (SMOOTHING if self._usual_run else 1)

    def seconds_for(self, jobs: int) -> float:
        """About how many seconds this number of jobs takes."""
        return jobs * self._usual_run

    def place(self, job: Job, now: float) -> Place:
        """Where ``job`` stands."""
        slot = self._seat.slot
        if slot is not None and slot.job is job:
            return Place(0, None, loading=slot.loading)
        if now >= self._placed_at + KEPT:
            self._placed_at, self._places = now, {other.id: place for place, other in enumerate(self._waiting())}
        ahead = self._places.get(job.id, 0) + (slot is not None)
        return Place(ahead, self.seconds_for(ahead) if self._usual_run else None)

    def first(self, limit: int) -> list[Standing]:
        """The job that has the slot, if any, at place 0, and those that wait, up to ``limit`` in all."""
        slot = self._seat.slot
        held = [] if slot is None else [Standing(slot.job, 0, 0.0)]
        known = self._usual_run > 0
        waiting = [
            Standing(job, place, self.seconds_for(place - 1 + len(held)) if known else None)
            for place, job in enumerate(self._waiting()[: limit - len(held)], start=1)
        ]
        return held + waiting

    def _waiting(self) -> list[Job]:
        """By lane, those that need no load first, the clients in turn, by arrival."""
        slot, resident = self._seat.slot, self._seat.resident
        waiting = [job for job in self._scheduler.waiting_jobs() if slot is None or job is not slot.job]
        waiting.sort(key=attrgetter("arrival"))
        had = Counter([(slot.job.lane, slot.job.client)] if slot is not None else [])
        ranks: dict[str, tuple[Lane, bool, int]] = {}
        for job in waiting:
            had[job.lane, job.client] += 1
            ranks[job.id] = (job.lane, job.key not in resident, had[job.lane, job.client])
        return sorted(waiting, key=lambda job: ranks[job.id])
