"""Four of five starts fall inside the range that was shown."""

from __future__ import annotations

import pytest

from tests.bench.estimates import LOADS, Shown, figures, watched


@pytest.mark.parametrize(
    ("story", "load", "seconds"), [("two", "0.5 s", 400.0), ("burst", "6 s", 400.0), ("cron", "6 s", 300.0)]
)
def test_four_of_five_starts_fall_inside_the_range_that_was_shown(story: str, load: str, seconds: float) -> None:
    found = figures(watched(story, LOADS[load], seeds=(1,), seconds=seconds))
    assert found.asked > 100
    assert found.told > 0.75
    assert found.inside >= 0.8, found


def test_a_range_is_no_use_if_it_is_as_wide_as_anything() -> None:
    found = figures(watched("two", LOADS["0.5 s"], seeds=(1,), seconds=200.0))
    assert found.width < 1.5, "a turn of 4.5 s, and two runs of half a second within it"


def test_what_was_not_told_counts_as_neither() -> None:
    shown = [Shown(1.0, None), Shown(1.0, (0.0, 2.0)), Shown(3.0, (0.0, 2.0)), Shown(1.0, (2.0, 4.0))]
    found = figures(shown)
    assert (found.asked, found.told, found.width) == (4, 0.75, 2.0)
    assert (found.inside, found.earlier, found.later) == (1 / 3, 1 / 3, 1 / 3)
