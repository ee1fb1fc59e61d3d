"""Stories of programs whose prompts cost more than their answers, on an engine that keeps only a few of them."""

from __future__ import annotations

from typing import Final

from llm_queue.core.jobs import Lane
from llm_queue.simulate.engine import Prompts
from llm_queue.simulate.simulation import Program, Seconds, always, now_and_then, uniform
from llm_queue.simulate.story import Story

QUICK_TOOL: Final = uniform(0.2, 2.0)

TOOL: Final = now_and_then(always(20.0), QUICK_TOOL, one_in=10)
"""Seconds that an agent's tool takes: one in ten is slow."""


def agent(
    client: str,
    cold: float,
    *,
    warm: float = 0.6,
    run: float = 3.0,
    tool: Seconds = TOOL,
    model: str = "a",
    lane: Lane = Lane.NORMAL,
) -> Program:
    """An agent: prompts of ``cold`` seconds, of ``warm`` ones while they are kept, answers of ``run`` seconds."""
    return Program(client, always(run), think=tool, model=model, lane=lane, prompts=Prompts(cold, min(warm, cold)))


def agents(number: int, cold: float, *, models: str = "a") -> tuple[Program, ...]:
    """So many agents, in turn on each of the models."""
    return tuple(agent(f"agent {each + 1}", cold, model=models[each % len(models)]) for each in range(number))


def classifiers(cold: float) -> tuple[Program, ...]:
    """Two classifiers with system prompts of their own, which take ``cold`` seconds; they ask again at once."""
    return tuple(agent(f"classifier {each}", cold, warm=0.0, run=0.4, tool=always(0.005)) for each in (1, 2))


def small_agents(number: int) -> tuple[Program, ...]:
    """Agents with a small model on two cores: prompts of 3.2 s, answers of a third of a second."""
    return tuple(agent(f"agent {each + 1}", 3.2, warm=0.1, run=0.35, tool=QUICK_TOOL) for each in range(number))


def household(cold: float, *, lanes: tuple[Lane, Lane, Lane] = (Lane.NORMAL,) * 3) -> tuple[Program, ...]:
    """A person, an agent and a cron job with one model, in these lanes."""
    person, of_agent, cron = lanes
    return (
        Program("person", always(3.0), think=uniform(15.0, 60.0), lane=person, prompts=Prompts(cold, 0.6)),
        agent("agent", cold, lane=of_agent),
        Program("cron job", always(0.45), think=always(0.005), lane=cron, prompts=Prompts(cold)),
    )


def _bursts() -> tuple[Program, ...]:
    def burst(name: str) -> Program:
        return Program(name, always(0.4), every=uniform(0.0, 0.002), jobs=50, prompts=Prompts(1.0))

    return burst("one"), burst("other")


def _story(title: str, shows: str, programs: tuple[Program, ...], *, keeps: int = 1, load: float = 1.0) -> Story:
    return Story(title, shows, programs, seconds=1200.0, keeps=keeps, loads=(load,))


AGENT_STORIES: Final[dict[str, Story]] = {
    "agents": _story(
        "two agents with prompts of 10.5 s, on an engine that keeps one prompt",
        "together they get nearly as many answers as one alone; prompt by prompt it is half of that",
        agents(2, 10.5),
    ),
    "short-prompts": _story(
        "two agents with prompts of 4 s, on an engine that keeps one prompt",
        "together they get more answers than one alone, which leaves the model idle while its tools work",
        agents(2, 4.0),
    ),
    "room-for-two": _story(
        "four agents with prompts of 10.5 s, on an engine that keeps two prompts",
        "the line learns for how many there is room, and lets two go on at a time",
        agents(4, 10.5),
        keeps=2,
    ),
    "room-for-all": _story(
        "four agents with prompts of 10.5 s, on an engine that keeps all their prompts",
        "nothing is lost, so nothing is changed and nobody is held for",
        agents(4, 10.5),
        keeps=4,
    ),
    "classifiers": _story(
        "two classifiers with system prompts of their own of 4 s, on an engine that keeps one prompt",
        "each answer takes 0.4 s, and most of the time goes into prompts unless they take turns",
        classifiers(4.0),
    ),
    "prompt-bursts": _story(
        "bursts of 50 jobs each from two programs with prompts of 1 s, on an engine that keeps one prompt",
        "both are done in less than half of the time",
        _bursts(),
    ),
    "agents-apart": _story(
        "two models with an agent each, prompts of 10.5 s, on an engine that keeps one prompt and one model",
        "a load costs its seconds and a prompt: the turns are as long as that is worth",
        agents(2, 10.5, models="ab"),
        load=2.0,
    ),
    "household": _story(
        "a person, an agent and a cron job with prompts of 10.5 s in one lane, on an engine that keeps one prompt",
        "the person does not wait for the turns of the others",
        household(10.5),
    ),
}
