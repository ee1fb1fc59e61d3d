"""What going to another model costs, as measured at one upstream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from llm_queue.core.keys import RunnerKey

COLD_RUNS: Final = 3
"""First runs after a load that are remembered per model. The smallest loss among them is the cold-start cost: one long
job does not raise it."""

FIRST_GUESS: Final = 3.0
"""Seconds that a load is taken to cost before one was measured: a 5 GB model from a laptop's disk."""


@dataclass(slots=True)
class SwitchCost:
    """What going to one model costs, in seconds: ``load`` is its last load, and ``losses`` are how much longer than
    usual the last first runs after a load took.

    A cold cache can cost as much as the load itself; a loss counts no more than that.
    """

    load: float = FIRST_GUESS
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=COLD_RUNS))

    @property
    def seconds(self) -> float:
        """The load and the cold start together. Without three first runs there is no cold-start cost yet."""
        return self.load + (min(self.losses) if len(self.losses) == COLD_RUNS else 0.0)

    def add_cold_run(self, loss: float) -> None:
        """Remember that the first run after a load took ``loss`` seconds longer than its program's usual one."""
        self.losses.append(min(max(0.0, loss), self.load))


class SwitchCosts:
    """The switch cost of every model that was ever loaded at one upstream, and which models were tried at all."""

    def __init__(self) -> None:
        self._costs: dict[str, SwitchCost] = {}
        self._tried: set[str] = set()

    def copy(self) -> SwitchCosts:
        """Other costs, the same so far."""
        twin = SwitchCosts()
        twin._costs = {model: SwitchCost(cost.load, cost.losses.copy()) for model, cost in self._costs.items()}
        twin._tried = self._tried.copy()
        return twin

    def __len__(self) -> int:
        return len(self._costs)

    def load(self, model: str) -> float:
        """Seconds that a load of this model is expected to take: as long as its last one, or the first guess."""
        return self._costs[model].load if model in self._costs else FIRST_GUESS

    def largest(self, keys: Iterable[RunnerKey]) -> float:
        """The largest switch cost among these keys, in seconds; the first guess counts where none was measured."""
        costs = [self._costs[key.model].seconds if key.model in self._costs else FIRST_GUESS for key in keys]
        return max(costs, default=FIRST_GUESS)

    def largest_load(self, keys: Iterable[RunnerKey]) -> float:
        """The largest measured load among these keys, in seconds; the first guess if none was measured."""
        loads = [self._costs[key.model].load for key in keys if key.model in self._costs]
        return max(loads, default=FIRST_GUESS)

    def tried(self, model: str) -> bool:
        """True if a load of this model has ended since the start, well or badly."""
        return model in self._tried

    def load_ended(self, model: str) -> None:
        """A load of this model has ended, well or badly."""
        self._tried.add(model)

    def loaded(self, model: str, seconds: float) -> None:
        """A load of this model succeeded after ``seconds``."""
        self._costs.setdefault(model, SwitchCost()).load = seconds

    def ran_cold(self, model: str, loss: float) -> None:
        """The first run after a load of this model took ``loss`` seconds longer than usual."""
        self._costs[model].add_cold_run(loss)
