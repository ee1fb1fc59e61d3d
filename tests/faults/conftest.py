"""The mock clock of the matrix, and the page that a run of the whole of it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import trio.testing

from tests.faults.engines import THRESHOLD, Clock, hold_for_processes
from tests.faults.matrix import Cell, Outcome, played
from tests.faults.page import page

Outcomes = dict[Cell, Outcome]
_OUTCOMES: Final = pytest.StashKey[Outcomes]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--page", type=Path, help="where to write the table of faults, if all of it was run")


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """What the cells came to: the test of each puts it in."""
    return request.config.stash.setdefault(_OUTCOMES, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    where, found = session.config.getoption("--page", None), session.config.stash.get(_OUTCOMES, {})
    if where is not None and found.keys() == set(played()):
        where.write_text(page(found), encoding="utf-8")


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """What trio runs a test with that names it."""
    return trio.testing.MockClock(autojump_threshold=THRESHOLD)


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(mock_clock)
    hold_for_processes(clock, monkeypatch)
    return clock
