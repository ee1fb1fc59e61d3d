"""A limit of time that many waits share: each ends as if it had a deadline of its own."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_queue.web.limits import TimeLimit, Wait


async def wait_for(limit: TimeLimit, seconds: float, ended: list[tuple[float, bool]]) -> None:
    """Wait for so many seconds, and note when that came to its end and whether the limit ended it."""
    with limit.wait() as wait:
        await trio.sleep(seconds)
    ended.append((trio.current_time(), wait.over))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_each_wait_ends_when_its_own_time_is_up(autojump_clock: MockClock, order: tuple[int, ...]) -> None:
    limit = TimeLimit(10.0)
    ended: list[tuple[float, bool]] = []
    seconds = (3.0, 20.0, math.inf)
    async with trio.open_nursery() as nursery:
        for place in order:
            nursery.start_soon(wait_for, limit, seconds[place], ended)
            await trio.sleep(1)
    late = sorted(float(order.index(place)) + 10.0 for place in (1, 2))
    early = float(order.index(0)) + 3.0
    assert sorted(ended) == sorted([(early, False), *((at, True) for at in late)])


async def test_whoever_leaves_takes_no_others_deadline_along(autojump_clock: MockClock) -> None:
    limit = TimeLimit(10.0)
    ended: list[tuple[float, bool]] = []
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first:
            first.start_soon(wait_for, limit, math.inf, ended)
            await trio.sleep(1)
            nursery.start_soon(wait_for, limit, math.inf, ended)
            await trio.sleep(1)
            first.cancel_scope.cancel()
        assert ended == []
        await trio.sleep(1)
        nursery.start_soon(wait_for, limit, math.inf, ended)
    assert ended == [(11.0, True), (13.0, True)]


async def test_an_error_comes_through_and_a_limit_can_be_used_again(autojump_clock: MockClock) -> None:
    limit = TimeLimit(10.0)
    with pytest.raises(ValueError, match="mine"), limit.wait():
        raise ValueError("mine")
    with limit.wait() as wait:
        await trio.sleep_forever()
    assert wait.over
    assert trio.current_time() == 10.0


async def test_only_the_oldest_of_many_waits_has_a_deadline(autojump_clock: MockClock) -> None:
    limit = TimeLimit(10.0)
    waits = [limit.wait() for _ in range(100)]

    async def sleep_in(wait: Wait) -> None:
        with wait:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(sleep_in, wait)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(wait._scope.deadline for wait in waits) == [10.0, *[math.inf] * 99]
    assert all(wait.over for wait in waits)
