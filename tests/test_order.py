"""A run of the tests can be repeated: its seed decides in which order trio runs the tasks of each test."""

from __future__ import annotations

import pytest
import trio

from tests.conftest import seed_schedule


async def finish_in_any_order(tasks: int) -> list[int]:
    """Start tasks that could all run at once, and return the order in which they did."""
    finished: list[int] = []

    async def run(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        finished.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(tasks):
            nursery.start_soon(run, number)
    return finished


def test_the_same_seed_gives_the_same_order_of_tasks(request: pytest.FixtureRequest) -> None:
    orders = []
    for _ in range(5):
        seed_schedule(request.node)
        orders.append(trio.run(finish_in_any_order, 20))
    assert orders == orders[:1] * 5


def test_without_a_new_seed_the_order_of_tasks_varies() -> None:
    orders = [trio.run(finish_in_any_order, 20) for _ in range(5)]
    assert any(order != orders[0] for order in orders)
