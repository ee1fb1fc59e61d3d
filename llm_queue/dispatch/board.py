"""What is shown of the line beside who waits: what is loaded, the turn, the last hour, and why jobs wait."""

from __future__ import annotations

import msgspec
import trio

from llm_queue.core.jobs import Job
from llm_queue.core.order import TurnOrder
from llm_queue.core.scheduler import Scheduler
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
        self._finished = FinishedJobs(remembered)
        self._explanations = Explanations(scheduler, order, self._name_of, remembered)
        observers.add(self._finished)
        observers.add(self.history)

    def ended(self, job: Job, report: JobReport, error: QueueError | None) -> None:
        """A job has ended as ``report`` says: remember why it waited."""
        code = None if error is None else error.code
        self._explanations.ended(job, trio.current_time(), remote=report.remote is True, code=code)

    def find_ended(self, job_id: str) -> JobReport | None:
        """The report of a job that has ended lately, with why it waited."""
        report = self._finished.find(job_id)
        explanation = self._explanations.of_ended(job_id)
        if report is None or explanation is None:
            return report
        return msgspec.structs.replace(report, explanation=explanation)

    def explained(self, report: JobReport, job: Job) -> JobReport:
        """The report of a job that lives, with why it waits or has waited."""
        explanation = self._explanations.of_live(job, trio.current_time(), remote=report.remote is True)
        return msgspec.structs.replace(report, explanation=explanation)

    def last_finished(self) -> tuple[JobReport, ...]:
        """The jobs that ended last, the latest first."""
        return self._finished.last()

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
