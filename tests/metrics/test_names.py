"""Names that callers choose are bounded, and no series ever goes back."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llm_queue.metrics.names import CANDIDATES, FORGETTING, OTHER, TopNames


def test_the_first_names_have_labels_of_their_own_and_the_rest_is_other() -> None:
    names = TopNames(2, ended=lambda name: None)
    assert [names.use(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    assert names.label("c") == OTHER
    assert set(names.placed) == {"a", "b"}


def test_a_name_that_becomes_much_busier_takes_the_place_of_the_least_busy() -> None:
    ended: list[str] = []
    names = TopNames(2, ended.append)
    for name in ("a", "a", "a", "b", "c", "c"):
        names.use(name)
    assert ended == []  # twice as busy is not enough
    assert names.use("c") == "c"
    assert ended == ["b"]
    assert names.label("b") == OTHER


def test_what_was_busy_long_ago_makes_room() -> None:
    ended: list[str] = []
    names = TopNames(1, ended.append)
    for _ in range(FORGETTING // 2):
        names.use("old")
    for number in range(12 * FORGETTING):
        names.use("new" if number % 4 == 0 else f"once-{number}")
    assert ended == ["old"]
    assert names.label("new") == "new"


def test_a_client_that_is_called_other_never_ends_what_stands_for_all_others() -> None:
    ended: list[str] = []
    names = TopNames(1, ended.append)
    names.use(OTHER)
    names.use("a")
    for _ in range(9):
        names.use(OTHER)
    for _ in range(9):
        names.use("b")
    assert ended == ["a"]


@given(st.integers(1, 4), st.lists(st.sampled_from([OTHER, *"abcdefgh"]), max_size=400))
def test_labels_are_bounded_and_a_series_grows_until_it_ends(most: int, used: list[str]) -> None:
    series: Counter[str] = Counter()

    def end(name: str) -> None:
        assert name != OTHER
        assert series.pop(name) > 0, "only what had a series ends"

    names = TopNames(most, end)
    for name in used:
        label = names.use(name)
        assert label in (name, OTHER)
        series[label] += 1
        assert len(series) <= most + 1
        assert set(series) - {OTHER} == set(names.placed)


@given(st.integers(1, 3), st.integers(0, 2000))
def test_names_that_come_once_take_no_memory_for_ever(most: int, many: int) -> None:
    names = TopNames(most, ended=lambda name: None)
    for number in range(many):
        names.use(str(number))
    assert len(names._others) <= CANDIDATES * most
