"""A job's states: the table is the law, and there is one way out."""

from __future__ import annotations

import pytest

from llm_queue.core.jobs import REMEMBERED_MOVES, TRANSITIONS, IllegalTransition, Job, Lane, State
from tests.core.driver import made_job

ENDS = [state for state in State if state.ended]


def in_state(state: State) -> Job:
    job = made_job("j")
    job.state = state
    return job


def test_every_move_in_the_table_can_be_made_and_no_other() -> None:
    for before in State:
        for after in State:
            job = in_state(before)
            if after in TRANSITIONS.get(before, {}):
                job.move(after, 1.0)
                assert job.state is after
            else:
                with pytest.raises(IllegalTransition):
                    job.move(after, 1.0)
                assert job.state is before


def test_nothing_leads_out_of_an_end() -> None:
    assert set(ENDS) == {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED, State.EXPIRED}
    for end in ENDS:
        assert end not in TRANSITIONS


def test_every_end_can_be_reached_from_the_start() -> None:
    reached, todo = {State.QUEUED}, [State.QUEUED]
    while todo:
        for after in TRANSITIONS.get(todo.pop(), {}):
            if after not in reached:
                reached.add(after)
                todo.append(after)
    assert reached == set(State)


def test_a_job_that_never_ran_can_not_have_succeeded() -> None:
    assert State.SUCCEEDED not in TRANSITIONS[State.QUEUED]


def test_a_job_that_runs_does_not_expire() -> None:
    assert State.EXPIRED not in TRANSITIONS[State.RUNNING]


def test_each_run_counts_as_an_attempt_and_the_first_start_is_kept() -> None:
    job = made_job("j")
    job.move(State.RUNNING, 5.0)
    job.move(State.QUEUED, 6.0)
    job.move(State.RUNNING, 7.0)
    job.move(State.FAILED, 9.0)
    assert (job.attempts, job.started_at, job.ended_at) == (2, 5.0, 9.0)


def test_patience_ends_when_the_job_is_picked() -> None:
    job = made_job("j", now=10.0)
    assert job.expires_at is None
    job.max_wait = 2.0
    assert job.expires_at == 12.0
    job.picked = True
    assert job.expires_at is None


def test_a_job_remembers_its_last_moves_to_other_lanes() -> None:
    job = made_job("j")
    for number in range(2 * REMEMBERED_MOVES):
        job.change_lane(Lane(number % 2), float(number))
    assert job.lane is Lane.NORMAL
    assert len(job.moves) == REMEMBERED_MOVES
    assert job.moves[-2:] == ((14.0, Lane.NORMAL), (15.0, Lane.INTERACTIVE))


def test_the_higher_lane_sorts_first() -> None:
    assert sorted(Lane) == [Lane.INTERACTIVE, Lane.NORMAL, Lane.BACKGROUND]
    assert [lane.label for lane in Lane] == ["interactive", "normal", "background"]
