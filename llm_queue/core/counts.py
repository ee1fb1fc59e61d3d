"""What the scheduler counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_queue.core.jobs import State
from llm_queue.core.keys import RunnerKey


@dataclass(slots=True)
class Counts:
    """Totals since the start; times in seconds.

    ``loads_first_come`` is how many loads the same arrivals would have cost if each job had run in the order of
    arrival, at the context size that it wanted itself.
    """

    loads: int = 0
    loads_failed: int = 0
    loads_first_come: int = 0
    load_seconds: float = 0.0
    surprise_loads: int = 0
    retries: int = 0
    ended: dict[State, int] = field(default_factory=dict)
    _last_wanted: RunnerKey | None = None

    def arrived(self, wanted: RunnerKey) -> None:
        """A job was accepted that needs this model at this context size."""
        self.loads_first_come += wanted != self._last_wanted
        self._last_wanted = wanted

    @property
    def reloads_avoided(self) -> int:
        """Loads that the order has saved so far."""
        return max(0, self.loads_first_come - self.loads)
