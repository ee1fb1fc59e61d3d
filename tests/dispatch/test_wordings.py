"""What people are told of why a job waits, sentence by sentence."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from llm_queue.core.jobs import State
from llm_queue.core.reasons import Competition, Rule
from llm_queue.dispatch.wordings import (
    REASONS,
    Costs,
    Facts,
    Group,
    TurnNow,
    bound,
    bound_to_load,
    costs,
    counted,
    listed,
    seconds,
    sentences,
    waiting_for,
)

CRON = Group("cron", Rule.FAIR_SHARE, 3)
CLICK = Group("click", Rule.HIGHER_LANE, 1)


def said(state: State, waited: float = 3.2, **fields: Any) -> tuple[str, ...]:
    return sentences(Facts(state, waited, **fields))


def test_every_rule_has_words() -> None:
    assert set(REASONS) == set(Rule)


def test_a_job_that_waits_says_what_went_before_it_and_what_it_waits_for() -> None:
    assert said(State.QUEUED, groups=(CRON, CLICK), now_waiting_for="a job of cron runs") == (
        "It has waited 3.2 s, and 4 jobs went before it: 3 of cron (its program had used the slot less) and 1 of click "
        "(a higher lane); now a job of cron runs.",
    )
    assert said(State.QUEUED) == ("It has waited 3.2 s, and nothing has gone before it.",)


@pytest.mark.parametrize(
    ("state", "fields", "sentence"),
    [
        (State.RUNNING, {"started": True}, "It runs now, and had waited 3.2 s."),
        (State.SUCCEEDED, {"started": True}, "It waited 3.2 s."),
        (State.SUCCEEDED, {"started": True, "waited": 0.0}, "It started at once."),
        (State.EXPIRED, {}, "Its max wait was over after 3.2 s."),
        (State.CANCELLED, {}, "It was cancelled when it had waited 3.2 s."),
        (State.CANCELLED, {"started": True}, "It waited 3.2 s."),
        (State.FAILED, {"load_failed": True}, "Its model could not be loaded when it had waited 3.2 s."),
        (State.FAILED, {"code": "load_failed"}, "It never ran (load_failed); it had waited 3.2 s."),
        (
            State.FAILED,
            {"started": True, "code": "upstream_broke"},
            "It waited 3.2 s, ran, and failed (upstream_broke).",
        ),
        (State.TIMED_OUT, {"started": True}, "It waited 3.2 s, ran, and failed."),
    ],
)
def test_each_end_of_a_job_has_its_sentence(state: State, fields: dict[str, Any], sentence: str) -> None:
    assert said(state, **fields) == (sentence,)


def test_an_end_says_what_went_before_too() -> None:
    assert said(State.EXPIRED, groups=(CLICK,)) == (
        "Its max wait was over after 3.2 s; 1 job of click went before it (a higher lane).",
    )


def test_at_most_three_kinds_are_named_and_the_rest_is_counted() -> None:
    groups = tuple(Group(f"p{number}", Rule.FIRST_COME, 2) for number in range(5))
    assert said(State.SUCCEEDED, groups=groups)[0].endswith(
        "10 jobs went before it: 2 of p0 (came earlier), 2 of p1 (came earlier), 2 of p2 (came earlier) and 4 others."
    )


def test_what_is_forgotten_is_not_denied() -> None:
    assert "at least 1 job of click went before it" in said(State.QUEUED, groups=(CLICK,), forgotten=True)[0]


def test_a_job_beside_the_line_waited_for_nobody() -> None:
    assert said(State.SUCCEEDED, remote=True) == (
        "Its model runs elsewhere, so it went beside the line and waited for nobody.",
    )


def test_the_second_sentence_says_what_was_lost_and_what_it_paid() -> None:
    paid = Costs(2, 6.0, 1, 4.0, 0.5, "editor", own_load=3.0, own_prompt=12.4)
    assert said(State.SUCCEEDED, costs=paid)[1] == (
        "2 loads for others took 6.0 s, 1 prompt computed anew took 4.0 s, the slot was kept free for editor for "
        "0.50 s, the load of its model took 3.0 s and its own prompt had to be computed anew, which took 12 s."
    )
    assert costs(Costs()) == ""
    assert costs(Costs(cold_prompts=3, cold_seconds=0.2, hold_seconds=0.01, own_prompt=0.1)) == ""
    assert costs(Costs(own_load=1.0)) == "The load of its model took 1.0 s."


def test_what_it_waits_for_is_named() -> None:
    assert waiting_for(own=True, loading="me", running="me") == "its model is being loaded"
    assert waiting_for(loading="cron", running="cron") == "a model is being loaded for cron"
    assert waiting_for(running="cron") == "a job of cron runs"
    assert waiting_for(away="it is gone") == "it waits for the engine (it is gone)"
    assert waiting_for(held_for="cron") == "the slot is kept free for cron, which is about to ask again"
    assert waiting_for(unloading=True) == "the engine frees its memory"
    assert waiting_for(busy=True) == "the engine is busy with another program"
    assert waiting_for(asking=True) == "the engine is asked what it has loaded"
    assert waiting_for() == ""


def test_a_pause_is_said_beside_what_still_goes_on() -> None:
    assert waiting_for(paused=True) == "the line is paused"
    assert waiting_for(running="cron", paused=True) == "a job of cron runs, and the line is paused"


TURN = TurnNow(left=9.24, length=18.0, cost=2.0)


def against(
    *,
    loaded: int = 0,
    unloaded: int = 0,
    clients: int = 1,
    earlier: int = 0,
    passes: int = 8,
    higher: bool = False,
    first_turn: float | None = None,
    strands_turn: float | None = None,
) -> Competition:
    return Competition(loaded, unloaded, clients, earlier, passes, higher, first_turn, strands_turn)


@pytest.mark.parametrize(
    ("competition", "resident", "text"),
    [
        (against(), True, "It is next."),
        (
            against(clients=3, earlier=4),
            True,
            "4 jobs of its own program came earlier; it takes turns with 2 other programs, by slot time.",
        ),
        (against(passes=3, higher=True), True, "Higher lanes go first, but at most 5 more times."),
        (
            against(unloaded=1),
            True,
            "Its model is loaded, with 9.2 s of its turn left; after that at most 1 turn of 18 s with a load and a job "
            "each, and one load of 2.0 s.",
        ),
        (against(loaded=2), True, "It takes turns with 2 other loaded models, job by job."),
        (
            against(),
            False,
            "At most the rest of this turn (9.2 s of 18 s), the job that runs then, and one load of 2.0 s.",
        ),
        (
            against(loaded=1),
            False,
            "At most the rest of this turn (9.2 s of 18 s), the job that runs then, and one load of 2.0 s.",
        ),
        (
            against(loaded=1, unloaded=2),
            False,
            "At most the rest of this turn (9.2 s of 18 s), the job that runs then, 2 more turns of 18 s with a load "
            "and a job each, and one load of 2.0 s.",
        ),
        (
            against(first_turn=2.0),
            False,
            "Its model was not loaded before, so at most 9.2 s more of this turn, the job that runs then, and one load "
            "of 2.0 s.",
        ),
    ],
)
def test_what_bounds_a_wait_is_said_with_today_s_numbers(competition: Competition, resident: bool, text: str) -> None:
    assert bound(competition, TURN, resident=resident, expires_in=None) == text


@pytest.mark.parametrize(("first_turn", "new"), [(None, "At"), (2.0, "Its model was not loaded before, so at")])
def test_when_the_turn_is_over_it_waits_for_one_job_and_its_load(first_turn: float | None, new: str) -> None:
    over = TurnNow(0.0, 18.0, 2.0)
    found = bound(against(first_turn=first_turn), over, resident=False, expires_in=None)
    assert found == f"{new} most the job that runs, and one load of 2.0 s."


@pytest.mark.parametrize(
    ("competition", "resident", "text"),
    [
        (
            against(loaded=1),
            False,
            "At most the load that goes on, the turn after it (18 s), the job that runs then, and one load of 2.0 s.",
        ),
        (
            against(loaded=1, first_turn=2.0),
            False,
            "Its model was not loaded before, so at most the load that goes on, 18 s of the turn after it, the job "
            "that runs then, and one load of 2.0 s.",
        ),
        (against(), True, "The load that goes on and the job that it is for come first."),
        (
            against(unloaded=1),
            True,
            "The load that goes on and the job that it is for come first; its model is being loaded, with 18 s of its "
            "turn left; after that at most 1 turn of 18 s with a load and a job each, and one load of 2.0 s.",
        ),
    ],
)
def test_a_load_that_goes_on_comes_before_it(competition: Competition, resident: bool, text: str) -> None:
    loading = TurnNow(18.0, 18.0, 2.0, loading=True)
    assert bound(competition, loading, resident=resident, expires_in=None) == text


def test_the_turn_of_conversations_bounds_a_wait_whose_prompt_was_not_kept() -> None:
    turn = TurnNow(9.0, 18.0, 2.0, strands_left=3.5, held_for="loop", held=0.5)
    assert bound(against(strands_turn=20.0, clients=2), turn, resident=True, expires_in=None) == (
        "The engine has not kept its prompt, so at most the rest of the turn of conversations (3.5 s of 20 s) and the "
        "job that runs then; after that, slot time decides; it takes turns with 1 other program, by slot time."
    )
    over = TurnNow(9.0, 18.0, 2.0, strands_left=0.0)
    assert bound(against(strands_turn=20.0), over, resident=True, expires_in=None) == "It is next."


def test_nobody_is_next_while_the_slot_is_kept_for_another() -> None:
    held = TurnNow(9.0, 18.0, 2.0, held_for="loop", held=0.5)
    found = bound(against(), held, resident=True, expires_in=None)
    assert found == "The slot is kept free for loop, for 0.50 s at most."


def test_interactive_jobs_may_go_before_the_one_for_which_its_model_was_loaded() -> None:
    assert bound_to_load(0) == "It is next."
    assert bound_to_load(7) == (
        "Its model was loaded for it, so at most 7 interactive jobs of that model may go first."
    )


def test_a_max_wait_bounds_it_too() -> None:
    assert bound(against(), TURN, resident=True, expires_in=4.5) == "Its max wait ends in 4.5 s."


@pytest.mark.parametrize(
    ("length", "text"),
    [(0.0, "0.00 s"), (0.42, "0.42 s"), (0.96, "1.0 s"), (9.96, "10 s"), (119.4, "119 s"), (200.2, "3 min 20 s")],
)
def test_lengths_of_time_are_as_exact_as_people_need_them(length: float, text: str) -> None:
    assert seconds(length) == text


def test_small_words() -> None:
    assert [counted(number, "load") for number in (0, 1, 2)] == ["0 loads", "1 load", "2 loads"]
    assert [listed("abc"[:number]) for number in (0, 1, 2, 3)] == ["", "a", "a and b", "a, b and c"]


groups = st.builds(Group, st.sampled_from(["cron", "click"]), st.sampled_from(Rule), st.integers(1, 99))


@given(
    state=st.sampled_from(State),
    waited=st.floats(0, 1e5),
    went=st.lists(groups, max_size=6),
    started=st.booleans(),
    paid=st.builds(Costs, st.integers(0, 9), st.floats(0, 99), own_load=st.none() | st.floats(0, 99)),
)
def test_whatever_happened_it_is_one_or_two_whole_sentences(
    state: State, waited: float, went: list[Group], started: bool, paid: Costs
) -> None:
    found = said(state, waited, groups=tuple(went), started=started, costs=paid)
    assert len(found) in (1, 2)
    for sentence in found:
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert "  " not in sentence
