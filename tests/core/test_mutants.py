"""A mutant that no longer changes anything proves nothing: it fails here, not only when the mutants are run."""

from __future__ import annotations

import pytest

from tests.core.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.breaks for mutant in MUTANTS])
def test_what_a_mutant_changes_is_in_the_code_exactly_once(mutant: Mutant) -> None:
    assert mutant.occurrences == 1, f"not exactly once in {mutant.file}: {mutant.old!r}"
    assert mutant.new != mutant.old


def test_no_two_mutants_have_the_same_name() -> None:
    assert len({mutant.breaks for mutant in MUTANTS}) == len(MUTANTS)
