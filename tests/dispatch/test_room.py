"""How much the line takes, and when it advises to ask again."""

from __future__ import annotations

import pytest

from llm_queue.dispatch.room import Room
from llm_queue.errors import LineFull
from llm_queue.settings import Settings


@pytest.mark.parametrize(
    ("seconds_each", "waiting", "advice"), [(0.0, 10, 1), (0.5, 10, 5), (0.51, 10, 6), (30.0, 10, 60)]
)
def test_the_advice_is_from_a_second_to_a_minute(seconds_each: float, waiting: int, advice: int) -> None:
    room = Room(Settings(max_waiting=10, max_waiting_bytes=10), lambda jobs: jobs * seconds_each)
    with pytest.raises(LineFull) as by_jobs:
        room.check_jobs(waiting)
    with pytest.raises(LineFull) as by_bytes:
        room.check_bytes(11, waiting)
    assert (by_jobs.value.retry_after, by_bytes.value.retry_after) == (advice, advice)


def test_the_last_place_and_the_last_byte_are_given_away_too() -> None:
    room = Room(Settings(max_waiting=2, max_waiting_bytes=10), float)
    room.take(4)
    room.entering += 1
    room.check_jobs(0)
    room.check_bytes(6, 0)
    room.take(6)
    with pytest.raises(LineFull):
        room.check_jobs(1)
    with pytest.raises(LineFull):
        room.check_bytes(1, 0)
    room.give_back(4)
    room.check_bytes(4, 0)
