"""The page about faults is the one that a run of the matrix would write."""

from __future__ import annotations

import pytest

from tests.faults.matrix import CELLS, FAULTS, Engine, Form, Try, expected, played, senseless
from tests.faults.page import PAGE, page


def test_the_page_is_the_one_of_the_matrix() -> None:
    """``nox -s faults`` writes it from what callers got, and fails if that is not what must come."""
    assert PAGE.read_text(encoding="utf-8") == page({cell: expected(cell) for cell in played()})


def test_every_fault_stands_in_the_matrix_at_every_try_form_and_upstream() -> None:
    assert len(set(CELLS)) == len(FAULTS) * len(Try) * len(Form) * len(Engine)
    assert all(senseless(cell) for cell in set(CELLS) - set(played()))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_played_at_some_upstream(fault: object) -> None:
    assert any(cell.fault is fault for cell in played())
