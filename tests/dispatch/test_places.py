"""Where waiting jobs stand, and how often that is worked out."""

from __future__ import annotations

import pytest

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import Left, ProbeEnded, Submitted
from llm_queue.core.forecast import Forecast
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import TurnOrder
from llm_queue.core.rules import OrderRules
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.verdict import RetryLimits
from llm_queue.dispatch.places import FEW, FORECAST, KEPT, SMOOTHING, Places
from llm_queue.dispatch.tickets import Place
from llm_queue.errors import Cancelled, UpstreamUnreachable


class Counted(Scheduler):
    """A scheduler that counts how often it was asked to look ahead."""

    asked = 0

    def forecast(self, now: float, limit: int) -> list[Forecast]:
        self.asked += 1
        return super().forecast(now, limit)


class Line:
    """A scheduler with many jobs of one client, of which the first one runs.

    Unless its model is not ``resident``, so that it is loaded, or the upstream is ``away``, so that all of them wait.
    """

    def __init__(self, waiting: int, *, resident: bool = True, away: bool = False) -> None:
        contexts = ContextSizes(8192, 65536)
        self.scheduler = Counted(TurnOrder(OrderRules(), contexts), Seat(contexts, 0.0), RetryLimits())
        self.scheduler.tick(0.0)
        loaded = frozenset({RunnerKey("m", 8192)} if resident else ())
        self.scheduler.handle(ProbeEnded(UpstreamUnreachable("Gone.") if away else None, loaded), 0.0)
        self.jobs = [Job(f"job {at}", Lane.NORMAL, "cron", "m", 8192, at, 0.0) for at in range(waiting + 1)]
        for job in self.jobs:
            self.scheduler.handle(Submitted(job), 0.0)
        self.places = Places(self.scheduler)

    def first(self, limit: int, now: float) -> list[str]:
        return [one.job.id for one in self.places.first(limit, now)]


@pytest.fixture
def short() -> Line:
    return Line(FEW)


@pytest.fixture
def long() -> Line:
    return Line(FEW + 5)


def test_a_short_line_is_shown_as_it_is_now(short: Line) -> None:
    assert short.first(3, 0.0) == ["job 0", "job 1", "job 2"]
    short.scheduler.handle(Left(short.jobs[1], Cancelled()), 0.0)
    assert short.first(3, 0.0) == ["job 0", "job 2", "job 3"]


def test_who_asks_for_no_jobs_has_no_forecast_made(short: Line, long: Line) -> None:
    for line in (short, long):
        assert line.first(0, 0.0) == []
        assert line.scheduler.asked == 0


def test_a_short_line_shows_who_has_come_since(short: Line) -> None:
    short.scheduler.handle(Left(short.jobs[1], Cancelled()), 0.0)
    short.first(3, 0.0)
    click = Job("click", Lane.INTERACTIVE, "person", "m", 8192, FEW + 1, 0.0)
    short.scheduler.handle(Submitted(click), 0.0)
    assert short.first(3, 0.0) == ["job 0", "click", "job 2"]


def test_a_long_line_is_looked_at_once_a_second_whoever_asks(long: Line) -> None:
    assert long.first(2, 0.0) == ["job 0", "job 1"]
    for job in long.jobs[2:]:
        long.places.place(job, 0.5)
    assert long.first(FORECAST, KEPT - 0.01)[:2] == ["job 0", "job 1"]
    assert long.scheduler.asked == 1
    long.scheduler.handle(Left(long.jobs[0], Cancelled()), KEPT - 0.01)
    assert long.first(2, KEPT) == ["job 0", "job 1"]  # it is being given up
    assert long.scheduler.asked == 2


def test_a_job_that_has_ended_since_is_not_shown(long: Line) -> None:
    long.first(2, 0.0)
    long.scheduler.handle(Left(long.jobs[1], Cancelled()), 0.0)
    assert long.first(2, 0.5) == ["job 0", "job 2"]
    assert long.scheduler.asked == 1


def test_who_wants_to_see_more_than_was_looked_at_makes_it_look_again(long: Line) -> None:
    assert len(long.first(10, 0.0)) == 10
    assert len(long.first(FORECAST + 50, 0.0)) == FORECAST + 50
    assert len(long.first(FORECAST + 50, 0.5)) == FORECAST + 50
    assert long.scheduler.asked == 2


def test_a_place_is_of_a_second_ago_at_most(long: Line) -> None:
    assert long.places.place(long.jobs[3], 0.0).ahead == 3
    long.scheduler.handle(Left(long.jobs[1], Cancelled()), 0.0)
    assert long.places.place(long.jobs[3], KEPT).ahead == 2
    assert long.scheduler.asked == 2


def test_behind_those_that_are_looked_at_all_others_go_first(long: Line) -> None:
    last = long.jobs[-1]
    assert long.places.place(last, 0.0) == Place(FEW + 5, None)
    long.places.ran(4.0)
    assert long.places.place(last, 0.0) == Place(FEW + 5, (FEW + 5) * 4.0)
    long.places.ran(12.0)
    assert long.places.seconds_for(1) == 4.0 + 8.0 / SMOOTHING
    away = Line(FEW, away=True)
    assert away.places.place(away.jobs[-1], 0.0).ahead == FEW


def test_while_nobody_has_the_slot_the_first_that_waits_has_nobody_before_it() -> None:
    away = Line(3, away=True)
    assert [away.places.place(job, 0.0).ahead for job in away.jobs] == [0, 1, 2, 3]
    assert [one.place for one in away.places.first(4, 0.0)] == [1, 2, 3, 4]


def test_a_load_for_a_job_is_its_place_and_one_for_a_job_that_has_left_goes_before_all() -> None:
    loading = Line(3, resident=False)
    assert loading.places.place(loading.jobs[0], 0.0) == Place(0, None, loading=True)
    assert [one.place for one in loading.places.first(4, 0.0)] == [0, 1, 2, 3]
    loading.scheduler.handle(Left(loading.jobs[0], Cancelled()), 0.0)
    assert [(one.job.id, one.place) for one in loading.places.first(1, 0.0)] == [("job 1", 1)]
    assert loading.places.place(loading.jobs[1], 0.0).ahead == 1
