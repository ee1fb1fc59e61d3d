"""The jobs of one client: by arrival, by label, by how long it pauses."""

from __future__ import annotations

from math import inf

import hypothesis.strategies as st
from hypothesis import given

from llm_queue.core.client_jobs import ClientJobs, least_grade, pause_grade
from llm_queue.core.jobs import Job
from tests.core.driver import made_job

pauses = st.one_of(st.just(0.0), st.just(inf), st.floats(0.001, 100_000.0))


@given(pause=pauses, seconds=st.floats(0.001, 100_000.0))
def test_nobody_counts_to_those_who_pause_for_so_long_who_does_not(pause: float, seconds: float) -> None:
    grade = pause_grade(pause)
    within = 0.05 < seconds < 30_000.0
    if grade is not None and within and grade >= least_grade(seconds):
        assert pause >= seconds * (1 - 1e-6)
    if within and pause >= 1.2 * seconds:
        assert grade is not None
        assert grade >= least_grade(seconds), "a quarter of an octave is the most that is lost"


def test_twenty_seconds_and_its_doubles_are_told_apart_exactly() -> None:
    for seconds in (5.0, 10.0, 20.0, 40.0):
        grade, shorter = pause_grade(seconds), pause_grade(seconds - 0.01)
        assert grade is not None
        assert shorter is not None
        assert shorter < least_grade(seconds) == grade


jobs = st.lists(st.tuples(st.sampled_from("xyz"), pauses), min_size=1, max_size=30)


@given(made=jobs, gone=st.sets(st.integers(0, 29)), copied=st.booleans())
def test_the_first_is_found_whatever_is_asked_for(made: list[tuple[str, float]], gone: set[int], copied: bool) -> None:
    found, left = ClientJobs(), list[Job]()
    for number, (label, pause) in enumerate(made):
        job = made_job(str(number), arrival=number)
        job.label, job.pause = label, pause
        found.push(job)
        left.append(job)
    if copied:
        found = found.copy()
    for job in [job for job in left if job.arrival in gone]:
        found.remove(job)
        left.remove(job)
    assert len(found) == len(left)
    assert set(found.items()) == set(left)
    if left:
        assert found.first() is left[0]
    for label in "xyz":
        assert found.first_of(label) is next((job for job in left if job.label == label), None)
    for seconds in (0.1, 5.0, 20.0):
        grade = least_grade(seconds)
        those = [job for job in left if (own := pause_grade(job.pause)) is not None and own >= grade]
        assert found.first_from(grade) is next(iter(those), None)
    assert set(found.grades) == {pause_grade(job.pause) for job in left} - {None}
