"""The jobs that wait in one lane, by key."""

from __future__ import annotations

from llm_queue.core.fairness import FairQueue
from llm_queue.core.keys import RunnerKey


class LaneQueue:
    """A queue for each key that is wanted in one lane.

    ``waiting`` is how many jobs wait in it, and ``passed_over`` how many picks higher lanes have had meanwhile.
    """

    __slots__ = ("passed_over", "queues", "waiting")

    def __init__(self) -> None:
        self.queues: dict[RunnerKey, FairQueue] = {}
        self.waiting = 0
        self.passed_over = 0

    def wanted(self) -> list[RunnerKey]:
        """The keys for which a job waits."""
        return [key for key, queue in self.queues.items() if queue]

    def copy(self) -> LaneQueue:
        """Another lane with the same jobs, to be used only until this one changes."""
        twin = LaneQueue()
        twin.queues = {key: queue.copy() for key, queue in self.queues.items()}
        twin.passed_over, twin.waiting = self.passed_over, self.waiting
        return twin
