"""What is learned of the prompts of each strand: the room, the loss, and what another strand costs."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llm_queue.core.prompts import TELLING_TOKENS, PromptWork
from llm_queue.core.strands import REMEMBERED, SHARES, Strand, Strands
from llm_queue.simulate.engine import Prompts, SimulatedPromptCache
from tests.core.driver import made_job

A, B, C, D = (("a", ""), ("b", ""), ("c", ""), ("d", ""))
PACE = 0.01


def prompt(cached: int, tokens: int = 1000) -> PromptWork:
    return PromptWork(tokens, cached, (tokens - cached) * PACE)


def ran(strands: Strands, *strand: Strand, cached: int = 0, tokens: int = 1000) -> None:
    for each in strand:
        strands.ran(each, prompt(cached, tokens))


def shown() -> Strands:
    """Two strands that have thrown each other out once."""
    strands = Strands()
    ran(strands, A, B, A)
    return strands


# --- nothing costs anything until it was seen to ---


def test_nothing_costs_anything_before_something_was_lost() -> None:
    strands = Strands()
    ran(strands, A, B, C)
    ran(strands, A, B, C, cached=990)
    assert strands.room is None
    assert not strands.lost
    assert [strands.cost(strand) for strand in (A, B, C, D)] == [0, 0, 0, 0]
    assert strands.largest_loss == 0
    strands.loaded()
    ran(strands, A, cached=990)
    assert [strands.cost(strand) for strand in (A, B, C, D)] == [0, 0, 0, 0], "this load has lost nothing"


def test_what_is_cached_costs_nothing_and_the_other_what_it_or_the_cached_one_loses() -> None:
    strands = shown()
    assert strands.cached == [A]
    assert strands.cost(A) == 0
    assert strands.cost(B) == pytest.approx(1000 * PACE)
    assert strands.cost(D) == pytest.approx(1000 * PACE), "a new one throws out what is cached"
    ran(strands, A, tokens=3000, cached=990)
    assert strands.cost(B) == pytest.approx(3000 * 0.99 * PACE, rel=0.02)


def test_while_there_is_room_a_new_strand_costs_nothing() -> None:
    strands = Strands()
    ran(strands, A, B, C, A)
    strands.loaded()
    ran(strands, A)
    assert strands.room == 2
    assert strands.cost(D) == 0
    assert strands.cost(B) == pytest.approx(1000 * PACE), "but one that has been here has to be computed again"


# --- room ---


def test_room_is_how_many_others_a_lost_prompt_has_let_between() -> None:
    strands = Strands()
    ran(strands, A, B, C, D, A)
    assert strands.room == 3
    assert strands.cached == [C, D, A]
    ran(strands, D, cached=990)
    ran(strands, C)
    assert strands.room == 2


def test_room_grows_when_a_prompt_was_found_that_was_taken_for_lost() -> None:
    strands = shown()
    ran(strands, C)
    ran(strands, A, cached=990)
    assert strands.room == 2
    ran(strands, B, D)
    ran(strands, C, A, cached=990)
    assert strands.room == 4


def test_what_one_runs_in_between_for_itself_says_nothing_of_the_room() -> None:
    strands = Strands()
    ran(strands, A, A, A)
    assert strands.room is None
    assert not strands.lost


def test_the_first_prompt_after_a_load_is_no_miss_but_shows_that_a_load_loses() -> None:
    strands = Strands()
    ran(strands, A)
    ran(strands, A, cached=990)
    assert strands.largest_loss == 0
    strands.loaded()
    ran(strands, A)
    assert strands.room is None
    assert strands._known[A].left == 0
    assert strands.largest_loss == pytest.approx(1000 * PACE)


def test_a_conversation_that_began_anew_need_not_find_more_than_it_has() -> None:
    strands = Strands()
    ran(strands, A, tokens=10_000)
    ran(strands, B)
    ran(strands, A, tokens=1000, cached=900)
    assert not strands.lost


def test_prompts_of_a_few_tokens_say_nothing() -> None:
    strands = Strands()
    ran(strands, A, B, A, tokens=TELLING_TOKENS - 1)
    assert not strands.lost
    assert not strands._paces


# --- loss ---


def test_a_beginning_that_all_share_is_not_lost() -> None:
    strands = Strands()
    ran(strands, A, B)
    ran(strands, A, cached=400)
    strands.loaded()
    ran(strands, A)
    assert strands._known[A].loss == 600
    assert strands.largest_loss == pytest.approx(600 * PACE)


def test_a_strand_that_usually_finds_half_of_its_prompt_loses_half() -> None:
    strands = Strands()
    for _ in range(4):
        ran(strands, A, cached=500)
    assert strands._known[A].loss == 500


@pytest.mark.parametrize("others", [1, 2, 3])
def test_who_breaks_its_own_beginning_loses_nothing_after_three(others: int) -> None:
    strands = shown()
    breaker: Strand = ("breaks", "")
    ran(strands, *[A, B, C][:others], breaker)
    ran(strands, breaker, breaker)
    assert strands._known[breaker].loss == 0
    assert strands.largest_loss > 0


def test_the_pace_is_the_median_of_the_last_eight_prompts() -> None:
    strands = shown()
    strands.ran(A, PromptWork(1000, 0, 500.0))
    assert strands.cost(B) == pytest.approx(1000 * PACE)
    for _ in range(8):
        strands.ran(A, PromptWork(1000, 0, 20.0))
    assert strands.cost(B) == pytest.approx(1000 * 0.02)


# --- the turn ---


def test_the_cold_prompt_that_begins_a_turn_does_not_count_to_it() -> None:
    strands, first, second = shown(), made_job("1"), made_job("2")
    strands.used = 17.0
    strands.opening = first
    strands.serve(first)
    strands.bill(first, 13.0, 10.0)
    assert strands.used == 3.0
    strands.serve(second)
    strands.bill(second, 4.0, 1.0)
    assert strands.used == 7.0


def test_a_job_that_was_chosen_and_did_not_run_begins_no_turn() -> None:
    strands, first, second = shown(), made_job("1"), made_job("2")
    strands.used = 17.0
    strands.opening = first
    strands.serve(second)
    strands.bill(second, 13.0, 10.0)
    assert strands.used == 30.0


# --- memory, copies ---


def test_memory_is_bounded_however_many_strands_run() -> None:
    strands = Strands()
    for number in range(5 * REMEMBERED):
        ran(strands, (f"client {number}", "label"))
    assert len(strands) == len(strands._ran) == REMEMBERED
    assert len(strands._paces) == 8


def test_a_copy_changes_for_itself() -> None:
    strands = shown()
    twin = strands.copy()
    ran(twin, C, D)
    twin.loaded()
    assert strands.cached == [A]
    assert len(strands) == 2


def test_looking_ahead_learns_nothing_but_who_ran() -> None:
    strands = shown()
    assert strands.prompt_seconds(B) == pytest.approx(1000 * PACE)
    strands.foresee(B)
    assert strands.cached == [B]
    assert strands.prompt_seconds(B) == 0
    assert strands.prompt_seconds(D) == 0
    strands.foresee(D)
    assert strands.cached == [D]
    assert strands.room == 1


def test_a_run_takes_what_its_answers_usually_do_and_what_is_not_found_of_its_prompt() -> None:
    strands = shown()
    assert strands.run_seconds(D) is None
    for seconds in (3.0, 4.0, 8.0):
        strands.ran(A, prompt(990), seconds + 10 * PACE)
    assert strands.run_seconds(A) == pytest.approx(4.0 + 10 * PACE, rel=0.01)
    ran(strands, B)
    assert strands.run_seconds(A) == pytest.approx(4.0 + 1000 * PACE)


# --- against an engine ---


@given(room=st.integers(1, 4), picks=st.lists(st.integers(0, 5), min_size=60, max_size=120))
def test_the_room_is_never_taken_for_smaller_than_it_was_seen_and_is_learned_up_and_down(
    room: int, picks: list[int]
) -> None:
    engine, strands, last = SimulatedPromptCache(room), Strands(), list[int]()
    for number in picks:
        strand: Strand = (f"client {number}", "")
        others = len(set(last[last.index(number) + 1 :])) if number in last else None
        last = [*(each for each in last if each != number), number]
        strands.ran(strand, engine.run(strand, Prompts(10.0, 0.5)))
        if strands.room is None:
            assert others is None or others < room
        elif others is not None and others < room:
            assert strands.room > others, "it was found"
        else:
            assert others is None or strands.room <= others, "it was lost"
        assert len(strands._known[strand].shares) <= SHARES
    for _ in range(2):  # in a circle of one more than there is room for, and of as many
        for size in (room + 1, room):
            for number in [*range(size)] * 2:
                strand = (f"client {number}", "")
                strands.ran(strand, engine.run(strand, Prompts(10.0, 0.5)))
    assert strands.room == room


# --- what nobody has reported, and loads that bring a prompt back ---


def test_after_a_run_that_nobody_reported_nothing_is_learned_of_what_others_find() -> None:
    strands = Strands()
    for _ in range(4):
        ran(strands, A, cached=990)
    for _ in range(3):
        strands.ran_unreported(B)  # an attempt that was broken off: its prompt may have thrown out the other
        ran(strands, A, cached=0)
    assert not strands.lost
    assert strands.room is None
    ran(strands, A, cached=990)
    ran(strands, B)
    ran(strands, A, cached=0)
    assert strands.lost, "what is reported is learned from again"
    assert strands.cost(A) == 0
    assert strands.cost(B) > 0


def test_a_run_that_nobody_reported_makes_no_strand() -> None:
    strands = Strands()
    strands.ran_unreported(A)
    assert len(strands) == 0
    assert strands.cached == []


def test_a_load_that_brings_back_the_last_prompt_costs_no_prompt() -> None:
    strands = shown()
    assert strands.largest_loss > 0
    strands.loaded()
    ran(strands, A, cached=990)  # it was the last before the load, and its prompt was there
    assert strands.restored
    assert strands.largest_loss == 0
    strands.loaded()
    assert strands.cached == [A]
    assert strands.cost(A) == 0
    twin = strands.copy()
    ran(twin, A, cached=0)
    assert not twin.restored, "it did not come back this time"
    assert strands.restored


def test_of_a_load_that_brings_back_one_prompt_the_others_are_lost() -> None:
    strands = Strands()
    ran(strands, A, B, A)
    strands.loaded()
    ran(strands, A, cached=990)
    strands.room = None
    ran(strands, B)
    assert strands.largest_loss == pytest.approx(1000 * PACE), "that of the one that is not the last"


def test_only_the_first_prompt_after_a_load_says_whether_loads_bring_one_back() -> None:
    strands = shown()
    strands.loaded()
    ran(strands, B)
    ran(strands, A, cached=990)
    assert not strands.restored
