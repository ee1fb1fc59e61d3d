"""The core of a line, as the settings want it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import trio

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.order import TurnOrder
from llm_queue.core.rules import OrderRules
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.trace import RecordedScheduler
from llm_queue.core.verdict import RetryLimits
from llm_queue.settings import Settings


def rules_of(settings: Settings) -> OrderRules:
    """The knobs of the order; the settings have the same names."""
    return OrderRules(**{knob.name: getattr(settings, knob.name) for knob in fields(OrderRules)})


def new_core(
    settings: Settings, trace: Callable[[str], object] | None, *, chooses_context: bool
) -> tuple[TurnOrder, Scheduler]:
    """An order and its scheduler. ``trace`` gets every line of a trace; None: nothing is recorded.

    ``chooses_context`` is false for an upstream whose contexts are its own affair.
    """
    floor, ceiling = (settings.num_ctx, settings.num_ctx_ceiling) if chooses_context else (0, 0)
    contexts = ContextSizes(floor, ceiling)
    order = TurnOrder(rules_of(settings), contexts)
    limits = RetryLimits(settings.max_attempts, settings.outage_wait, settings.first_outage_wait)
    made_with = (order, Seat(contexts, trio.current_time()), limits)
    return order, RecordedScheduler(*made_with, trace) if trace else Scheduler(*made_with)
