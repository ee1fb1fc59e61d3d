"""The headers that tell a caller what became of its request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from llm_queue.core.jobs import Job
from llm_queue.errors import QueueError, UnsupportedEncoding

MOST_DROPPED: Final = 40
"""Names in ``X-LLM-Queue-Dropped``. A body may hold any number of them, and clients take some kilobytes of headers."""


def dropped_names(names: Iterable[str]) -> str:
    """The value of ``X-LLM-Queue-Dropped``: each name once, and how many there are beyond :data:`MOST_DROPPED`."""
    once = list(dict.fromkeys(names))
    more = [f"and {len(once) - MOST_DROPPED} more"] if len(once) > MOST_DROPPED else []
    return ", ".join(once[:MOST_DROPPED] + more)


def error_headers(error: QueueError) -> list[tuple[bytes, bytes]]:
    """When to ask again, and whether: an SDK repeats 409, 429 and 5xx by itself unless it is told not to."""
    headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, UnsupportedEncoding):
        headers.append((b"accept-encoding", b"gzip, deflate"))  # RFC 9110 15.5.16
    status = error.http_status
    if not error.retryable and (status in (409, 429) or status >= 500):
        headers.append((b"x-should-retry", b"false"))
    return headers


def job_headers(job: Job) -> dict[str, str]:
    """What is known of the job by the time the headers leave. Waiting and loading are counted apart."""
    headers = {"X-LLM-Queue-Job": job.id, "X-LLM-Queue-Lane": job.lane.label, "X-LLM-Queue-Attempts": str(job.attempts)}
    if job.started_at is not None:
        headers["X-LLM-Queue-Wait-Ms"] = str(round(1000 * job.waited(trio.current_time())))
        headers["X-LLM-Queue-Load-Ms"] = str(round(1000 * job.load_seconds))
    if job.max_attempts is not None:
        headers["X-LLM-Queue-Max-Attempts"] = str(job.max_attempts)
    if job.key is not None and job.key.num_ctx:
        headers["X-LLM-Queue-Num-Ctx"] = str(job.key.num_ctx)
    if job.fitted_ctx is not None:
        headers["X-LLM-Queue-Fit-Context"] = str(job.fitted_ctx)
    return headers
