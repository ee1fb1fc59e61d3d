"""The promises in virtual time: what the line costs, what it saves, and how long one waits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.jobs import Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.rules import Order, OrderRules
from llm_queue.simulate.orders import first_come, grouping, priority_only
from llm_queue.simulate.simulation import (
    Program,
    Result,
    Seconds,
    Simulation,
    always,
    exponential,
    heavy_tailed,
    uniform,
)
from llm_queue.simulate.stories import STORIES, orders, saved_for_the_short, simulate, table

TURN = 20.0
LOAD = 6.0


def two_loops(think: Seconds, models: str = "ab") -> list[Program]:
    return [Program(f"on {model}", always(0.05), think=think, model=model) for model in models]


def play(
    programs: list[Program], *, load: float = LOAD, seconds: float = 600.0, rules: OrderRules | None = None
) -> Result:
    return Simulation(programs, load=always(load), seconds=seconds, rules=rules).run()


@pytest.mark.parametrize("think", [uniform(0, 0.01), exponential(0.005), heavy_tailed(0.005)])
def test_two_closed_loops_on_two_models_get_most_of_what_one_alone_gets(think: Seconds) -> None:
    alone = play(two_loops(think, "a"), load=0.5)
    both = play(two_loops(think), load=0.5)
    assert both.answers / alone.answers >= 0.85


def first_contact(start: float, *, measured: bool) -> tuple[Result, Result]:
    """Loads of 0.5 s; a second loop comes at ``start``. Returns what became of both, and of the first one alone."""
    first, second = two_loops(exponential(0.005))
    resident = None if measured else RunnerKey(first.model, first.num_ctx)
    both, alone = (
        Simulation(programs, load=always(0.5), seconds=15.0, resident=resident).run()
        for programs in ([first, replace(second, start=start)], [first])
    )
    return both, alone


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("start", [0.0, 1.0, 2.5, 5.0, 10.0, 14.0])
def test_a_second_model_waits_three_seconds_at_most_when_it_is_first_asked_for(start: float, measured: bool) -> None:
    both, alone = first_contact(start, measured=measured)
    assert both.served[Lane.NORMAL, "on b"].waits[0] <= 3.0
    assert both.answers / alone.answers >= 0.7


@pytest.mark.parametrize("load", [0.5, 2.0, 6.0])
def test_programs_that_come_one_after_the_other_wait_for_little_more_than_their_load(load: float) -> None:
    programs = [
        Program(f"on {model}", uniform(0.36, 0.54), think=always(0.005), model=model, start=start)
        for model, start in zip("abcd", [0.0, 20.0, 50.0, 80.0], strict=True)
    ]
    result = Simulation(programs, load=always(load), seconds=200.0).run()
    for program in programs:
        assert result.served[Lane.NORMAL, program.client].waits[0] <= 2 * load + 1.0
    assert result.useful >= {0.5: 0.85, 2.0: 0.8, 6.0: 0.6}[load]


def test_without_holds_they_get_less_than_a_third_of_it() -> None:
    think = uniform(0, 0.01)
    assert play(two_loops(think), load=0.5, rules=OrderRules(hold=False)).useful < 0.3


def test_nobody_is_held_for_a_program_that_thinks_longer_than_it_would_save() -> None:
    assert play(two_loops(uniform(3.1, 4.0)), seconds=300.0).holds == 0


@pytest.mark.parametrize(
    ("run", "think", "load", "useful"),
    [(always(0.5), uniform(0.2, 2.0), 6.0, 0.22), (uniform(0.5, 3.0), uniform(0.2, 1.5), 2.0, 0.56)],
)
def test_programs_that_think_for_up_to_half_a_switch_are_worth_waiting_for(
    run: Seconds, think: Seconds, load: float, useful: float
) -> None:
    programs = [Program(model, run, think=think, model=model) for model in "ab"]
    assert play(programs, load=load, seconds=1500.0).useful >= useful


@pytest.mark.parametrize("models", [2, 3, 4, 5])
def test_with_loads_of_six_seconds_three_quarters_of_the_time_are_useful(models: int) -> None:
    programs = [
        Program(model, uniform(0.2, 2.0), think=uniform(0, 1), model=model, at_once=3) for model in "abcde"[:models]
    ]
    assert play(programs, seconds=1200.0).useful >= 0.75


@pytest.mark.parametrize("models", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(8))
def test_every_wait_is_within_the_bound_of_turns(models: int, seed: int) -> None:
    draw = random.Random(seed)
    longest, load = draw.uniform(0.1, 40.0), draw.uniform(0.3, 12.0)
    programs = [
        Program(
            model,
            uniform(draw.uniform(0.01, longest), longest),
            think=exponential(draw.choice([0.005, 0.3, 2.0, 30.0])),
            model=model,
            start=draw.uniform(0, 30),
        )
        for model in "abcde"[:models]
    ]
    result = Simulation(programs, load=always(load), seconds=1500.0, seed=seed).run()
    # Until its load was measured, a key is taken to cost three seconds, and the turn is the longer of both.
    cost = max(load, 3.0)
    turn = max(cost, min(9 * cost, TURN))
    for served in result.served.values():
        assert served.longest_wait <= (models - 1) * (turn + longest + cost) + cost


def test_a_job_is_not_put_off_by_those_who_only_now_want_another_model() -> None:
    steady = [Program(model, always(25.0), think=always(0.01), model=model) for model in "ab"]
    once = [Program(f"once {n}", always(25.0), every=always(1e9), model=f"m{n}", start=120.0 * n) for n in range(1, 12)]
    result = play([*steady, *once], seconds=1440.0)
    for model in "ab":  # at most three models are wanted at a time
        assert result.served[Lane.NORMAL, model].longest_wait <= 2 * (TURN + 25.0 + LOAD) + LOAD


def test_twenty_jobs_each_at_once_in_turn_cost_one_load_each() -> None:
    result = play([Program(model, always(0.3), every=always(0.6), model=model, jobs=20) for model in "ab"])
    assert result.loads <= 4


@pytest.mark.parametrize("load", [0.5, 6.0])
def test_fair_share_spares_the_short_jobs_of_a_burst_most_of_their_wait(load: float) -> None:
    programs = [
        Program("long", uniform(4, 8), every=always(0.001), jobs=50),
        Program("short", uniform(0.2, 0.6), every=always(0.001), jobs=50),
    ]
    ours = Simulation(programs, load=always(load), seconds=1000.0).run()
    naive = Simulation(programs, load=always(load), seconds=1000.0, order=first_come).run()
    short = (Lane.NORMAL, "short")
    assert ours.served[short].median_wait <= 0.3 * naive.served[short].median_wait
    assert ours.answers == naive.answers == 100


@pytest.mark.parametrize("interactive", [5.0, 30.0])
def test_clicks_on_one_model_never_starve_another(interactive: float) -> None:
    clicks = Program("click", always(0.5), every=always(interactive), model="a", lane=Lane.INTERACTIVE)
    cron = Program("cron", always(1.0), think=always(0.01), model="b", lane=Lane.BACKGROUND, jobs=30)
    result = play([clicks, cron], load=3.0)
    served = result.served[Lane.BACKGROUND, "cron"]
    assert len(served.waits) == 30
    assert served.longest_wait <= 20.0
    # A click may have to wait for what runs or loads, for its own load, and for the one job that a load is bound to.
    assert result.served[Lane.INTERACTIVE, "click"].longest_wait <= 3.0 + 1.0 + 3.0


def test_every_lane_gets_on_when_all_are_busy() -> None:
    programs = [
        Program(f"{lane.label} {model}", always(0.5), think=always(0.0), model=model, lane=lane, at_once=2)
        for lane in Lane
        for model in "ab"
    ]
    result = play(programs, load=1.0)
    served = [len(result.served[program.lane, program.client].waits) for program in programs]
    assert min(served) >= 10
    assert sum(served[:2]) > sum(served[2:4]) > 0


@pytest.mark.parametrize("order", [first_come, priority_only, grouping])
def test_the_orders_it_is_compared_with_finish_the_same_work(order: Callable[[ContextSizes], Order]) -> None:
    programs = [Program(model, always(1.0), at_once=5, jobs=5, model=model) for model in "ab"]
    result = Simulation(programs, load=always(2.0), seconds=100.0, order=order).run()
    assert result.answers == 10
    assert result.finished_at >= result.bound


def test_the_same_seed_gives_the_same_run() -> None:
    programs = two_loops(exponential(0.1))
    assert play(programs, seconds=60.0) == play(programs, seconds=60.0)


def test_a_table_says_what_its_story_shows_and_has_a_row_for_each_order() -> None:
    text = table(["burst"], (0.5,), OrderRules())
    assert STORIES["burst"].shows in text
    for order in orders(OrderRules()):
        assert f"\n  {order} " in text
    assert saved_for_the_short() > 0.3


def test_the_first_story_is_one_in_which_the_line_answers_most() -> None:
    name, story = next(iter(STORIES.items()))
    answers = {order: simulate(story, 6.0, made).answers for order, made in orders(OrderRules()).items()}
    assert max(answers, key=lambda order: answers[order]) == "llm-queue", name


@pytest.mark.parametrize("share", [0.5, 2.0, 5.0])
def test_a_share_is_what_a_program_has_of_the_slot_while_all_have_work(share: float) -> None:
    programs = [
        Program("weighted", uniform(0.5, 3.0), every=always(0.01), share=share),
        Program("plain", uniform(0.5, 3.0), every=always(0.01)),
    ]
    order = Simulation(programs, load=always(3.0), seconds=8.0).run().order[:600]
    assert order.count("weighted") / order.count("plain") == pytest.approx(share, rel=0.15)
