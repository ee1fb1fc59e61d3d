"""Which lane a caller means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.wire.priority import Scalar, lane_name, tier_name


@pytest.mark.parametrize(
    ("priority", "lane"),
    [
        (None, "normal"),
        (True, "interactive"),
        (False, "normal"),
        ("interactive", "interactive"),
        ("normal", "normal"),
        ("background", "background"),
        (" Interactive ", "interactive"),
        (-1, "interactive"),
        (-(10**30), "interactive"),
        (0, "normal"),
        (1, "normal"),
        (100, "normal"),
        (-2.0, "interactive"),
        (2.0, "normal"),
    ],
)
def test_priority_by_switch_name_or_sign(priority: Scalar, lane: str) -> None:
    assert lane_name(None, priority, None) == (lane, False)


@pytest.mark.parametrize("priority", ["urgent", "", "-1", "[1]", 0.5, -0.5])
def test_an_unknown_priority_is_normal_and_counted(priority: Scalar) -> None:
    assert lane_name(None, priority, None) == ("normal", True)


@pytest.mark.parametrize(
    ("tier", "lane", "unknown"),
    [
        ("priority", "interactive", False),
        ("fast", "interactive", False),
        ("flex", "background", False),
        ("auto", "normal", False),
        ("default", "normal", False),
        ("scale", "normal", False),
        ("gold", "normal", True),
    ],
)
def test_service_tier_in_the_words_of_openai(tier: str, lane: str, unknown: bool) -> None:
    assert lane_name(None, None, tier) == (lane, unknown)


def test_the_header_wins_over_priority_and_priority_over_service_tier() -> None:
    assert lane_name("background", True, "priority") == ("background", False)
    assert lane_name(None, "background", "priority") == ("background", False)
    assert lane_name(None, False, "flex") == ("normal", False)


def test_an_empty_header_says_nothing() -> None:
    assert lane_name("  ", True, None) == ("interactive", False)


def test_an_unknown_header_is_normal_and_counted() -> None:
    assert lane_name("urgent", True, None) == ("normal", True)


@given(
    st.none() | st.text(),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    st.none() | st.text(),
)
def test_nothing_that_a_caller_says_is_an_error(header: str | None, priority: Scalar, tier: str | None) -> None:
    lane, unknown = lane_name(header, priority, tier)
    assert lane in ("interactive", "normal", "background")
    assert lane == "normal" or not unknown


def test_the_answer_echoes_the_lane_as_a_tier() -> None:
    assert [tier_name(lane) for lane in ("interactive", "normal", "background")] == ["priority", "default", "flex"]
    assert all(
        lane_name(None, None, tier_name(lane)) == (lane, False) for lane in ("interactive", "normal", "background")
    )
