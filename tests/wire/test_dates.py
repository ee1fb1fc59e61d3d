"""Moments as dates."""

from __future__ import annotations

import pytest

from llm_queue.wire.dates import time_stamp


@pytest.mark.parametrize(
    ("unix", "date"),
    [
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-5, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000, "9999-12-31T23:59:59Z"),
        (10**18, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_moment_that_is_none_becomes_the_nearest_date(unix: int, date: str) -> None:
    assert time_stamp(unix) == date
