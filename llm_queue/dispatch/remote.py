"""Jobs whose models run elsewhere: they go straight through, beside the line.

Such a model takes nothing of this machine's: it is never loaded and never has the slot, and no job of the line waits
for it. What the line promises its callers holds all the same: each job ends once, its caller's leaving ends its request
at the upstream, an attempt has its limits in time, and one that broke is repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from llm_queue.core.events import AttemptEnded
from llm_queue.core.jobs import Job, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.verdict import NOT_THE_JOBS_FAULT, verdict
from llm_queue.dispatch.attempts import Attempts, Entry
from llm_queue.dispatch.moments import AttemptFinished, AttemptStarted, Failure, JobRequeued
from llm_queue.dispatch.observe import Observers
from llm_queue.dispatch.status import RemoteStatus, model_name
from llm_queue.errors import LineFull, QueueError

MOST: Final = 16
"""Requests under way at once: each has a connection to the upstream of its own, and nobody waits for another."""


class RemoteJobs:
    """The jobs beside the line."""

    def __init__(
        self,
        attempts: Attempts,
        observers: Observers,
        settle: Callable[[Job, QueueError | None], None],
        max_attempts: int,
    ) -> None:
        """``settle`` is told of each job that has ended. A job is tried ``max_attempts`` times, unless it says less."""
        self._attempts = attempts
        self._observers = observers
        self._settle = settle
        self._max_attempts = max_attempts
        self._running: dict[str, Entry] = {}
        self._ended: Counter[State] = Counter()

    def check_room(self) -> None:
        """Raises :class:`~llm_queue.errors.LineFull` if no more may run now."""
        if len(self._running) >= MOST:
            raise LineFull(
                f"{MOST} requests to models that run elsewhere are under way, and more are not allowed. Ask later.",
                retry_after=5,
            )

    def enter(self, entry: Entry) -> None:
        """The job was accepted: it counts as running from now on. :meth:`serve` must follow."""
        self._running[entry.job.id] = entry

    def leave(self, job: Job, error: QueueError) -> None:
        """The caller has left, or the job is to end: close its request, and blame ``error``."""
        entry = self._running.get(job.id)
        if entry is not None and not job.cancel_requested:
            job.cancel_requested = True
            entry.abort(error)

    def stop(self, error: QueueError) -> None:
        """End them all with ``error``."""
        for entry in list(self._running.values()):
            self.leave(entry.job, error)

    async def serve(self, entry: Entry) -> None:
        """Run a job to its end, and settle it."""
        job = entry.job
        assert job.model is not None
        state, error = State.QUEUED, None
        while state is State.QUEUED:
            state, error = await self._try(entry, RunnerKey(job.model, 0))
            if state is State.QUEUED and error is not None:
                job.move(State.QUEUED, trio.current_time())
                self._observers.tell(JobRequeued(job.id, job.client, Failure.of(error)))
        job.move(state, trio.current_time())
        del self._running[job.id]
        self._ended[state] += 1
        self._settle(job, error)

    def status(self) -> RemoteStatus:
        """How many there are, and were."""
        return RemoteStatus(
            running=len(self._running), ended={state.value: number for state, number in self._ended.items()}
        )

    async def _try(self, entry: Entry, key: RunnerKey) -> tuple[State, QueueError | None]:
        job, began = entry.job, trio.current_time()
        job.move(State.RUNNING, began)
        job.busy_since = began
        name = model_name(entry.submission)
        self._observers.tell(AttemptStarted(job.id, job.client, name, key.num_ctx, job.attempts))
        event: AttemptEnded = await self._attempts.attempt(entry, key)
        seconds = trio.current_time() - began
        job.busy_since = None
        job.run_seconds += seconds
        job.committed = job.committed or event.committed
        self._observers.tell(AttemptFinished(job.id, event.outcome, seconds))
        # A job of the line waits such an end out. Beside it there is no order to keep, and the caller may decide.
        if event.outcome in NOT_THE_JOBS_FAULT and not job.cancel_requested:
            return State.FAILED, event.error
        return verdict(event, job, job.max_attempts or self._max_attempts)
