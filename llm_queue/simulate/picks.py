"""What a recorded line did, as a table: ``llm-queue simulate --trace FILE``."""

from __future__ import annotations

from collections.abc import Iterable

from llm_queue.core.actions import StartAttempt
from llm_queue.core.trace import replay


def picks(lines: Iterable[str]) -> str:
    """Every pick of a trace, in order; times in seconds.

    Raises :class:`~llm_queue.core.trace.WrongTrace` if it cannot be read or comes out otherwise today.
    """
    head = f"{'start':>9}  {'job':<10}  {'client':<20}  {'lane':<11}  {'model':<20}  {'waited':>8}  {'load':>7}"
    rows, began = [head], None
    loaded: dict[str, float] = {}
    for step in replay(lines):
        began = step.at if began is None else began
        for action in step.actions:
            if isinstance(action, StartAttempt):
                job = action.job
                load = job.load_seconds - loaded.get(job.id, 0.0)
                loaded[job.id] = job.load_seconds
                waited = step.at - job.submitted_at - job.run_seconds
                rows.append(
                    f"{step.at - began:>9.3f}  {job.id[:10]:<10}  {job.client[:20]:<20}  {job.lane.label:<11}  "
                    f"{action.key.model[:20]:<20}  {waited:>8.3f}  {load:>7.3f}"
                )
    return "\n".join([*rows, f"{len(rows) - 1} picks, the same as when they were recorded."])
