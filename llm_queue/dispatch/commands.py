"""What people order: cancel a job, move it to another lane, pause and resume the line, drain it.

Each becomes an event of the scheduler, made in the line's own task: what it is decided by still holds when it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from llm_queue.core.events import Event, Left, Moved, Paused, Resumed, UnloadEnded
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.seat import Seat
from llm_queue.core.verdict import NOT_THE_JOBS_FAULT
from llm_queue.dispatch.admission import Admission
from llm_queue.dispatch.attempts import Entry
from llm_queue.dispatch.moments import (
    Failure,
    JobEnded,
    JobMoved,
    Moment,
    PauseEnded,
    PauseStarted,
    UnloadFinished,
)
from llm_queue.dispatch.observe import Observers
from llm_queue.dispatch.remote import RemoteJobs
from llm_queue.dispatch.status import PauseStatus, pause_status
from llm_queue.dispatch.steps import Step
from llm_queue.dispatch.supersede import Supersession
from llm_queue.dispatch.unload import unload_all
from llm_queue.errors import AlreadyEnded, AlreadyRunning, CancelledByHand, Draining, QueueError
from llm_queue.upstream.catalog import Catalog

SOON: Final = 3.0
"""Seconds for which an order is waited out: an upstream has closed a given-up attempt within two."""


class Commands:
    """The orders of people to one line. Those who wait for one may be cancelled; it is carried out all the same.

    ``drain_ordered`` is set when the process is to drain and end.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        seat: Seat,
        catalog: Catalog,
        remote: RemoteJobs,
        observers: Observers,
        admission: Admission,
        post: Callable[[Step], None],
    ) -> None:
        """``entries`` has the jobs that live. ``post`` has the line's own task call an order, which must not raise."""
        self.drain_ordered = trio.Event()
        self.supersession = Supersession(post, remote)
        self._entries = entries
        self._seat = seat
        self._catalog = catalog
        self._remote = remote
        self._observers = observers
        self._admission = admission
        self._post = post
        self._ends: dict[str, trio.Event] = {}
        self._unloaded = trio.Event()
        observers.add(self.supersession)
        observers.add(self._see)

    async def cancel(self, job_id: str) -> State:
        """End a job; its caller is told that it was cancelled by hand. Returns its state, which is an end unless the
        upstream takes more than :data:`SOON` seconds to let go of it.

        Raises :class:`~llm_queue.errors.AlreadyEnded`.
        """
        ended = self._ends.setdefault(job_id, trio.Event())
        jobs: list[Job] = []

        def order() -> Event | None:
            entry = self._living(job_id)
            jobs.append(entry.job)
            if entry.remote:
                self._remote.leave(entry.job, CancelledByHand())
                return None
            return Left(entry.job, CancelledByHand())

        try:
            await self._give(order)
            with trio.move_on_after(SOON):
                await ended.wait()
        finally:
            self._ends.pop(job_id, None)
        return jobs[0].state

    async def move(self, job_id: str, lane: Lane) -> None:
        """Put a waiting job into another lane.

        Raises :class:`~llm_queue.errors.AlreadyEnded` or :class:`~llm_queue.errors.AlreadyRunning`.
        """
        jobs: list[Job] = []

        def order() -> Event:
            entry = self._living(job_id)
            if entry.job.state is not State.QUEUED or entry.remote:
                raise AlreadyRunning
            jobs.append(entry.job)
            return Moved(entry.job, lane)

        await self._give(order)
        self._observers.tell(JobMoved(job_id, jobs[0].client, lane))

    async def pause(self, *, unload: bool) -> PauseStatus | None:
        """Start nothing more; ``unload``: unload what is loaded, as soon as nothing runs.

        If nothing runs now, it returns when that is done, or after :data:`SOON` seconds. Raises
        :class:`~llm_queue.errors.Draining`.
        """
        before = self._seat.pause
        if self._unloaded.is_set():
            self._unloaded = trio.Event()

        def order() -> Event:
            if self._admission.draining:
                raise Draining
            return Paused(unload)

        await self._give(order)
        if before is None or unload:
            self._observers.tell(PauseStarted(unload))
        if self._seat.unloading:
            with trio.move_on_after(SOON):
                await self._unloaded.wait()
                await self._give(lambda: None)  # its event was taken before this
        return self.paused()

    async def resume(self) -> None:
        """End the pause, if there is one. It loads nothing by itself."""
        pause = self._seat.pause
        await self._give(Resumed)
        if pause is not None:
            self._observers.tell(PauseEnded(trio.current_time() - pause.since))

    def drain(self) -> int:
        """Have the process do what a SIGTERM has it do. Returns how many jobs have not ended yet."""
        self.drain_ordered.set()
        return len(self._entries)

    def paused(self) -> PauseStatus | None:
        """How the line is paused, if it is."""
        return pause_status(self._seat.pause, trio.current_time())

    async def unload(self) -> UnloadEnded:
        """The line's work for :class:`~llm_queue.core.actions.Unload`."""
        ended = await unload_all(self._catalog)
        if ended.outcome not in NOT_THE_JOBS_FAULT:  # else it is tried again
            self._observers.tell(UnloadFinished(Failure.of(ended.error) if ended.error else None))
            self._unloaded.set()
        return ended

    def _living(self, job_id: str) -> Entry:
        entry = self._entries.get(job_id)
        if entry is None or entry.job.state.ended:
            raise AlreadyEnded
        return entry

    async def _give(self, order: Step) -> None:
        """Return when the line has taken the order. Raises the ``QueueError`` that the order raises."""
        taken, refusals = trio.Event(), list[QueueError]()

        def take() -> Event | None:
            taken.set()
            try:
                return order()
            except QueueError as refusal:
                refusals.append(refusal)
                return None

        self._post(take)
        await taken.wait()
        if refusals:
            raise refusals[0]

    def _see(self, moment: Moment) -> None:
        if isinstance(moment, JobEnded) and moment.report.job in self._ends:
            self._ends[moment.report.job].set()
