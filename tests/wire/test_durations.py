"""Durations in Go's notation, and what they say of a model's life."""

from __future__ import annotations

import math

import pytest

from llm_queue.wire.durations import lifetime, lifetime_setting, seconds_in


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("90s", 90),
        ("1.5h", 5400),
        ("300ms", 0.3),
        (".5s", 0.5),
        ("2.s", 2),
        ("0", 0),
        ("0s", 0),
        ("-1m", -60),
        ("+2s", 2),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("8ns", 8e-9),
        ("-0", 0),
    ],
)
def test_a_duration_is_read(said: str, seconds: float) -> None:
    assert seconds_in(said) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("-1", 'time: missing unit in duration "-1"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1h5", 'time: missing unit in duration "1h5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("", 'time: invalid duration ""'),
        ("ever", 'time: invalid duration "ever"'),
        ("m5", 'time: invalid duration "m5"'),
        ("1..5s", 'time: missing unit in duration "1..5s"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
        ("٣s", 'time: invalid duration "٣s"'),
    ],
)
def test_anything_else_is_refused_in_gos_words(said: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^time: ") as refused:
        seconds_in(said)
    assert str(refused.value) == complaint


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (-1, math.inf),
        (-0.5, math.inf),
        ("-1m", math.inf),
        (0, 0),
        (1.5, 1.5),
        ("1h", 3600),
        (1e300, math.inf),
        (10**400, math.inf),
    ],
)
def test_below_zero_a_model_stays_for_ever(said: str | float, seconds: float) -> None:
    assert lifetime(said) == seconds


@pytest.mark.parametrize(("said", "seconds"), [("-1", math.inf), ("3600", 3600), ("1h", 3600), ("0", 0)])
def test_a_setting_may_leave_out_the_unit(said: str, seconds: float) -> None:
    assert lifetime_setting(said) == seconds
