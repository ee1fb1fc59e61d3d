"""One context size per model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.keys import RunnerKey

sizes = st.integers(1, 200_000)


def made() -> ContextSizes:
    return ContextSizes(8192, 65536)


def test_a_job_gets_the_floor_unless_it_asks_for_more() -> None:
    contexts = made()
    assert contexts.wanted_ctx(None, None) == 8192
    assert contexts.wanted_ctx(2048, None) == 8192
    assert contexts.wanted_ctx(16384, None) == 16384


def test_what_the_model_was_trained_for_is_the_most_even_below_the_floor() -> None:
    contexts = made()
    assert contexts.wanted_ctx(32768, 16384) == 16384
    assert contexts.wanted_ctx(None, 2048) == 2048


def test_the_ceiling_is_the_most_for_every_model() -> None:
    assert made().wanted_ctx(1_000_000, 131_072) == 65536


@given(asked=st.none() | sizes, trained=st.none() | sizes)
def test_a_wish_is_never_above_what_any_limit_allows(asked: int | None, trained: int | None) -> None:
    wanted_ctx = made().wanted_ctx(asked, trained)
    assert 1 <= wanted_ctx <= min(65536, trained or 65536)


@given(st.lists(sizes))
def test_the_current_size_grows_with_loads_and_never_shrinks(loaded: list[int]) -> None:
    contexts, largest = made(), 8192
    for size in loaded:
        contexts.loaded(RunnerKey("a", size), [RunnerKey("a", size)])
        largest = max(largest, size)
        assert contexts.key("a", 8192) == RunnerKey("a", largest)


def test_a_size_becomes_current_only_when_a_load_at_it_succeeded() -> None:
    contexts = made()
    contexts.loaded(RunnerKey("a", 8192), [])
    assert contexts.key("a", 16384) == RunnerKey("a", 16384)
    assert contexts.key("a", 8192) == RunnerKey("a", 8192)
    contexts.loaded(RunnerKey("a", 16384), [])
    assert contexts.key("a", 8192) == RunnerKey("a", 16384)
    assert contexts.key("b", 8192) == RunnerKey("b", 8192)


def test_a_raise_that_fails_makes_the_last_good_size_the_limit() -> None:
    contexts = made()
    contexts.loaded(RunnerKey("a", 8192), [])
    assert contexts.failed(RunnerKey("a", 32768)) == 8192
    assert contexts.limit("a") == 8192
    assert contexts.limit("b") is None
    assert contexts.key("a", 8192) == RunnerKey("a", 8192)


def test_a_first_load_that_fails_says_nothing_of_the_size() -> None:
    contexts = made()
    assert contexts.failed(RunnerKey("a", 8192)) is None
    assert contexts.limit("a") is None


def test_a_current_size_that_no_longer_loads_is_no_limit() -> None:
    contexts = made()
    contexts.loaded(RunnerKey("a", 16384), [])
    assert contexts.failed(RunnerKey("a", 16384)) is None
    assert contexts.limit("a") is None


def test_a_size_that_is_there_after_all_lifts_the_limit_to_it() -> None:
    contexts = made()
    contexts.loaded(RunnerKey("a", 8192), [])
    contexts.failed(RunnerKey("a", 32768))
    contexts.adopt([RunnerKey("a", 16384)])
    assert contexts.limit("a") == 16384


def test_what_somebody_loaded_before_us_is_adopted_at_its_size() -> None:
    contexts = made()
    assert contexts.adopt([RunnerKey("a", 16384)]) == {RunnerKey("a", 16384)}
    assert contexts.key("a", 8192) == RunnerKey("a", 16384)


def test_a_size_outside_floor_and_ceiling_is_not_adopted() -> None:
    contexts = made()
    contexts.adopt([RunnerKey("a", 2048), RunnerKey("b", 131_072)])
    assert contexts.key("a", 8192) == RunnerKey("a", 8192)
    assert contexts.key("b", 8192) == RunnerKey("b", 8192)


def test_an_engine_that_shows_another_size_than_asked_for_is_not_loaded_again() -> None:
    contexts = made()
    asked = RunnerKey("a", 8192)
    assert contexts.loaded(asked, [RunnerKey("a", 4096)]) == {asked}
    assert contexts.translate([RunnerKey("a", 4096)]) == {asked}


def test_a_size_shown_for_another_is_believed_again_once_it_is_loaded_itself() -> None:
    contexts = made()
    contexts.loaded(RunnerKey("a", 8192), [RunnerKey("a", 32768)])
    raised = RunnerKey("a", 32768)
    contexts.loaded(raised, [raised])
    assert contexts.translate([raised]) == {raised}


def test_what_is_remembered_of_an_engine_that_clamps_does_not_grow_with_the_sizes() -> None:
    contexts = made()
    for size in range(8192, 9192):
        contexts.loaded(RunnerKey("a", size), [RunnerKey("a", size + 1_000_000)])
    assert len(contexts._reported) == 1


def test_a_context_is_doubled_until_the_prompt_and_its_answer_fit() -> None:
    contexts = made()
    assert [contexts.fitting(tokens, 65536) for tokens in (1, 8192, 8193, 16384, 20_000)] == [
        *(8192, 8192, 16384, 16384, 32768)
    ]
    assert contexts.fitting(20_000, 30_000) == 30_000
    assert contexts.fitting(20_000, 4096) == 4096
    assert ContextSizes(0, 0).fitting(20_000, 0) == 0


@given(tokens=sizes, most=sizes)
def test_a_fitting_context_is_one_of_few_sizes_and_no_larger_than_it_must_be(tokens: int, most: int) -> None:
    size = made().fitting(tokens, most)
    assert size == most or (size % 8192 == 0 and (size // 8192).bit_count() == 1)
    assert size >= min(tokens, most)
    assert size <= max(8192, 2 * tokens)


def test_the_most_that_a_model_can_have_is_the_least_of_its_limits() -> None:
    contexts = made()
    assert contexts.most(None, None) == contexts.most("a", None) == contexts.most("a", 131_072) == 65536
    assert contexts.most("a", 4096) == 4096
    contexts.loaded(RunnerKey("a", 8192), ())
    contexts.failed(RunnerKey("a", 32768))
    assert contexts.most("a", 131_072) == 8192
    assert contexts.most("b", 131_072) == 65536
