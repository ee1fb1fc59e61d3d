"""Stories to simulate: who calls on a laptop, and how four ways of ordering them compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Final

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.jobs import Lane
from llm_queue.core.order import TurnOrder
from llm_queue.core.rules import Order, OrderRules
from llm_queue.simulate.agents import AGENT_STORIES
from llm_queue.simulate.orders import first_come, grouping, priority_only
from llm_queue.simulate.simulation import (
    Program,
    Result,
    Simulation,
    always,
    exponential,
    heavy_tailed,
    uniform,
)
from llm_queue.simulate.story import Story


def _closed_loops(models: int, service: float) -> tuple[Program, ...]:
    return tuple(
        Program(f"program {number + 1}", uniform(0.8 * service, 1.2 * service), exponential(0.005), model=f"m{number}")
        for number in range(models)
    )


STORIES: Final[dict[str, Story]] = {
    "two": Story(
        "two closed-loop programs on two models",
        "the model computes nearly all the time, where the other orders reload it at every request",
        _closed_loops(2, 0.45),
    ),
    "four": Story(
        "four closed-loop programs on four models",
        "the same with four, each waiting for the turns of the others",
        _closed_loops(4, 0.45),
    ),
    "burst": Story(
        "a burst of 50 long and 50 short jobs from two programs on one model",
        "fair share: the short jobs do not wait behind all the long ones, and the whole takes no longer",
        (
            Program("long", uniform(4.0, 8.0), every=uniform(0.0, 0.002), jobs=50),
            Program("short", uniform(0.2, 0.6), every=uniform(0.0, 0.002), jobs=50),
        ),
    ),
    "sizes": Story(
        "two closed-loop programs that ask for two context sizes of one model",
        "one size serves both, so there is no reload after the first",
        (
            Program("small", uniform(0.4, 0.5), exponential(0.005), num_ctx=4096),
            Program("large", uniform(0.4, 0.5), heavy_tailed(0.005), num_ctx=16384),
        ),
    ),
    "cron": Story(
        "a cron job's 60 classifications, an extension's trickle on another model, a click every 20 s",
        "the click goes first, and its price is loads: the whole may end later than first come, first served",
        (
            Program("cron job", uniform(0.8, 1.6), exponential(0.02), model="large", jobs=60),
            Program("extension", uniform(0.3, 0.6), every=exponential(4.0), model="small", jobs=30),
            Program("click", uniform(0.5, 1.0), every=always(20.0), model="large", lane=Lane.INTERACTIVE, jobs=6),
        ),
        seconds=120.0,
    ),
    **AGENT_STORIES,
}


def orders(rules: OrderRules) -> dict[str, Callable[[ContextSizes], Order]]:
    """The ways of ordering that are compared; the last is ours."""
    return {
        "first come": first_come,
        "priority": priority_only,
        "grouping": grouping,
        "llm-queue": lambda contexts: TurnOrder(rules, contexts),
    }


def simulate(
    story: Story, load: float, order: Callable[[ContextSizes], Order], *, seed: int = 1, reports: bool = True
) -> Result:
    """Play a story once; ``reports`` says whether the engine tells what prompts took."""
    return Simulation(
        story.programs,
        load=always(load),
        seconds=story.seconds,
        order=order,
        seed=seed,
        keeps=story.keeps,
        reports=reports,
    ).run()


def table(names: list[str], load_costs: tuple[float, ...], rules: OrderRules) -> str:
    """The comparison as text: throughput, loads, holds, and the median and longest wait of each program, in seconds.

    ``load_costs`` are the seconds that a load takes, each in a table of its own; with none, each story has its own.
    """
    lines = []
    for name in names:
        story = STORIES[name]
        for load in load_costs or story.loads:
            lines += [f"{name}: {story.title}; a load takes {load:g} s", f"  shows: {story.shows}", ""]
            clients = [program.client for program in story.programs]
            waits = "".join(f"  {client:>19}" for client in clients)
            lines.append(f"  {'order':<11} answers  useful  of bound  loads  cold  holds  held{waits}")
            lines += [_row(label, result, clients) for label, result in _results(story, load, rules)]
            lines.append("")
    return "\n".join([*lines, _LEGEND])


def _results(story: Story, load: float, rules: OrderRules) -> Iterator[tuple[str, Result]]:
    ways = orders(rules)
    for label, order in ways.items():
        yield label, simulate(story, load, order)
    if story.has_prompts:
        yield "not told", simulate(story, load, ways["llm-queue"], reports=False)
        first = replace(story, programs=story.programs[:1])
        yield "one alone", simulate(first, load, ways["llm-queue"])


def _row(label: str, result: Result, clients: list[str]) -> str:
    by_client = {client: served for (_, client), served in result.served.items()}
    waits = "".join(
        f"  {f'{served.median_wait:.1f} / {served.longest_wait:.1f} / {served.done_at:.0f}':>19}"
        for served in (by_client[client] for client in clients if client in by_client)
    )
    of_bound = result.bound / result.finished_at if result.finished_at else 0.0
    return (
        f"  {label:<11} {result.answers:>7}  {result.useful:>6.2f}  {of_bound:>8.2f}  {result.loads:>5}  "
        f"{result.cold:>4}  {result.holds:>5}  {result.held_seconds:>4.0f}{waits}"
    )


def saved_for_the_short(load: float = 0.5, rules: OrderRules | None = None) -> float:
    """By how much fair share shortens the median wait of the burst's short jobs, against first come, first served."""
    story = STORIES["burst"]
    waits = {
        label: median(simulate(story, load, order).served[Lane.NORMAL, "short"].waits)
        for label, order in orders(rules or OrderRules()).items()
    }
    return 1 - waits["llm-queue"] / waits["first come"]


_LEGEND: Final = (
    "answers: in the time of the story. useful: share of that time in which a model computed answers, and prompts as\n"
    "long as they take at best. of bound: the earliest possible end (all run times, one load per key) over the real\n"
    "one. loads, holds: how many; cold: prompts that were computed as a whole; held: seconds.\n"
    "For each program: median / longest wait in seconds, loads included / when its last answer was there.\n"
    "not told: llm-queue, if the engine does not say what prompts took. one alone: the first program by itself."
)
