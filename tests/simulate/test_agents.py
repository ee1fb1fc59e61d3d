"""What the line does for programs with long prompts, on an engine that keeps a few: the bars, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from statistics import median

import pytest

from llm_queue.core.jobs import Lane
from llm_queue.core.prompts import Ending
from llm_queue.core.rules import OrderRules
from llm_queue.simulate.agents import (
    QUICK_TOOL,
    agent,
    agents,
    classifiers,
    household,
    small_agents,
)
from llm_queue.simulate.engine import Prompts
from llm_queue.simulate.simulation import Program, Result, Served, Simulation, always, uniform
from llm_queue.simulate.stories import STORIES, orders, simulate, table

SEEDS = (1, 2)
SECONDS = 3000.0
NO_HOLDS = OrderRules(hold=False)


def play(
    programs: tuple[Program, ...],
    keeps: int | None,
    *,
    load: float = 1.0,
    rules: OrderRules | None = None,
    reports: bool = True,
    seeds: tuple[int, ...] = SEEDS,
) -> list[Result]:
    return [
        Simulation(
            programs, load=always(load), seconds=SECONDS, seed=seed, keeps=keeps, rules=rules, reports=reports
        ).run()
        for seed in seeds
    ]


def answers(results: list[Result]) -> int:
    return sum(result.answers for result in results)


@cache
def alone(program: Program, load: float) -> int:
    return answers(play((program,), 1, load=load))


def share(programs: tuple[Program, ...], keeps: int | None, load: float = 1.0, **how: object) -> float:
    """How many answers they get together, for each that the first of them gets alone."""
    return answers(play(programs, keeps, load=load, **how)) / alone(programs[0], load)  # type: ignore[arg-type]


def served(result: Result, client: str) -> Served:
    return next(each for (_, name), each in result.served.items() if name == client)


BARS: list[tuple[str, tuple[Program, ...], int, float, float]] = [
    ("two agents, 10.5 s", agents(2, 10.5), 1, 1.0, 0.85),
    ("three agents, 10.5 s", agents(3, 10.5), 1, 1.0, 0.82),
    ("two agents, 4 s", agents(2, 4.0), 1, 1.0, 1.15),
    ("four agents, 10.5 s, room for two", agents(4, 10.5), 2, 1.0, 1.10),
    ("two small agents, 3.2 s", small_agents(2), 1, 1.0, 0.80),
    ("three small agents, 3.2 s, room for two", small_agents(3), 2, 1.0, 1.60),
    ("two models with an agent each, 10.5 s", agents(2, 10.5, models="ab"), 1, 2.0, 0.78),
    ("two models with two agents each, 10.5 s", agents(4, 10.5, models="ab"), 1, 2.0, 0.72),
]


@pytest.mark.parametrize(("programs", "keeps", "load", "bar"), [bar[1:] for bar in BARS], ids=[bar[0] for bar in BARS])
def test_programs_that_throw_out_each_others_prompts_get_nearly_what_one_alone_gets(
    programs: tuple[Program, ...], keeps: int, load: float, bar: float
) -> None:
    assert share(programs, keeps, load) >= bar


@pytest.mark.parametrize(("cold", "bar"), [(0.4, 0.88), (4.0, 0.78)], ids=["on a GPU", "on a CPU"])
def test_two_classifiers_with_prompts_of_their_own_get_nearly_what_one_alone_gets(cold: float, bar: float) -> None:
    programs = classifiers(cold)
    both, one = (
        Simulation(those, load=always(1.0), seconds=900.0, keeps=1).run().answers for those in (programs, programs[:1])
    )
    assert both / one >= bar


def test_with_room_for_some_the_order_alone_gains_half_of_the_time() -> None:
    assert share(agents(4, 10.5), 2, rules=NO_HOLDS) >= 1.05
    assert share(agents(4, 10.5), 2, reports=False) <= 0.55


def test_with_the_setting_off_a_prompt_is_lost_as_if_nobody_had_told() -> None:
    off = replace(OrderRules(), strands=False)
    assert share(agents(2, 10.5), 1, rules=off) == share(agents(2, 10.5), 1, reports=False)


def test_bursts_of_two_programs_are_done_in_less_than_half_of_the_time() -> None:
    story, ours = STORIES["prompt-bursts"], orders(OrderRules())["llm-queue"]
    told, untold = (simulate(story, 1.0, ours, reports=reports) for reports in (True, False))
    assert told.finished_at <= 0.45 * untold.finished_at


@pytest.mark.parametrize(
    ("programs", "keeps"),
    [(agents(4, 10.5), 4), (agents(4, 4.0), None), (agents(4, 0.6), 1), (agents(2, 0.0), 1)],
    ids=["room for all", "room without end", "a prompt takes as long in any case", "a prompt takes no time"],
)
def test_where_nothing_is_lost_answers_are_as_many_as_without_reports_and_nobody_is_held_for(
    programs: tuple[Program, ...], keeps: int | None
) -> None:
    told, untold = (play(programs, keeps, reports=reports) for reports in (True, False))
    assert answers(told) == pytest.approx(answers(untold), rel=0.01)
    assert sum(result.holds for result in told) == 0


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("load", [0.5, 6.0])
def test_while_no_loss_was_shown_each_story_is_played_pick_by_pick_as_without_reports(name: str, load: float) -> None:
    story, ours = STORIES[name], orders(OrderRules())["llm-queue"]
    programs = tuple(replace(each, prompts=Prompts(0.0), label=each.client) for each in story.programs)
    told, untold = (
        simulate(replace(story, programs=programs), load, ours, reports=reports) for reports in (True, False)
    )
    assert told.order == untold.order
    assert told == untold


def test_with_room_for_all_it_is_pick_by_pick_the_same_though_cold_prompts_are_long() -> None:
    told, untold = (play(agents(4, 10.5), 4, reports=reports, seeds=(1,)) for reports in (True, False))
    assert told == untold


# --- people ---


def waits(results: list[Result], client: str) -> list[float]:
    return sorted(wait for result in results for wait in served(result, client).waits)


@pytest.mark.parametrize("cold", [4.0, 10.5])
def test_a_person_in_the_lane_of_an_agent_and_a_cron_job_does_not_pay_for_their_turns(cold: float) -> None:
    seeds = (1, 2, 3, 4)
    told, untold = (waits(play(household(cold), 1, reports=r, seeds=seeds), "person") for r in (True, False))
    assert median(told) <= 1.2 * median(untold)
    assert told[int(0.95 * len(told))] <= 1.2 * untold[int(0.95 * len(untold))]


def test_with_turns_of_eighty_seconds_agents_get_what_one_alone_gets_and_a_person_does_not_pay_for_it() -> None:
    long_turns = OrderRules(switch_wait=80.0)
    assert share(agents(2, 10.5), 1, rules=long_turns) >= 0.98
    told = waits(play(household(10.5), 1, rules=long_turns), "person")
    untold = waits(play(household(10.5), 1, reports=False), "person")
    assert median(told) <= median(untold)
    assert told[int(0.95 * len(told))] <= untold[int(0.95 * len(untold))]


def test_an_interactive_person_waits_no_longer_and_the_agent_behind_it_gets_more() -> None:
    programs = household(10.5, lanes=(Lane.INTERACTIVE, Lane.NORMAL, Lane.BACKGROUND))
    told, untold = (play(programs, 1, reports=reports) for reports in (True, False))
    assert median(waits(told, "person")) <= median(waits(untold, "person"))
    assert len(waits(told, "agent")) >= 1.5 * len(waits(untold, "agent"))


def test_what_follows_an_answer_that_a_person_reads_is_not_taken_for_the_pause_of_a_tool() -> None:
    reads = ((Ending.TOOLS, QUICK_TOOL), (Ending.STOP, uniform(15.0, 60.0)))
    told = tuple(replace(each, think=None, endings=reads) for each in agents(4, 10.5))
    untold = tuple(replace(each, endings=tuple((Ending.STOP, think) for _, think in reads)) for each in told)
    assert answers(play(told, 1)) >= 0.98 * answers(play(untold, 1))


# --- fairness ---


@pytest.mark.parametrize(("programs", "keeps"), [(agents(2, 10.5), 1), (agents(4, 10.5), 2), (agents(2, 4.0), 1)])
def test_equals_have_had_as_much_of_the_slot_in_the_end(programs: tuple[Program, ...], keeps: int) -> None:
    result = Simulation(programs, load=always(1.0), seconds=12_000.0, keeps=keeps).run()
    seconds = [each.slot_seconds for each in result.served.values()]
    assert min(seconds) / max(seconds) >= 0.85


def test_who_breaks_its_own_prompt_takes_nothing_from_who_does_not() -> None:
    breaks = replace(agent("breaks", 10.5), prompts=Prompts(10.5, 0.6, breaks=True))
    told, untold = (play((agent("keeps", 10.5), breaks), 1, reports=reports) for reports in (True, False))
    assert len(waits(told, "keeps")) >= 1.2 * len(waits(untold, "keeps"))
    assert len(waits(told, "breaks")) >= 0.85 * len(waits(untold, "breaks"))


# --- what is shown ---


def test_the_table_of_such_a_story_says_what_it_is_without_reports_and_for_one_alone() -> None:
    text = table(["agents"], (), OrderRules())
    assert "a load takes 1 s" in text
    rows = {line[2:13].strip(): line.split() for line in text.splitlines() if line.startswith("  ")}
    assert {"llm-queue", "not told", "one alone"} <= set(rows)
    ours, untold, one = (int(rows[label][1 + label.count(" ")]) for label in ("llm-queue", "not told", "one alone"))
    assert untold < 0.65 * one
    assert ours > 0.85 * one
