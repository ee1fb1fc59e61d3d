"""Garbage collection that holds nobody up: when everything is collected, and what is left out of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.moments import Failure, JobAccepted, JobEnded, RequestRejected
from llm_queue.dispatch.status import JobReport
from llm_queue.garbage import (
    DUE,
    DUE_FOR_EACH,
    JOBS_IN_ONE,
    LOOK,
    MANY_TASKS,
    OLD,
    OVERDUE,
    PUT_OFF,
    TOO_OLD,
    YOUNG,
    Collector,
)

ENDED = JobReport(
    job="job_1", request_id="", client="cron", lane="normal", model="m", num_ctx=None, state="succeeded", attempts=1,
    wait_s=0.0, load_s=0.0, run_s=0.0,
)  # fmt: skip


class Knot:
    """An object that only a garbage collection can free."""

    def __init__(self) -> None:
        self.itself = self


def old_garbage() -> weakref.ref[Knot]:
    """A knot that grew old while it was in use, and is in use no more."""
    held = Knot()
    gc.collect(1)
    return weakref.ref(held)


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """The collector as it was."""
    yield
    gc.unfreeze()
    assert all("llm_queue" not in str(getattr(one, "__module__", "")) for one in gc.callbacks)


def play(collector: Collector, accepted: int, ended: int) -> None:
    for number in range(accepted):
        collector(JobAccepted(str(number), "cron", Lane.NORMAL, "m", 1, False))
    for _ in range(ended):
        collector(JobEnded(ENDED, None))


async def collected(collector: Collector, knot: weakref.ref[Knot]) -> bool:
    """True if the collector's task frees the knot before everything else has come to rest."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return knot() is None


@pytest.mark.parametrize(
    ("accepted", "ended", "due"),
    [
        (DUE, DUE, True),
        (DUE + 1, DUE, True),
        (DUE + 2, DUE, False),
        (DUE - 1, DUE - 1, False),
        (OVERDUE + 50, OVERDUE, True),
    ],
)
async def test_old_garbage_is_collected_when_nobody_waits(accepted: int, ended: int, due: bool) -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        gc.collect()
        play(collector, accepted, ended)
        assert knot() is not None
        assert await collected(collector, knot) is due


@pytest.mark.parametrize(
    ("waiting", "aged", "due"),
    [
        (0, OLD, True),
        (1, OLD, True),
        (0, OLD - 2, False),
        (2, OLD, False),
        (2, TOO_OLD + 1, True),
        (50 * JOBS_IN_ONE, TOO_OLD + 1, False),  # so many have come to wait
        (50 * JOBS_IN_ONE, TOO_OLD + 50, True),
    ],
)
async def test_garbage_of_what_makes_no_job_is_collected_too(
    waiting: int, aged: int, due: bool, autojump_clock: trio.testing.MockClock
) -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        for _ in range(aged - 1):
            gc.collect(1)
        play(collector, waiting, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.run)
            await trio.sleep(LOOK + 1)
            nursery.cancel_scope.cancel()
        assert (knot() is None) is due


async def test_a_refusal_has_what_is_due_collected_at_once() -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        for _ in range(OLD):
            gc.collect(1)
        collector(RequestRejected(Failure("not_found", 404, ""), "curl"))
        assert await collected(collector, knot)


async def test_what_has_grown_old_is_left_out_of_full_collections_until_the_end() -> None:
    with Collector().calm():
        before = gc.get_freeze_count()
        kept = [[number] for number in range(10_000)]
        gc.collect(1)
        assert gc.get_freeze_count() >= before + len(kept)
    assert gc.get_freeze_count() == 0


async def test_a_crowd_that_is_being_answered_brings_about_no_collection_of_everything() -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        came = 50 * JOBS_IN_ONE
        play(collector, came, 0)
        for _ in range(TOO_OLD + 40):  # as many as their coming explains
            gc.collect(1)
        play(collector, 0, came - 2)
        assert not await collected(collector, knot)
        play(collector, 0, 1)  # the last one runs
        assert await collected(collector, knot)


async def test_while_more_is_freed_than_made_what_is_young_is_collected_all_the_same() -> None:
    collector = Collector()
    gc.disable()  # as good as so: Python counts how many more objects there are
    try:
        with collector.calm():
            knot = weakref.ref(Knot())
            kept = [[number] for number in range(1000)]
            before = gc.get_freeze_count()
            play(collector, 10 * YOUNG, YOUNG - 1)
            assert knot() is not None
            play(collector, 0, 1)
            assert knot() is None
            assert gc.get_freeze_count() < before + len(kept)
            play(collector, 0, 9 * YOUNG)  # by now it is old enough to be left out
            assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("waiting", "jobs", "due"),
    [
        (50, DUE + 50 * DUE_FOR_EACH - 1, False),
        (50, DUE + 50 * DUE_FOR_EACH, True),
        (2000, DUE + 50 * DUE_FOR_EACH, False),
    ],
)
async def test_a_line_that_is_never_empty_is_looked_through_the_sooner_the_less_that_takes(
    waiting: int, jobs: int, due: bool
) -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        play(collector, waiting, 0)
        for _ in range(jobs):  # one comes, one goes
            play(collector, 1, 1)
        assert await collected(collector, knot) is due


@asynccontextmanager
async def connections(number: int) -> AsyncIterator[None]:
    """So many open ones, as tasks."""
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(trio.sleep_forever)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("came", "ended"), [(DUE, DUE), (10_000, 9950), (10_000, 10_000)])
async def test_no_moment_is_quiet_while_thousands_of_connections_are_open(
    autojump_clock: trio.testing.MockClock, came: int, ended: int
) -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        async with connections(MANY_TASKS):
            play(collector, came, ended)
            assert not await collected(collector, knot)
        await trio.sleep(PUT_OFF)
        play(collector, 0, came - ended)
        collector(RequestRejected(Failure("not_found", 404, ""), "curl"))
        assert await collected(collector, knot)


async def test_tasks_are_not_counted_with_each_moment(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, counted, real = Collector(), 0, trio.lowlevel.current_statistics

    def count() -> trio.lowlevel.RunStatistics:
        nonlocal counted
        counted += 1
        return real()

    async with connections(MANY_TASKS):
        monkeypatch.setattr(trio.lowlevel, "current_statistics", count)
        play(collector, DUE, DUE)
        for _ in range(100):
            play(collector, 1, 1)
        assert counted == 1
        await trio.sleep(PUT_OFF)
        play(collector, 1, 1)
        assert counted == 2


@pytest.mark.parametrize(("jobs", "aged", "due"), [(OVERDUE, 0, True), (OVERDUE - 1, 0, False), (0, TOO_OLD, True)])
async def test_open_connections_do_not_put_it_off_for_ever(
    autojump_clock: trio.testing.MockClock, jobs: int, aged: int, due: bool
) -> None:
    collector = Collector()
    with collector.calm():
        knot = old_garbage()
        async with connections(2 * MANY_TASKS):
            for _ in range(aged):
                gc.collect(1)
            for _ in range(jobs):  # one comes, one goes
                play(collector, 1, 1)
            await trio.sleep(PUT_OFF)
            collector(RequestRejected(Failure("not_found", 404, ""), "curl"))
            assert await collected(collector, knot) is due
