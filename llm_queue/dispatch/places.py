"""Where waiting jobs stand, and about when they start: the core's forecast, asked once for all who want to know."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from llm_queue.core.jobs import Job
from llm_queue.core.scheduler import Scheduler
from llm_queue.dispatch.tickets import Place

KEPT: Final = 1.0
"""Seconds for which a forecast is shown before another is made."""

FORECAST: Final = 100
"""Jobs that are forecast: some 4 ms once a second, where forecasting ten thousand takes a fifth of a second. Those
behind them are told that all others go first.
"""

FEW: Final = 500
"""Jobs that wait, up to which a status shows them as of now: forecasting the first hundred takes half a millisecond."""

PICKS: Final = ((20, 100), (FEW, 60))
"""Up to so many waiting jobs, so many picks are played for the ranges of starts; they cost some 20 us each, once or
twice. Where few wait, many are of programs that ask again.
"""

PICKS_OF_MANY: Final = 30
"""The same where more wait: with the forecast some 4 ms at ten thousand."""

SMOOTHING: Final = 8
"""Runs over which the usual run time is averaged."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A job at its ``place`` in the expected order, 0 for the one that has the slot.

    ``starts_in`` is in seconds from when the forecast was made (None: unknown), and so are the two that it probably
    starts ``between``.
    """

    job: Job
    place: int
    starts_in: float | None
    between: tuple[float, float] | None = None


class Places:
    """The expected order of one line."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._made_at = -math.inf
        self._ranged_at = -math.inf
        self._limit = 0
        self._places: dict[str, Standing] = {}
        self._usual_run = 0.0

    def ran(self, seconds: float) -> None:
        """A job ran for this number of ``seconds``."""
        self._usual_run += (seconds - self._usual_run) / (SMOOTHING if self._usual_run else 1)

    def seconds_for(self, jobs: int) -> float:
        """About how many seconds this number of ``jobs`` takes."""
        return jobs * self._usual_run

    def place(self, job: Job, now: float) -> Place:
        """Where ``job`` stands, as of at most :data:`KEPT` seconds ago."""
        slot = self._scheduler.seat.slot
        if slot is not None and slot.job is job:
            return Place(0, None, loading=slot.loading)
        if now >= self._made_at + KEPT:
            self._look_ahead(FORECAST, now)
        one, paused = self._places.get(job.id), self._scheduler.seat.pause is not None
        if one is not None:
            return Place(one.place - (slot is None), None if paused else one.starts_in, paused=paused)
        ahead = self._scheduler.waiting - 1 + (slot is not None)
        known = self._usual_run and not paused
        return Place(ahead, self.seconds_for(ahead) if known else None, paused=paused)

    def first(self, limit: int, now: float) -> list[Standing]:
        """The job that has the slot, if there is one, and those that wait: the first ``limit`` in all.

        As of now while few wait, else as of at most :data:`KEPT` seconds ago.
        """
        if not limit:
            return []
        if self._scheduler.waiting <= FEW or limit > self._limit or now >= self._made_at + KEPT:
            self._look_ahead(max(limit, FORECAST), now)
        if self._ranged_at != self._made_at:
            self._add_ranges(now)
        found = [one for one in self._places.values() if not one.job.state.ended]
        return found[:limit]

    def _add_ranges(self, now: float) -> None:
        self._ranged_at = self._made_at
        picks = next((picks for most, picks in PICKS if self._scheduler.waiting <= most), PICKS_OF_MANY)
        found = self._scheduler.estimates(now, picks)
        self._places |= {
            job: replace(self._places[job], between=(one.low, one.high))
            for job, one in found.items()
            if job in self._places
        }

    def _look_ahead(self, limit: int, now: float) -> None:
        self._made_at, self._limit = now, limit
        slot = self._scheduler.seat.slot
        found = [one for one in self._scheduler.forecast(now, limit) if not one.job.state.ended]
        first = 0 if slot is not None and found and found[0].job is slot.job else 1
        self._places = {
            one.job.id: Standing(one.job, place, one.start_in) for place, one in enumerate(found, start=first)
        }
