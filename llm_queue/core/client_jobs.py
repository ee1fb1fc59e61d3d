"""The waiting jobs of one client: by arrival, by label, and by how long it pauses before it asks."""

from __future__ import annotations

import math
from typing import Final

from llm_queue.core.heap import RemovableHeap
from llm_queue.core.jobs import Job

_ANCHOR: Final = 20.0
_STEPS: Final = 4
"""Pauses are told apart by a quarter of an octave; 20 s, the longest turn by default, is the edge of a grade."""

_GRADES: Final = (-40, 44)
"""The lowest and the highest grade: pauses of 0.02 s and of eleven hours."""

_ROUNDING: Final = 1e-9


def pause_grade(pause: float) -> int | None:
    """The grade of a pause of ``pause`` seconds; None if it is too short for any."""
    if pause <= 0:
        return None
    if math.isinf(pause):
        return _GRADES[1]
    grade = math.floor(_STEPS * math.log2(pause / _ANCHOR) + _ROUNDING)
    return min(grade, _GRADES[1]) if grade >= _GRADES[0] else None


def least_grade(seconds: float) -> int:
    """The lowest grade whose pauses are all at least ``seconds``."""
    grade = math.ceil(_STEPS * math.log2(max(seconds, 1e-6) / _ANCHOR) - _ROUNDING)
    return max(_GRADES[0], min(grade, _GRADES[1]))


class ClientJobs:
    """Jobs of one client that need the same key and are in the same lane. Each operation costs O(log n)."""

    __slots__ = ("_by_arrival", "_by_grade", "_by_label")

    def __init__(self) -> None:
        self._by_arrival: RemovableHeap[Job] = RemovableHeap()
        self._by_label: dict[str, RemovableHeap[Job]] = {}
        self._by_grade: dict[int, RemovableHeap[Job]] = {}

    def __len__(self) -> int:
        return len(self._by_arrival)

    @property
    def grades(self) -> list[int]:
        """The grades of its jobs, each once."""
        return list(self._by_grade)

    def push(self, job: Job) -> None:
        """A job comes in."""
        rank = (job.arrival, 0)
        self._by_arrival.push(rank, job)
        self._by_label.setdefault(job.label, RemovableHeap()).push(rank, job)
        grade = pause_grade(job.pause)
        if grade is not None:
            self._by_grade.setdefault(grade, RemovableHeap()).push(rank, job)

    def remove(self, job: Job) -> None:
        """A job goes, wherever it stands."""
        self._by_arrival.remove(job)
        self._by_label[job.label].remove(job)
        if not self._by_label[job.label]:
            del self._by_label[job.label]
        grade = pause_grade(job.pause)
        if grade is not None:
            self._by_grade[grade].remove(job)
            if not self._by_grade[grade]:
                del self._by_grade[grade]

    def first(self) -> Job:
        """The job that came first."""
        return self._by_arrival.first()

    def first_of(self, label: str) -> Job | None:
        """The job with this label that came first."""
        jobs = self._by_label.get(label)
        return None if jobs is None else jobs.first()

    def first_from(self, grade: int) -> Job | None:
        """The job that came first among those of this grade and of higher ones."""
        firsts = [jobs.first() for found, jobs in self._by_grade.items() if found >= grade]
        return min(firsts, key=lambda job: job.arrival, default=None)

    def items(self) -> list[Job]:
        """All of them, in no order."""
        return self._by_arrival.items()

    def copy(self) -> ClientJobs:
        """Others, the same so far."""
        twin = ClientJobs()
        twin._by_arrival = self._by_arrival.copy()
        twin._by_label = {label: jobs.copy() for label, jobs in self._by_label.items()}
        twin._by_grade = {grade: jobs.copy() for grade, jobs in self._by_grade.items()}
        return twin
