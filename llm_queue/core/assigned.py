"""Which key each waiting job is queued for."""

from __future__ import annotations

from llm_queue.core.jobs import Job
from llm_queue.core.keys import RunnerKey


class AssignedKeys:
    """The keys of the jobs, kept in the jobs."""

    def __getitem__(self, job: Job) -> RunnerKey:
        assert job.key is not None
        return job.key

    def __setitem__(self, job: Job, key: RunnerKey) -> None:
        job.key = key


class KeysAhead(AssignedKeys):
    """For a copy of the order: which keys its jobs would have later, kept from the jobs."""

    def __init__(self) -> None:
        self._keys: dict[Job, RunnerKey] = {}

    def __getitem__(self, job: Job) -> RunnerKey:
        return self._keys[job] if job in self._keys else super().__getitem__(job)

    def __setitem__(self, job: Job, key: RunnerKey) -> None:
        self._keys[job] = key
