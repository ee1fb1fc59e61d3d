"""Requests that failed a moment ago.

An SDK that looks only at the status sends a request again after a 502 or 504, however often the line has tried it
already: a program with six attempts of its own would run the model twelve times. So a request that comes again soon
after all its attempts were used up is tried once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from typing import Final

import msgspec

from llm_queue.core.jobs import Job
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import QueueError, UpstreamUnreachable

REMEMBERED_FOR: Final = 60.0
"""Seconds: longer than SDKs pause between two of their attempts, shorter than a person takes to mend something."""

REMEMBERED: Final = 256
"""Failures that are kept; the oldest are forgotten first."""


class Repeats:
    """The requests whose attempts were lately used up, by client: salted hashes, nothing that can be read back."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._failed: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    def used_up(
        self, job: Job, submission: Submission, error: QueueError, failed_ago: float | None, now: float
    ) -> QueueError:
        """The error to tell of a ``job`` that has ended with ``error``.

        Where it used up its attempts, its request is remembered. Where it had fewer of them, because the same request
        had failed ``failed_ago`` seconds before, the error says so. SDKs repeat what ended with 502 or 504; a stream of
        which a piece had arrived has ended with status 200.
        """
        outage = isinstance(error, UpstreamUnreachable)  # what ended the job was no attempt
        if not job.attempts or job.committed or job.cancel_requested or outage or error.http_status not in (502, 504):
            return error
        self.note(submission, now)
        if failed_ago is None:
            return error
        return error.saying(
            f"{error.message} It was tried once only, because the same request failed {failed_ago:.0f} s before."
        )

    def note(self, submission: Submission, now: float) -> None:
        """All attempts of this request are used up."""
        key = self._key(submission)
        self._failed[key] = now
        self._failed.move_to_end(key)
        if len(self._failed) > REMEMBERED:
            self._failed.popitem(last=False)

    def failed_ago(self, submission: Submission, now: float) -> float | None:
        """How many seconds ago the same request of the same client failed, if that was lately; else None."""
        while self._failed and next(iter(self._failed.values())) < now - REMEMBERED_FOR:
            self._failed.popitem(last=False)
        if all(client != submission.client for client, _ in self._failed):
            return None  # so that a large request need not be hashed
        failed_at = self._failed.get(self._key(submission))
        return None if failed_at is None else now - failed_at

    def _key(self, submission: Submission) -> tuple[str, bytes]:
        request = msgspec.msgpack.encode(submission.request)
        return submission.client, hashlib.blake2b(request, digest_size=16, key=self._salt).digest()
