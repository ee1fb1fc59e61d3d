"""What can be seen of the line from outside: the life of a job as a few named moments.

Metrics, the log and the list of finished jobs are observers, and hang nowhere else. No observer is shown a prompt or
an answer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import structlog

from llm_queue.core.jobs import Job, State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import QueueError
from llm_queue.wire.shapes import Completion

JsonObject = dict[str, Any]


class Observer(Protocol):
    """Told of every moment, in the order in which they happen. Must not block; what it raises ends the service."""

    def rejected(self, error: QueueError, client: str) -> None:
        """A request was refused; there is no job."""

    def queued(self, job: Job, submission: Submission) -> None:
        """A job was accepted."""

    def load_started(self, job: Job, key: RunnerKey) -> None:
        """The upstream is told to load."""

    def load_ended(self, job: Job, key: RunnerKey, error: QueueError | None, seconds: float) -> None:
        """It has, or has failed."""

    def attempt_started(self, job: Job, key: RunnerKey) -> None:
        """The upstream is asked."""

    def requeued(self, job: Job, error: QueueError) -> None:
        """An attempt failed, and the job waits again."""

    def ended(self, job: Job, submission: Submission, completion: Completion | None, error: QueueError | None) -> None:
        """A job has ended, in the state it has now."""

    def upstream_changed(self, reason: str | None) -> None:
        """The upstream is there (None), or is not, for this reason."""


class NullObserver:
    """An observer that does nothing: inherit, and name the moments that matter."""

    def rejected(self, error: QueueError, client: str) -> None: ...
    def queued(self, job: Job, submission: Submission) -> None: ...
    def load_started(self, job: Job, key: RunnerKey) -> None: ...
    def load_ended(self, job: Job, key: RunnerKey, error: QueueError | None, seconds: float) -> None: ...
    def attempt_started(self, job: Job, key: RunnerKey) -> None: ...
    def requeued(self, job: Job, error: QueueError) -> None: ...
    def ended(
        self, job: Job, submission: Submission, completion: Completion | None, error: QueueError | None
    ) -> None: ...
    def upstream_changed(self, reason: str | None) -> None: ...


def report(job: Job, submission: Submission, now: float) -> JsonObject:
    """A job in plain words, for ``/queue/jobs/ID`` and the log: what it was, how it went, and nothing of its text."""
    ended_at = job.ended_at if job.ended_at is not None else now
    busy = job.load_seconds + job.run_seconds
    fields: JsonObject = {
        "job": job.id,
        "request_id": submission.request_id,
        "client": job.client,
        "lane": job.lane.label,
        "model": submission.model.name if submission.model else submission.request.model,
        "num_ctx": job.key.num_ctx if job.key else None,
        "state": job.state.value,
        "attempts": job.attempts,
        "wait_s": max(0.0, ended_at - job.submitted_at - busy),
        "load_s": job.load_seconds,
        "run_s": job.run_seconds,
    }
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}


class JobLog(NullObserver):
    """One line per finished job, and one per change worth knowing."""

    def __init__(self, upstream_name: str, upstream_url: str) -> None:
        self._log = structlog.get_logger("llm_queue")
        self._upstream = f"{upstream_name} at {upstream_url}"

    def load_ended(self, job: Job, key: RunnerKey, error: QueueError | None, seconds: float) -> None:
        if error is None:
            self._log.info("loaded", job=job.id, num_ctx=key.num_ctx, load_s=round(seconds, 3))
        else:
            self._log.warning("load failed", job=job.id, num_ctx=key.num_ctx, error=error.message)

    def requeued(self, job: Job, error: QueueError) -> None:
        self._log.warning("attempt failed, waits again", job=job.id, client=job.client, error=error.message)

    def ended(self, job: Job, submission: Submission, completion: Completion | None, error: QueueError | None) -> None:
        assert job.ended_at is not None
        fields = report(job, submission, job.ended_at)
        if completion is not None:
            fields["prompt_tokens"] = completion.prompt_tokens
            fields["completion_tokens"] = completion.completion_tokens
            fields["finish"] = completion.finish_reason
        if error is not None:
            fields["code"], fields["error"] = error.code, error.message
        level = self._log.info if job.state in (State.SUCCEEDED, State.CANCELLED) else self._log.warning
        level("done" if error is None else job.state.value, **{k: v for k, v in fields.items() if k != "state"})

    def upstream_changed(self, reason: str | None) -> None:
        if reason is None:
            self._log.info(f"{self._upstream} is there")
        else:
            self._log.warning(f"{self._upstream} is not there, jobs wait for it", reason=reason)


class FinishedJobs(NullObserver):
    """The last finished jobs, so that somebody can still ask how theirs went."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._reports: OrderedDict[str, JsonObject] = OrderedDict()

    def find(self, job_id: str) -> JsonObject | None:
        """The report of a job that has ended lately."""
        return self._reports.get(job_id)

    def ended(self, job: Job, submission: Submission, completion: Completion | None, error: QueueError | None) -> None:
        assert job.ended_at is not None
        self._reports[job.id] = report(job, submission, job.ended_at) | {
            "code": error.code if error else None,
            "error": error.message if error else None,
        }
        while len(self._reports) > self._most:
            self._reports.popitem(last=False)
