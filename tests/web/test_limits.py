"""A limit of time that many waits share: each ends as if it had a deadline of its own."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from llm_queue.web.limits import AT_ONCE, LimitedScope, TimeLimit


async def wait_for(limit: TimeLimit, seconds: float, ended: list[tuple[float, bool]]) -> None:
    """Wait for so many seconds, and note when that came to its end and whether the limit ended it."""
    with limit.scope() as scope:
        await trio.sleep(seconds)
    ended.append((trio.current_time(), scope.cancelled_caught))


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
    with pytest.raises(ValueError, match="mine"), limit.scope():
        raise ValueError("mine")
    with limit.scope() as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 10.0


async def sleep_in(scope: LimitedScope) -> None:
    with scope:
        await trio.sleep_forever()


async def test_only_the_next_of_many_deadlines_is_known_to_trio(autojump_clock: MockClock) -> None:
    limit = TimeLimit(10.0)
    scopes = [limit.scope() for _ in range(100)]
    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(sleep_in, scope)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(scope._scope.deadline for scope in scopes) == [10.0, *[math.inf] * 99]
    assert all(scope.cancelled_caught for scope in scopes)


async def test_many_that_are_over_at_once_end_a_few_in_each_pass(autojump_clock: MockClock) -> None:
    limit, passes = TimeLimit(10.0), 0
    scopes = [limit.scope() for _ in range(20 * AT_ONCE)]
    async with trio.open_nursery() as others:
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(sleep_in, scope)
            await trio.sleep(9.9)

            async def count() -> None:
                nonlocal passes
                while True:
                    passes += trio.current_time() >= 10.0
                    await trio.lowlevel.checkpoint()

            others.start_soon(count)
            autojump_clock.jump(0.1)
        others.cancel_scope.cancel()
    assert all(scope.cancelled_caught for scope in scopes)
    assert 15 <= passes <= 30
