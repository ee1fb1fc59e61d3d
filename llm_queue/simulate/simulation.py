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
from llm_queue.core.order import TurnOrder
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.rules import Order, OrderRules
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.strands import strand_of
from llm_queue.core.verdict import RetryLimits
from llm_queue.simulate.engine import Prompts, SimulatedPromptCache

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


def now_and_then(seldom: Seconds, mostly: Seconds, *, one_in: int) -> Seconds:
    """One in so many is of the ``seldom`` kind."""
    return lambda draw: (seldom if draw.randrange(one_in) == 0 else mostly)(draw)


@dataclass(frozen=True)
class Program:
    """A program that asks the line.

    ``run`` draws how many seconds a job runs. In a closed loop, ``think`` draws the seconds from an answer to the next
    job; in an open one, ``every`` draws the seconds between two jobs, whether or not the first has its answer. After
    ``start`` seconds ``at_once`` jobs come; ``jobs`` is how many come in all (None: until the story ends). ``share`` is
    its weight among others. Before it answers, the engine computes what it has not kept of the job's ``prompts`` (None:
    they take no time, and nothing is reported); ``label`` is that of its jobs. With ``endings``, its answers end so in
    turn, and after each it thinks as is said there.
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
    prompts: Prompts | None = None
    label: str = ""
    endings: tuple[tuple[Ending, Seconds], ...] = ()


@dataclass
class Served:
    """How one client fared in one lane; times in seconds. ``first_waits`` are the waits without those for its own
    jobs, and ``held_seconds`` is how long the slot was kept for it.
    """

    waits: list[float] = field(default_factory=list)
    first_waits: list[float] = field(default_factory=list)
    run_seconds: float = 0.0
    prompt_seconds: float = 0.0
    held_seconds: float = 0.0
    done_at: float = 0.0

    @property
    def slot_seconds(self) -> float:
        """What it has had of the slot, but for loads."""
        return self.run_seconds + self.prompt_seconds + self.held_seconds

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
    """What came of it. ``useful`` is the share of ``seconds`` in which the model computed answers, and prompts as long
    as they take at best; ``answers`` is how many it finished in them, and ``cold`` how many prompts it computed that it
    had not kept. ``finished_at`` is when the last job ended, and ``bound`` when it could have at the earliest: all run
    times, and one load per key. ``order`` has who had the slot, and ``spans`` for how long.
    """

    seconds: float
    useful: float = 0.0
    answers: int = 0
    cold: int = 0
    bound: float = 0.0
    finished_at: float = 0.0
    loads: int = 0
    holds: int = 0
    held_seconds: float = 0.0
    served: dict[tuple[Lane, str], Served] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    spans: list[float] = field(default_factory=list)


class Simulation:
    """One run. ``load`` is how long a load takes; one key is resident at a time, ``resident`` at the start.

    The engine ``keeps`` the prompts of so many strands (None: of all) while their model is loaded, and ``reports`` what
    each prompt took, and how each answer ended.
    """

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
        keeps: int | None = None,
        reports: bool = True,
    ) -> None:
        self._programs = list(programs)
        self._load = load
        self._seconds = seconds
        self._draw = random.Random(seed)  # noqa: S311 - made-up durations, and the same ones every time
        contexts = ContextSizes(1, 1 << 30)
        self._order = order(contexts) if order else TurnOrder(rules or OrderRules(), contexts)
        self._seat = Seat(contexts, now=0.0)
        self._scheduler = Scheduler(self._order, self._seat, RetryLimits())
        self._resident = frozenset() if resident is None else frozenset({resident})
        self._cache = SimulatedPromptCache(keeps)
        self._reports = reports
        self._answered: dict[str, int] = {}
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
            self._act(self._watch_hold(event))
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

    def _watch_hold(self, event: Callable[[], list[Action]]) -> list[Action]:
        turn = self._seat.turn
        hold, held = turn.hold, turn.held_seconds
        actions = event()
        if hold is not None:
            self._served(hold.lane, hold.client).held_seconds += turn.held_seconds - held
        return actions

    def _served(self, lane: Lane, client: str) -> Served:
        return self._result.served.setdefault((lane, client), Served())

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
            label=program.label,
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

        def event() -> list[Action]:
            self._cache.clear()
            return self._scheduler.handle(ended, self._now)

        return event

    def _start(self, job: Job, key: RunnerKey) -> None:
        self._keys.add(key)
        program, result = self._programs_of[job.id], self._result
        run, prompt, ending = program.run(self._draw), self._prompt(job, program), self._ending(program)
        prompt_seconds = prompt.seconds if prompt else 0.0
        served = self._served(job.lane, job.client)
        served.waits.append(self._now - job.submitted_at)
        served.first_waits.append(self._now - max(job.submitted_at, served.done_at))
        served.run_seconds += run
        served.prompt_seconds += prompt_seconds
        best = run + (min(program.prompts.warm, prompt_seconds) if program.prompts else 0.0)
        result.bound += best
        result.useful += max(0.0, min(best, self._seconds - self._now))
        result.order.append(job.client)
        result.spans.append(prompt_seconds + run)
        served.done_at = self._now + prompt_seconds + run
        ended = AttemptEnded(job, Outcome.SUCCEEDED)
        if self._reports:
            ended = AttemptEnded(job, Outcome.SUCCEEDED, prompt=prompt, ending=ending)
        self._at(served.done_at, lambda: self._scheduler.handle(ended, self._now))

    def _prompt(self, job: Job, program: Program) -> PromptWork | None:
        if program.prompts is None:
            return None
        prompt = self._cache.run(strand_of(job), program.prompts)
        self._result.cold += prompt.cached == 0
        return prompt

    def _ending(self, program: Program) -> Ending | None:
        answered = self._answered[program.client] = self._answered.get(program.client, -1) + 1
        return program.endings[answered % len(program.endings)][0] if program.endings else None

    def _settle(self, job: Job) -> None:
        assert job.state is State.SUCCEEDED
        self._result.finished_at = self._now
        self._result.answers += self._now <= self._seconds
        program = self._programs_of.pop(job.id)
        think = program.think
        if program.endings:
            _, think = program.endings[self._answered[program.client] % len(program.endings)]
        if think is not None:
            self._arrive_later(program, self._now + think(self._draw))
