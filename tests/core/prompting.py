"""A driver of an engine that keeps a few prompts, and two agents that throw out each other's."""

from __future__ import annotations

from llm_queue.core.prompts import Ending
from llm_queue.core.rules import OrderRules
from llm_queue.core.strands import Strand, Strands, strand_of
from llm_queue.simulate.engine import Prompts, SimulatedPromptCache
from tests.core.driver import Driver, key

COLD = 10.0
"""Seconds that a prompt takes that was thrown out; one that is still there takes none."""


class OnAnEngine(Driver):
    """A driver of an upstream that keeps the prompts of so many strands, and says what each prompt took."""

    def __init__(self, keeps: int = 1, *, rules: OrderRules | None = None, room: int = 1) -> None:
        super().__init__(resident=(key("a"),), rules=rules, room=room)
        self.cache = SimulatedPromptCache(keeps)

    def answer_one(self, seconds: float = 3.0, *, ending: Ending | None = None) -> str:
        """End what runs, after its prompt and so many seconds. Returns who it was."""
        assert self.running is not None
        prompt = self.cache.run(strand_of(self.running.job), Prompts(COLD))
        return self.run(prompt.seconds + seconds, prompt=prompt, ending=ending).client

    def loop(self, client: str, times: int = 3, *, think: float = 0.5, ending: Ending | None = None) -> None:
        """Ask again and again, so that it is known to; it ends in the moment of its last answer."""
        for number in range(times):
            if number:
                self.wait(think)
            self.submit(client)
            self.answer_one(ending=ending)

    def client(self) -> str:
        assert self.running is not None
        return self.running.job.client


def two(*, rules: OrderRules | None = None, room: int = 1, think: float = 0.5) -> OnAnEngine:
    """Agents a and b have thrown each other out, and a has used nine seconds of its turn; each knows of the other."""
    driver = OnAnEngine(rules=rules, room=room)
    for client in "abab":
        driver.loop(client, 3, think=think)
        driver.wait(20.0)  # nobody is waited for that long
    driver.loop("a", 3, think=think)
    assert driver.turn.strands["a"].used == 9.0
    return driver


def lost(*cached: str) -> Strands:
    """Strands of which those of ``cached`` are, and any other would throw one out."""
    engine, strands = SimulatedPromptCache(len(cached)), Strands()
    for client in [*cached, "z", *cached, *cached]:
        strand: Strand = (client, "")
        strands.ran(strand, engine.run(strand, Prompts(COLD)))
    assert strands.room == len(cached)
    return strands
