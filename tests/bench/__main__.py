"""What the line costs: the core at many waiting jobs, and a request through the service against one past it.

Ratios are taken side by side in one run, rounds interleaved. Run it with ``nox -s bench`` on a quiet machine.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import httpx

from llm_queue.core.actions import StartAttempt, StartLoad
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import AttemptEnded, Left, Outcome, ProbeEnded, Submitted
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import OrderRules, TurnOrder
from llm_queue.core.scheduler import RetryLimits, Scheduler
from llm_queue.core.seat import Seat
from llm_queue.errors import Cancelled
from tests.e2e.conftest import Ollama, Service

CLIENTS = 100
ROUNDS = 9
SIZES = (100, 10_000, 100_000)


class Core:
    """A scheduler with many waiting jobs of many clients, and one that runs."""

    def __init__(self, waiting: int) -> None:
        self._draw = random.Random(7)
        self._serial = 0
        self.now = 0.0
        contexts = ContextSizes(8192, 65536)
        self.scheduler = Scheduler(TurnOrder(OrderRules(), contexts), Seat(contexts, self.now), RetryLimits())
        self.scheduler.tick(self.now)
        resident = frozenset({RunnerKey("m0", 8192), RunnerKey("m1", 8192)})
        self.scheduler.handle(ProbeEnded(None, resident), self.now)
        self.jobs: list[Job] = []
        for _ in range(waiting + 1):
            self.submit()

    def submit(self) -> None:
        """One more job, of any client, lane and model."""
        self._serial += 1
        job = Job(
            id=str(self._serial),
            lane=self._draw.choice(list(Lane)),
            client=f"client {self._draw.randrange(CLIENTS)}",
            model=f"m{self._draw.randrange(2)}",
            wanted_ctx=8192,
            arrival=self._serial,
            submitted_at=self.now,
            max_wait=self._draw.choice([None, 1e9]),
        )
        self.jobs.append(job)
        self.scheduler.handle(Submitted(job), self.now)

    def cancel(self) -> None:
        """Any job that waits is over."""
        while True:
            place = self._draw.randrange(len(self.jobs))
            self.jobs[place], self.jobs[-1] = self.jobs[-1], self.jobs[place]
            job = self.jobs.pop()
            if job.state is State.QUEUED:
                self.scheduler.handle(Left(job, Cancelled()), self.now)
                return

    def pick(self) -> None:
        """The one that runs has its answer, and the next one starts."""
        self.now += 0.01
        slot = self.scheduler.seat.slot
        assert slot is not None
        actions = self.scheduler.handle(AttemptEnded(slot.job, Outcome.SUCCEEDED), self.now)
        assert any(isinstance(action, StartAttempt | StartLoad) for action in actions)


def per_operation(operation: Callable[[], None], undo: Callable[[], None], times: int) -> float:
    """Microseconds, as the median of several rounds; ``undo`` keeps the number of waiting jobs."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(times):
            operation()
        rounds.append((time.perf_counter() - started) / times)
        for _ in range(times):
            undo()
    return statistics.median(rounds) * 1e6


def core() -> None:
    """Submit, cancel and pick at growing numbers of waiting jobs."""
    print(f"core: microseconds per operation, {CLIENTS} clients, 3 lanes, 2 models")
    print(f"  {'waiting':>8}  {'submit':>7}  {'cancel':>7}  {'pick':>7}  {'bytes per job':>13}")
    first: list[float] = []
    for waiting in SIZES:
        times = min(300, waiting // 2)
        gc.collect()
        tracemalloc.start()
        held = Core(waiting)
        size = tracemalloc.get_traced_memory()[0] / waiting
        tracemalloc.stop()
        gc.freeze()
        costs = [
            per_operation(held.submit, held.cancel, times),
            per_operation(held.cancel, held.submit, times),
            per_operation(held.pick, held.submit, times),
        ]
        gc.unfreeze()
        first = first or costs
        growth = "  ".join(f"{cost / base:.1f}x" for cost, base in zip(costs, first, strict=True))
        print(f"  {waiting:>8}  {costs[0]:>7.1f}  {costs[1]:>7.1f}  {costs[2]:>7.1f}  {size:>13.0f}   {growth}")


def through() -> None:
    """One program in a closed loop: straight to the engine, and through the service, in turns."""
    ollama = Ollama("--token-seconds", "0", "--first-token-seconds", "0.005", "--load-seconds", "0.01")
    service = Service(ollama.url)
    direct = httpx.Client(base_url=ollama.url, trust_env=False)
    native = {"model": "fake", "messages": [{"role": "user", "content": "!say x"}], "options": {"num_ctx": 8192}}
    asks: dict[str, Callable[[], httpx.Response]] = {
        "direct": lambda: direct.post("/api/chat", json=native | {"stream": False}),
        "through the line": lambda: service.chat("!say x"),
    }
    times: dict[str, list[float]] = {name: [] for name in asks}
    try:
        service.chat("!say warm")
        for _ in range(10):
            for name, ask in asks.items():
                for _ in range(30):
                    started = time.perf_counter()
                    assert ask().status_code == 200
                    times[name].append(time.perf_counter() - started)
    finally:
        direct.close()
        service.end()
        ollama.end()
    print("one program in a closed loop, the engine taking 5 ms: milliseconds per answer")
    medians = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    for name, value in medians.items():
        print(f"  {name:<17} {value:6.2f}")
    print(f"  the line adds     {medians['through the line'] - medians['direct']:6.2f}")


PARTS = {"core": core, "through": through}


def main() -> None:
    """Run the named parts, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="all if none is named")
    for name in parser.parse_args().part or PARTS:
        print(f"Python {sys.version.split()[0]}")
        PARTS[name]()
        print()


if __name__ == "__main__":
    main()
