"""What the line costs: the core at many waiting jobs, and the service beside what people would use in its place.

All ways take turns in one run, so what counts is their ratio. Run it with ``nox -s bench`` on a quiet machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from llm_queue.core.actions import StartAttempt, StartLoad
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import AttemptEnded, Left, Outcome, ProbeEnded, Submitted
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import TurnOrder
from llm_queue.core.rules import OrderRules
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.verdict import RetryLimits
from llm_queue.errors import Cancelled
from tests.bench import estimates
from tests.bench.page import write_section
from tests.bench.rows import EVERYBODY, ROWS, measured
from tests.bench.ways import Peers

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


def beside(parts: Sequence[str], write: bool) -> None:
    """The line beside what people would use in its place, in turns."""
    peers = Peers()
    try:
        seen = measured(peers, parts)
    finally:
        peers.close()
    text = table(seen, peers.skipped)
    print(text)
    if write:
        write_section("bench", text)


def table(seen: Mapping[str, Mapping[str, Sequence[float]]], skipped: Mapping[str, str]) -> str:
    """The medians, as a table for the documentation; ``skipped`` are peers that are not here, with the reason."""
    lines = [
        f"- {time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, llm-queue {version('llm-queue')}",
        *(f"- without {name}: {reason}" for name, reason in skipped.items()),
        "",
        "| what | " + " | ".join(EVERYBODY) + " |",
        "|---" * (1 + len(EVERYBODY)) + "|",
    ]
    for measure, ways in seen.items():
        values = [shown(measure, statistics.median(ways[name])) if name in ways else "-" for name in EVERYBODY]
        lines.append(f"| {measure} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def shown(measure: str, value: float) -> str:
    """A number in its unit: bytes for memory, tokens per second, else seconds."""
    if measure.startswith("memory"):
        return f"{value / 1000:.1f} kB"
    if measure.endswith("per second"):
        return f"{value:,.0f}"
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def main() -> None:
    """Run the named parts, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument(
        "part", nargs="*", choices=[[], "core", "estimates", *ROWS], help="all but estimates if none is named"
    )
    parser.add_argument(
        "--write", action="store_true", help="write the table into docs/performance.md, or scheduling.md"
    )
    given = parser.parse_args()
    print(f"Python {sys.version.split()[0]}")
    if not given.part or "core" in given.part:
        core()
    if "estimates" in given.part:
        estimates.show(write=given.write)
    if parts := [part for part in given.part or ROWS if part not in ("core", "estimates")]:
        beside(parts, given.write)


if __name__ == "__main__":
    main()
