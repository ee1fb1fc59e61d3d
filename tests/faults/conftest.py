"""The mock clock of the matrix."""

from __future__ import annotations

import pytest
import trio.testing

from tests.faults.engines import THRESHOLD, Clock, hold_for_processes


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """What trio runs a test with that names it."""
    return trio.testing.MockClock(autojump_threshold=THRESHOLD)


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(mock_clock)
    hold_for_processes(clock, monkeypatch)
    return clock
