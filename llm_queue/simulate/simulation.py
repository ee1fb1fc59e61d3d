"""The line in virtual time: the very same core, with programs, run times and loads that are made up.

For the tests, and for choosing settings: ten minutes of a laptop's day take a second or two. ``llm-queue simulate``
runs it from the command line.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from llm_queue.core.actions import Abort, Action, AskResident, Probe, Requeued, Settle, StartAttempt, StartLoad, Unload
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import AttemptEnded, LoadEnded, Outcome, ProbeEnded, ResidentReported, Submitted
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import Order, OrderRules, TurnOrder
from llm_queue.core.scheduler import RetryLimits, Scheduler
from llm_queue.core.seat import Seat

Seconds = Callable[[random.Random], float]
"""Draws one duration."""


def always(seconds: float) -> Seconds:
    """The same every time."""
    return lambda _: seconds


def uniform(least: float, most: float) -> Seconds:
    """Anything between the two."""
    return lambda draw: draw.uniform(least, most)


def exponential(mean: float) -> Seconds:
    """Mostly short, sometimes long."""
    return lambda draw: draw.expovariate(1 / mean)


def heavy_tailed(typical: float) -> Seconds:
    """Mostly about ``typical`` seconds, now and then a hundred times that: Pareto with index 1.5."""
    return lambda draw: typical * min(100.0, draw.paretovariate(1.5) - 0.5)


@dataclass(frozen=True)
class Program:
    """A program that asks the line.

    ``run`` draws how many seconds a job runs. In a closed loop, ``think`` draws the seconds from an answer to the next
    job; in an open one, ``every`` draws the seconds between two jobs, whether or not the first has its answer. After
    ``start`` seconds ``at_once`` jobs come; ``jobs`` is how many come in all (None: until the story ends). ``share`` is
    its weight among others.
    """

    client: str
    run: Seconds
    think: Seconds | None = None
    every: Seconds | None = None
    model: str = "a"
    num_ctx: int = 8192
    lane: Lane = Lane.NORMAL
    start: float = 0.0
    at_once: int = 1
    jobs: int | None = None
    share: float = 1.0


@dataclass
class Served:
    """How one client fared in one lane; times in seconds."""

    waits: list[float] = field(default_factory=list)
    run_seconds: float = 0.0
    done_at: float = 0.0

    @property
    def median_wait(self) -> float:
        """Half of its jobs waited longer."""
        return median(self.waits) if self.waits else 0.0

    @property
    def longest_wait(self) -> float:
        """The longest of its waits, loads included."""
        return max(self.waits, default=0.0)


@dataclass
class Result:
    """What came of it. ``useful`` is the share of ``seconds`` in which the model computed answers, and ``answers`` how
    many it finished in them; ``finished_at`` is when the last job ended, and ``bound`` when it could have at the
    earliest: all run times, and one load per key.
    """

    seconds: float
    useful: float = 0.0
    answers: int = 0
    bound: float = 0.0
    finished_at: float = 0.0
    loads: int = 0
    holds: int = 0
    held_seconds: float = 0.0
    served: dict[tuple[Lane, str], Served] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


class Simulation:
    """One run. ``load`` is how long a load takes; one key is resident at a time, ``resident`` at the start."""

    def __init__(
        self,
        programs: Iterable[Program],
        *,
        load: Seconds,
        seconds: float,
        rules: OrderRules | None = None,
        order: Callable[[ContextSizes], Order] | None = None,
        seed: int = 1,
        resident: RunnerKey | None = None,
    ) -> None:
        self._programs = list(programs)
        self._load = load
        self._seconds = seconds
        self._draw = random.Random(seed)  # noqa: S311 - made-up durations, and the same ones every time
        contexts = ContextSizes(1, 1 << 30)
        ours = order(contexts) if order else TurnOrder(rules or OrderRules(), contexts)
        self._seat = Seat(contexts, now=0.0)
        self._scheduler = Scheduler(ours, self._seat, RetryLimits())
        self._resident = frozenset() if resident is None else frozenset({resident})
        self._now = 0.0
        self._serial = itertools.count()
        self._events: list[tuple[float, int, Callable[[], list[Action]]]] = []
        self._programs_of: dict[str, Program] = {}
        self._jobs_left = {program.client: program.jobs for program in self._programs}
        self._result = Result(seconds)
        self._keys: set[RunnerKey] = set()
        self._ticks: set[float] = set()

    def run(self) -> Result:
        """Play it out: until ``seconds`` are over and every job that came before then has ended."""
        self._act(self._scheduler.tick(0.0))
        for program in self._programs:
            for _ in range(program.at_once):
                self._arrive_later(program, program.start)
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            self._act(event())
            self._tick_later()
        result = self._result
        result.loads = self._scheduler.counts.loads
        result.bound += len(self._keys) * self._load(self._draw)
        result.useful /= min(self._seconds, max(result.finished_at, 1e-9))
        result.holds, result.held_seconds = self._seat.turn.holds, self._seat.turn.held_seconds
        return result

    # --- what happens ---

    def _at(self, time: float, event: Callable[[], list[Action]]) -> None:
        heapq.heappush(self._events, (time, next(self._serial), event))

    def _tick_later(self) -> None:
        wake_at = self._scheduler.wake_at()
        if wake_at is not None and wake_at not in self._ticks:
            self._ticks.add(wake_at)

            def tick() -> list[Action]:
                self._ticks.discard(wake_at)
                return self._scheduler.tick(self._now)

            self._at(max(wake_at, self._now), tick)

    def _arrive_later(self, program: Program, time: float) -> None:
        left = self._jobs_left[program.client]
        if time >= self._seconds or left == 0:
            return
        if left is not None:
            self._jobs_left[program.client] = left - 1
        self._at(time, lambda: self._arrive(program))

    def _arrive(self, program: Program) -> list[Action]:
        serial = next(self._serial)
        job = Job(
            id=f"{program.client} {serial}",
            lane=program.lane,
            client=program.client,
            model=program.model,
            wanted_ctx=program.num_ctx,
            arrival=serial,
            submitted_at=self._now,
            share=program.share,
        )
        self._programs_of[job.id] = program
        if program.every is not None:
            self._arrive_later(program, self._now + program.every(self._draw))
        return self._scheduler.handle(Submitted(job), self._now)

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case StartLoad(job, key):
                    self._at(self._now + self._load(self._draw), self._loaded(job, key))
                case StartAttempt(job, key):
                    self._start(job, key)
                case Settle(job, _):
                    self._settle(job)
                case Probe():
                    self._at(self._now, partial(self._scheduler.handle, ProbeEnded(None, self._resident), self._now))
                case AskResident():
                    reported = ResidentReported(self._seat.resident)
                    self._at(self._now, partial(self._scheduler.handle, reported, self._now))
                case Abort() | Requeued() | Unload():
                    raise AssertionError("nobody leaves and nothing breaks in a simulation")

    def _loaded(self, job: Job, key: RunnerKey) -> Callable[[], list[Action]]:
        ended = LoadEnded(job, Outcome.SUCCEEDED, reported=frozenset({key}))
        return lambda: self._scheduler.handle(ended, self._now)

    def _start(self, job: Job, key: RunnerKey) -> None:
        self._keys.add(key)
        seconds = self._programs_of[job.id].run(self._draw)
        served = self._result.served.setdefault((job.lane, job.client), Served())
        served.waits.append(self._now - job.submitted_at)
        served.run_seconds += seconds
        self._result.bound += seconds
        self._result.useful += max(0.0, min(seconds, self._seconds - self._now))
        self._result.order.append(job.client)
        served.done_at = self._now + seconds
        ended = AttemptEnded(job, Outcome.SUCCEEDED)
        self._at(served.done_at, lambda: self._scheduler.handle(ended, self._now))

    def _settle(self, job: Job) -> None:
        assert job.state is State.SUCCEEDED
        self._result.finished_at = self._now
        self._result.answers += self._now <= self._seconds
        program = self._programs_of.pop(job.id)
        if program.think is not None:
            self._arrive_later(program, self._now + program.think(self._draw))
