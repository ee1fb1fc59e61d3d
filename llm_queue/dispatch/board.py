"""What is shown of the line beside who waits: what is loaded, the turn, the last hour, and why jobs wait."""

from __future__ import annotations

import msgspec
import trio

from llm_queue.core.jobs import Job
from llm_queue.core.order import TurnOrder
from llm_queue.core.scheduler import Scheduler
from llm_queue.dispatch.attempts import Entry
from llm_queue.dispatch.explanations import Explanations
from llm_queue.dispatch.history import History
from llm_queue.dispatch.insight import HoldStatus, Insight, LoadedModel, TurnStatus
from llm_queue.dispatch.observe import FinishedJobs, Observers
from llm_queue.dispatch.status import JobReport
from llm_queue.errors import QueueError
from llm_queue.upstream.catalog import Catalog


class Board:
    """What one line has to show. It changes nothing of the line, and waits for nothing."""

    def __init__(
        self, scheduler: Scheduler, order: TurnOrder, catalog: Catalog, observers: Observers, remembered: int
    ) -> None:
        """``order`` is the scheduler's; ``remembered`` is how many finished jobs are."""
        self.history = History(trio.current_time)
        self._scheduler = scheduler
        self._order = order
        self._catalog = catalog
        self.finished = FinishedJobs(remembered)
        self._explanations = Explanations(scheduler, order, self._name_of, remembered)
        observers.add(self.finished)
        observers.add(self.history)

    def ended(self, job: Job, report: JobReport, error: QueueError | None) -> None:
        """A job has ended as ``report`` says: remember why it waited."""
        code = None if error is None else error.code
        self._explanations.ended(job, trio.current_time(), remote=report.remote is True, code=code)

    def explained(self, report: JobReport, entry: Entry | None) -> JobReport:
        """The report of a job with why it waits or waited. ``entry`` is what belongs to it while it lives."""
        if entry is None:
            explanation = self._explanations.of_ended(report.job)
        else:
            now, remote = trio.current_time(), report.remote is True
            explanation = self._explanations.of_live(entry.job, now, remote=remote)
        return report if explanation is None else msgspec.structs.replace(report, explanation=explanation)

    def insight(self) -> Insight:
        """What is to be seen now."""
        now, seat = trio.current_time(), self._scheduler.seat
        turn, hold, slot = seat.turn, seat.hold, seat.slot
        ongoing = now - slot.since if slot is not None and not slot.loading else 0.0
        sizes = self._catalog.upstream.sizes
        return Insight(
            models=tuple(
                LoadedModel(
                    name=self._name_of(key.model),
                    num_ctx=key.num_ctx,
                    size_bytes=sizes[key.model].bytes if key.model in sizes else None,
                    vram_bytes=sizes[key.model].vram if key.model in sizes else None,
                )
                for key in sorted(seat.resident)
            ),
            turn=TurnStatus(
                used_s=turn.used_at(now) + ongoing,
                length_s=self._order.turn_length(turn),
                cost_s=self._order.switch_cost(turn),
            ),
            hold=None
            if hold is None
            else HoldStatus(client=hold.client, model=self._name_of(hold.key.model), until_in_s=hold.until - now),
            lanes=self.history.lanes(),
            programs=self.history.programs(),
            cold_prompts=self.history.cold_prompts(),
        )

    def _name_of(self, identity: str) -> str:
        names = (model.name for model in self._catalog.models() if model.identity == identity)
        return next(names, identity)
