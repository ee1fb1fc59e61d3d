"""Which requests the line takes, and the job that each becomes."""

from __future__ import annotations

import secrets

from llm_queue.core.jobs import Job
from llm_queue.core.scheduler import Scheduler
from llm_queue.dispatch.fingerprints import fingerprint, label_of
from llm_queue.dispatch.fit import ContextFit
from llm_queue.dispatch.remote import RemoteJobs
from llm_queue.dispatch.repeats import Repeats
from llm_queue.dispatch.room import Room
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import Draining
from llm_queue.settings import Settings


class Admission:
    """Refuses what the line cannot take, and makes a job of what it can. Nothing here waits.

    ``room`` and ``repeats`` are told by their owner of jobs that have ended.
    """

    def __init__(
        self, settings: Settings, scheduler: Scheduler, fit: ContextFit, remote: RemoteJobs, room: Room
    ) -> None:
        self.room = room
        self.repeats = Repeats()
        self.draining = False
        self._settings = settings
        self._scheduler = scheduler
        self._fit = fit
        self._remote = remote
        self._arrivals = 0

    def admit(self, submission: Submission, now: float) -> tuple[Job, float | None]:
        """The job that a request becomes at ``now``, and how many seconds ago the same request used up its attempts
        (None: it did not, lately). Its bytes count until :meth:`~.room.Room.give_back`.

        Raises what :meth:`~.dispatcher.Dispatcher.submit` raises.
        """
        model = submission.model
        self._refuse(submission)
        wanted_ctx, raised = self._fit.fit(submission)
        self._arrivals += 1
        failed_ago = self.repeats.failed_ago(submission, now) if self._settings.max_attempts > 1 else None
        self.room.take(submission.size)
        begun = submission.fingerprint or fingerprint(submission.request)
        job = Job(
            id=secrets.token_urlsafe(16),
            lane=submission.lane,
            client=submission.client,
            model=model.identity if model else None,
            wanted_ctx=wanted_ctx,
            fitted_ctx=wanted_ctx if raised else None,
            arrival=self._arrivals,
            submitted_at=now,
            max_wait=submission.max_wait if submission.max_wait is not None else self._settings.max_wait,
            max_attempts=None if failed_ago is None else 1,
            size=submission.size,
            share=submission.share,
            label=label_of(submission.session, begun.fixed),
        )
        return job, failed_ago

    def _refuse(self, submission: Submission) -> None:
        if self.draining:
            raise Draining(retry_after=5)
        outage = self._scheduler.seat.outage
        if outage is not None and outage.given_up:
            raise outage.error
        if submission.remote:
            self._remote.check_room()
        else:
            self.room.check_jobs(self._scheduler.waiting)
        self.room.check_bytes(submission.size, self._scheduler.waiting)
