"""The whole matrix: what a caller gets of each fault, that the slot is free then, and that the next is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.faults.engines import Clock
from tests.faults.matrix import Cell, Outcome, expected, played
from tests.faults.play import play


@pytest.mark.parametrize("cell", played(), ids=str)
async def test_what_a_fault_comes_to(
    cell: Cell, tmp_path: Path, mock_clock: MockClock, clock: Clock, outcomes: dict[Cell, Outcome]
) -> None:
    outcomes[cell] = await play(cell, tmp_path, clock)
    assert outcomes[cell] == expected(cell)
