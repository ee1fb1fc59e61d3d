"""Why a job was picked before others: the rules of docs/scheduling.md by name."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from llm_queue.core.fairness import FairQueue
from llm_queue.core.jobs import Job


class Rule(enum.Enum):
    """The rule that decided a pick."""

    HAD_SLOT = "had_slot"
    """It had the slot when the job came that asks."""
    ONLY_ONE = "only_one"
    """No other job waited."""
    BOUND = "bound"
    """Its model was loaded for it."""
    SHARES_LOAD = "shares_load"
    """Interactive, and the model that was loaded for another job is its model too."""
    LANE_BURST = "lane_burst"
    """Its lane was passed over as often as a lane may be."""
    HIGHER_LANE = "higher_lane"
    """Jobs waited in lower lanes only."""
    TURN_GOES_ON = "turn_goes_on"
    """Its model is loaded, and the turn of the loaded models is not over."""
    TURN_OVER = "turn_over"
    """The turn was over, or nobody wanted what is loaded: the model that has waited longest is next."""
    NEW_MODEL = "new_model"
    """No load of its model was tried since the start, so it need not wait for the whole turn."""
    STRAND_FIRST = "strand_first"
    """The upstream still has the prompt of its conversation, and the turn of such conversations is not over."""
    GUEST = "guest"
    """Its program asks so seldom that it waits for no such turn."""
    FAIR_SHARE = "fair_share"
    """Its program has had the least slot time for its share."""
    FIRST_COME = "first_come"
    """It came first."""


@dataclass(frozen=True, slots=True)
class Competition:
    """What a waiting job competes with: how many other keys are wanted in its lane that are ``loaded`` or ``unloaded``,
    how many ``clients`` wait for its own there, how many jobs of its own client came ``earlier`` there, and whether
    jobs wait in a ``higher`` lane, which may go first ``passes`` more times. If no load of its model was tried, it goes
    when the turn has lasted ``first_turn`` seconds (None: one was). If its key is loaded and its prompt is not cached,
    jobs of cached strands go first until their turn has lasted ``strands_turn`` seconds (None: they do not).
    """

    loaded: int
    unloaded: int
    clients: int
    earlier: int
    passes: int
    higher: bool
    first_turn: float | None = None
    strands_turn: float | None = None


def earlier_in(queue: FairQueue, job: Job) -> int:
    """How many jobs of the same client came before this one, of those that wait in ``queue``."""
    return sum(each.client == job.client and each.arrival < job.arrival for each in queue.jobs())


def rule_within(queue: FairQueue, *, keys: int, here: bool, new: bool, lower: bool) -> Rule:
    """The rule by which the first job of ``queue`` is next in its lane; ``keys`` is how many keys are wanted there.

    ``here``: the turn goes on for a loaded key, or, if ``new``, for one that goes before them because no load of it was
    tried. ``lower``: jobs wait in lower lanes as well.
    """
    if new:
        return Rule.NEW_MODEL
    if keys > 1:
        return Rule.TURN_GOES_ON if here else Rule.TURN_OVER
    if queue.clients > 1:
        return Rule.FAIR_SHARE
    if len(queue) > 1:
        return Rule.FIRST_COME
    return Rule.HIGHER_LANE if lower else Rule.ONLY_ONE
