"""What bounds the wait of a job: the numbers of this moment, for the bounds of docs/scheduling.md.

While something has the slot, they are as they will be when that is over, as far as that is known: what is loaded then,
and whose prompts the upstream will have.
"""

from __future__ import annotations

from llm_queue.core.forecast import Ahead
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.order import TurnOrder
from llm_queue.core.seat import Occupant, Seat
from llm_queue.core.strands import strand_of
from llm_queue.core.turn import Turn
from llm_queue.dispatch.wordings import TurnNow, bound, bound_to_load


def bound_of(job: Job, seat: Seat, order: TurnOrder, now: float) -> str | None:
    """What bounds the wait of a job that waits, as a sentence; None if nothing does or it is not known.

    Nothing does in a pause, which people end, and in an outage. The job for which a load goes on waits for that only.
    """
    slot = seat.slot
    if job.key is None or (slot is not None and slot.job is job):  # it is not in the line yet
        return None
    if seat.pause is not None or seat.outage is not None:
        return None
    order, turn = _then(seat, order, now)
    key, competition, length = order.key_of(job), order.competition(turn, job), order.turn_length(turn)
    if turn.bound is job and key in turn.resident:
        return bound_to_load(0 if job.lane is Lane.INTERACTIVE else competition.passes)
    due = length if competition.first_turn is None else min(length, competition.first_turn)
    running = None if slot is None or slot.loading else slot
    hold = seat.hold
    shown = TurnNow(
        left=max(0.0, due - _used(turn, running, now)) if turn.resident else 0.0,
        length=length,
        cost=order.switch_cost(turn),
        loading=slot is not None and slot.loading,
        strands_left=max(0.0, (competition.strands_turn or 0.0) - _strands_used(turn, key.model, running, now)),
        held_for=None if hold is None else hold.client,
        held=0.0 if hold is None else max(0.0, hold.until - now),
    )
    expires_in = None if job.expires_at is None else max(0.0, job.expires_at - now)
    return bound(competition, shown, resident=key in turn.resident, expires_in=expires_in)


def _then(seat: Seat, order: TurnOrder, now: float) -> tuple[TurnOrder, Turn]:
    """Copies of the order and the turn, as they are when what has the slot is over."""
    ahead, slot = Ahead(order, seat, now), seat.slot
    assert isinstance(ahead.order, TurnOrder)  # it is a copy of ours
    if slot is not None and slot.loading:
        ahead.load(slot.job, slot.key, slot.since, waits=slot.job.state is State.QUEUED)
    elif seat.unloading:
        ahead.turn.resident = frozenset()
    runs = slot is not None and (not slot.loading or ahead.turn.bound is slot.job)
    if slot is not None and runs and slot.key.model in ahead.turn.strands:
        ahead.turn.strands[slot.key.model].foresee(strand_of(slot.job))
    return ahead.order, ahead.turn


def _used(turn: Turn, running: Occupant | None, now: float) -> float:
    """Seconds used of the turn of keys. How much of what runs is a prompt that does not count to it, its end will say:
    until then, none of it counts.
    """
    if running is None:
        return turn.used_at(now)
    strands = turn.strands.get(running.key.model)
    cold = turn.cold == running.key and strands is not None and strands.lost
    return turn.used_at(now) + (0.0 if cold else now - running.since)


def _strands_used(turn: Turn, model: str, running: Occupant | None, now: float) -> float:
    """Seconds used of the turn of this model's strands. The job to which a load is bound begins another."""
    strands = turn.strands.get(model)
    if strands is None or (turn.bound is not None and turn.bound.model == model):
        return 0.0
    counts = running is not None and running.key.model == model and running.job is not strands.opening
    return turn.strands_used_at(now, model) + (now - running.since if running is not None and counts else 0.0)
