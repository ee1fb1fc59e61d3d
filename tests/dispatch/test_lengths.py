"""How many tokens a prompt is taken to have."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llm_queue.dispatch.lengths import (
    LEARNED_FROM,
    MARGIN,
    MOST_BYTES_PER_TOKEN,
    MOST_MODELS,
    PER_IMAGE,
    PER_MESSAGE,
    SPARSEST,
    SURE_AFTER,
    PromptLengths,
)
from llm_queue.wire.prompts import PromptSize

counts = st.builds(
    lambda size, ratio: (PromptSize(size, 3), max(1, math.ceil(size / ratio))),
    st.integers(0, 200_000),
    st.floats(0.5, 20.0),
)


def test_a_model_that_has_counted_nothing_yet_is_taken_to_have_three_bytes_a_token() -> None:
    lengths = PromptLengths()
    assert lengths.estimate(None, PromptSize(0)) == lengths.estimate("sha", PromptSize(0)) == 0
    assert lengths.estimate("sha", PromptSize(10, messages=2, images=1)) == 4 + 2 * PER_MESSAGE + PER_IMAGE


def test_what_came_as_tokens_is_counted_as_it_is() -> None:
    lengths = PromptLengths()
    assert lengths.estimate(None, PromptSize(30, tokens=7)) == 17
    assert lengths.at_least(None, PromptSize(160, tokens=7)) == 17


def test_a_dense_prompt_counts_at_once_and_a_sparse_one_little_by_little() -> None:
    lengths, size = PromptLengths(), PromptSize(30_000)
    lengths.learn("sha", size, 10_000)
    assert lengths.estimate("sha", size) == math.ceil(10_000 / MARGIN)
    lengths.learn("sha", size, 5_000)
    first = lengths.estimate("sha", size)
    assert 9_000 < first < 11_000
    for _ in range(200):
        lengths.learn("sha", size, 5_000)
    assert 5_500 < lengths.estimate("sha", size) < 5_600
    lengths.learn("sha", size, 20_000)
    assert lengths.estimate("sha", size) > 20_000
    assert lengths.estimate("other", size) == 10_000


@given(st.lists(counts, max_size=30), counts)
def test_a_prompt_like_the_last_one_is_never_taken_for_shorter_than_that_was(
    before: list[tuple[PromptSize, int]], last: tuple[PromptSize, int]
) -> None:
    lengths = PromptLengths()
    for size, tokens in [*before, last]:
        lengths.learn("sha", size, tokens)
    size, tokens = last
    if size.bytes >= LEARNED_FROM:
        assert lengths.estimate("sha", size) >= tokens
        assert lengths.at_least("sha", size) <= tokens or size.bytes / tokens > SPARSEST


@given(st.lists(counts, max_size=30), counts, counts)
def test_the_least_is_no_more_than_the_estimate_and_a_larger_prompt_has_no_fewer_tokens(
    before: list[tuple[PromptSize, int]], one: tuple[PromptSize, int], other: tuple[PromptSize, int]
) -> None:
    lengths = PromptLengths()
    for size, tokens in before:
        lengths.learn("sha", size, tokens)
    small, large = sorted((one[0], other[0]))
    for length in (lengths.estimate, lengths.at_least):
        assert length("sha", small) <= length("sha", large)
    assert lengths.at_least("sha", large) <= lengths.estimate("sha", large)


def test_what_a_prompt_has_at_least_is_sharper_once_the_model_has_counted_several() -> None:
    lengths, size = PromptLengths(), PromptSize(40_000)
    for _ in range(SURE_AFTER - 1):
        lengths.learn("sha", size, 10_000)
    assert lengths.at_least("sha", size) == 2_500
    lengths.learn("sha", size, 10_000)
    assert lengths.at_least("sha", size) == 5_000


def test_small_prompts_and_those_with_images_teach_nothing() -> None:
    lengths = PromptLengths()
    for size, tokens in [(PromptSize(LEARNED_FROM - 1), 9_000), (PromptSize(9_000, 1, images=1), 9_000)]:
        lengths.learn("sha", size, tokens)
    lengths.learn("sha", PromptSize(9_000, tokens=50), 50)
    assert lengths.estimate("sha", PromptSize(30_000)) == 10_000


def test_the_models_that_are_remembered_are_bounded() -> None:
    lengths, size = PromptLengths(), PromptSize(30_000)
    for number in range(MOST_MODELS + 1):
        lengths.learn(f"sha{number}", size, 30_000)
        lengths.learn("sha1", size, 30_000)
    assert lengths.estimate("sha0", size) == 10_000
    assert lengths.estimate("sha1", size) > 30_000


def test_the_model_that_was_not_heard_of_for_longest_is_forgotten_first() -> None:
    lengths, size = PromptLengths(), PromptSize(30_000)
    for number in range(MOST_MODELS):
        lengths.learn(f"sha{number}", size, 30_000)
    lengths.learn("sha0", size, 30_000)
    lengths.learn("new", size, 30_000)
    assert lengths.estimate("sha0", size) > 30_000
    assert lengths.estimate("sha1", size) == 10_000


def test_no_estimate_goes_beyond_six_bytes_a_token_however_sparse_the_prompts_were() -> None:
    lengths = PromptLengths()
    for _ in range(1000):
        lengths.learn("sha", PromptSize(30_000), 100)  # rows of blanks
    assert lengths.estimate("sha", PromptSize(30_000)) >= 30_000 / MOST_BYTES_PER_TOKEN


def test_what_a_prompt_has_at_least_is_told_by_the_sparsest_that_ever_was_and_never_above_what_any_text_has() -> None:
    lengths, size = PromptLengths(), PromptSize(48_000)
    lengths.learn("sha", size, 4_000)  # 12 bytes a token, of which twice is more than any text has
    for _ in range(SURE_AFTER):
        lengths.learn("sha", size, 24_000)
    assert lengths.at_least("sha", size) == 48_000 / SPARSEST


def test_what_came_as_tokens_says_nothing_of_the_text_beside_it() -> None:
    lengths = PromptLengths()
    lengths.learn("sha", PromptSize(30_000, tokens=20_000), 30_000)
    assert lengths.estimate("sha", PromptSize(30_000)) == math.ceil(10_000 / MARGIN)
