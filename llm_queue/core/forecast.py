"""The order in which the waiting jobs will be picked, and when, if nothing else comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_queue.core.jobs import Job, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.rules import Order
from llm_queue.core.seat import Seat
from llm_queue.core.turn import Hold

UNKNOWN_RUN: Final = 1.0
"""Seconds that a run is taken to last before any has ended. It only matters for the order: no start that depends on it
is told."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a job will run.

    ``start_in`` is in seconds from now: 0 if it runs, None if it is not known. ``load`` is true if its model has to be
    loaded for it first; the load is within ``start_in``.
    """

    job: Job
    start_in: float | None
    load: bool


def forecast(order: Order, seat: Seat, now: float, limit: int, *, may_hold: bool) -> list[Forecast]:
    """The first ``limit`` jobs: the one that has the slot, then those that wait, as they will be picked.

    That is so if nothing else comes, each run takes as long as usual and succeeds, each load takes as long as the last
    one of its model and evicts what is resident, and the upstream takes work as soon as it can. Jobs that will have
    waited longer than their max wait are in it all the same. In a pause no start is known.
    """
    ahead = Ahead(order, seat, now)
    found: list[Forecast] = []
    slot, first = seat.slot, None
    if slot is not None and slot.loading:
        waits = slot.job.state is State.QUEUED
        ahead.load(slot.job, slot.key, slot.since, waits=waits)
        if waits:
            first = slot.job
            found.append(Forecast(first, ahead.start_in, load=True))
    elif slot is not None:
        found.append(Forecast(slot.job, 0.0, load=False))
        ahead.run(slot.job, slot.since)
    if seat.unloading or (seat.pause is not None and seat.pause.unload):
        ahead.turn.resident = frozenset()
    loaded_for = None
    while len(found) < limit:
        job = ahead.choose(may_hold=may_hold)
        if job is None:
            break
        key = ahead.order.key_of(job)
        if key not in ahead.turn.resident:
            ahead.turn.unbind()
            ahead.load(job, key, ahead.at, waits=True)
            loaded_for = job
            continue
        if job is first:
            found[0] = Forecast(job, ahead.start_in, load=True)
        else:
            found.append(Forecast(job, ahead.start_in, load=job is loaded_for))
        ahead.order.serve(ahead.turn, job)
        ahead.run(job, ahead.at)
    return found[:limit]


class Ahead:
    """Copies of the order and the turn, ``at`` some time to come."""

    def __init__(self, order: Order, seat: Seat, now: float) -> None:
        self.at = now if seat.busy_until is None else max(now, seat.busy_until)
        self.contexts = seat.contexts.copy()
        self.order = order.copy(self.contexts)
        self.turn = seat.turn.copy()
        self._now = now
        self._known = seat.pause is None and seat.outage is None

    @property
    def start_in(self) -> float | None:
        return self.at - self._now if self._known else None

    def choose(self, *, may_hold: bool) -> Job | None:
        while isinstance(chosen := self.order.choose(self.turn, self.at, may_hold=may_hold), Hold):
            self.at = chosen.until
        return chosen

    def load(self, job: Job, key: RunnerKey, since: float, *, waits: bool) -> None:
        seconds = self._pass(self.turn.costs.load(key.model), since)
        self.turn.resident = self.contexts.loaded(key, [key])
        self.order.rekey(key.model)
        self.order.load_ended(self.turn, job, key, seconds, succeeded=True, job_waits=waits)

    def run(self, job: Job, since: float) -> None:
        expected = self.order.expected_run(job, self.turn)
        self._known = self._known and expected is not None
        seconds = self._pass(UNKNOWN_RUN if expected is None else expected, since)
        self.order.foresee(self.turn, job, seconds)
        self.order.leaves(job, self.at, answered=True)

    def _pass(self, expected: float, since: float) -> float:
        """Go to the end of what began at ``since``, but not back, and return how many seconds it took."""
        self.at = max(self.at, since + expected)
        return self.at - since
