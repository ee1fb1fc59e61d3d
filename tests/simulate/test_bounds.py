"""The bounds of docs/scheduling.md with turns of strands, for random programs on an engine that keeps a few prompts.

A run each, and as many as the profile of Hypothesis says, but 600 at most.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_queue.core.actions import Action
from llm_queue.core.costs import FIRST_GUESS
from llm_queue.core.jobs import Lane
from llm_queue.core.order import TurnOrder
from llm_queue.core.rules import OrderRules
from llm_queue.simulate.engine import Prompts
from llm_queue.simulate.simulation import Program, Result, Simulation, always, exponential, now_and_then, uniform

RULES = OrderRules()
SOME = settings(max_examples=min(600, settings().max_examples))
seeds = st.integers(0, 1_000_000)


class Watched(Simulation):
    """Looks at each hold: its end, and the turn that it is in. ``dearest`` is the largest loss, in seconds."""

    dearest = 0.0
    load_seconds = 0.0

    def _watch_hold(self, event: Callable[[], list[Action]]) -> list[Action]:
        actions = super()._watch_hold(event)
        turn, hold = self._seat.turn, self._seat.turn.hold
        if hold is not None and hold.key.model in turn.strands:
            cost = max(turn.switch_cost(turn.resident), turn.costs.load(hold.key.model) + self.dearest)
            assert isinstance(self._order, TurnOrder)
            left_at = self._order.last_answer(hold.client, hold.key.model, hold.label)
            assert left_at is not None
            assert hold.until <= left_at + 0.75 * cost + 1e-6
            used = turn.strands[hold.key.model].used + hold.until - turn.held_since
            assert used <= RULES.turn_length(cost) + 1e-6
        return actions


class Drawn:
    """Random programs that want one model each of ``models``, and what bounds their waits."""

    def __init__(self, seed: int, models: str = "a", *, at_once: int = 3) -> None:
        draw = random.Random(seed)
        self.room = draw.randint(1, 3)
        self.load = draw.uniform(0.3, 6.0)
        self.cold = draw.uniform(0.5, 15.0)
        self.longest = draw.uniform(0.1, 20.0)
        self.models = models
        self.programs = [
            self._program(draw, f"{model}{number}", model, at_once)
            for model in models
            for number in range(draw.randint(2, 5 if len(models) == 1 else 3))
        ]

    def _program(self, draw: random.Random, client: str, model: str, at_once: int) -> Program:
        pause = draw.choice([0.005, 0.3, 2.0, 8.0, 40.0])
        return Program(
            client,
            uniform(draw.uniform(0.01, self.longest), self.longest),
            think=draw.choice([exponential(pause), always(pause), now_and_then(always(25.0), always(pause), one_in=4)]),
            model=model,
            start=draw.uniform(0, 30),
            at_once=draw.randint(1, at_once),
            prompts=Prompts(self.cold, draw.uniform(0.0, 0.5) * self.cold, breaks=draw.randrange(6) == 0),
        )

    def play(self, seed: int) -> Result:
        simulation = Watched(self.programs, load=always(self.load), seconds=900.0, seed=seed, keeps=self.room)
        simulation.dearest, simulation.load_seconds = self.cold, self.load
        return simulation.run()

    @property
    def job(self) -> float:
        """The longest job, with its prompt."""
        return self.longest + self.cold

    @property
    def turn(self) -> float:
        return RULES.turn_length(self.cold)

    def strand_bound(self, clients: int) -> float:
        """Bound 3', of a client's first job among so many."""
        return 2 * (clients - 1) * (self.turn + self.job + self.cold) + self.cold

    @property
    def nested_bound(self) -> float:
        """The same, with more than one key."""
        inside = self.strand_bound(max(sum(each.model == model for each in self.programs) for model in self.models))
        cost = max(FIRST_GUESS, self.load + self.cold)  # until it was measured, a load is taken to cost three seconds
        turn, others = RULES.turn_length(cost), len(self.models) - 1
        return inside + (math.ceil(inside / turn) + 1) * (others * (turn + self.job + cost) + cost)


@SOME
@given(seed=seeds)
def test_a_clients_first_job_waits_for_two_turns_of_each_other_client_at_most(seed: int) -> None:
    drawn = Drawn(seed)
    result = drawn.play(seed)
    bound = drawn.strand_bound(len(drawn.programs)) + drawn.load
    assert max(max(each.first_waits) for each in result.served.values()) <= bound


@settings(SOME, max_examples=max(20, SOME.max_examples // 3))
@given(seed=seeds)
def test_with_two_models_it_waits_for_the_turns_of_the_other_key_as_well(seed: int) -> None:
    drawn = Drawn(seed, "ab")
    result = drawn.play(seed)
    assert max(max(each.first_waits) for each in result.served.values()) <= drawn.nested_bound


@SOME
@given(seed=seeds, shares=st.sampled_from([(1.0, 1.0), (1.0, 3.0), (0.5, 1.0)]))
def test_two_that_always_wait_differ_by_a_turn_and_a_loss_and_their_longest_jobs(
    seed: int, shares: tuple[float, float]
) -> None:
    draw = random.Random(seed)
    cold = draw.uniform(0.5, 12.0)
    longest = [draw.uniform(0.1, 15.0), draw.uniform(0.1, 15.0)]
    programs = [
        Program(
            client, uniform(0.05, most), think=always(0.0), at_once=3, share=share, prompts=Prompts(cold, 0.1 * cold)
        )
        for client, most, share in zip("xy", longest, shares, strict=True)
    ]
    result = Watched(programs, load=always(1.0), seconds=600.0, seed=seed, keeps=1).run()
    had, loads = {"x": 1.0, "y": 0.0}, 1.0  # the first has caused the load
    turn = RULES.turn_length(cold)
    (x, y), (x_share, y_share) = (most + cold for most in longest), shares
    bound = (turn + cold) / min(shares) + x / x_share + y / y_share + loads
    for client, seconds in zip(result.order[:-6], result.spans, strict=False):
        had[client] += seconds
        assert abs(had["x"] / x_share - had["y"] / y_share) <= bound


@SOME
@given(seed=seeds)
def test_beside_a_backlog_a_single_job_waits_for_the_rest_of_a_turn_at_most(seed: int) -> None:
    draw = random.Random(seed)
    cold, longest = draw.uniform(0.5, 12.0), draw.uniform(0.1, 15.0)
    backlog = Program("backlog", uniform(0.05, longest), every=always(0.01), jobs=300, prompts=Prompts(cold))
    pause = draw.choice([0.3, 2.0, 8.0, 40.0])
    single = Program("single", uniform(0.05, longest), think=always(pause), start=5.0, prompts=Prompts(cold))
    result = Watched([backlog, single], load=always(1.0), seconds=600.0, seed=seed, keeps=1).run()
    turn = RULES.turn_length(cold)
    waits = result.served[Lane.NORMAL, "single"].first_waits
    assert max(waits) <= turn + cold + 2 * (longest + cold) + 1.0
    if pause > turn:  # a guest, once that is known
        assert max(waits[2:], default=0.0) <= 2 * (longest + cold)


@pytest.mark.parametrize("room", [1, 2, 3])
def test_the_room_of_an_engine_is_learned_by_what_it_finds(room: int) -> None:
    programs = [
        Program(f"client {number}", always(1.0), think=always(0.5), prompts=Prompts(5.0)) for number in range(room + 2)
    ]
    simulation = Watched(programs, load=always(1.0), seconds=600.0, keeps=room)
    simulation.run()
    assert simulation._seat.turn.strands["a"].room == room
