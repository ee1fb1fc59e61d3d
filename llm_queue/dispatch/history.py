"""What the last hour of a line was like: waits by lane, model time by program, and the last cold prompts.

It is kept by the minute, and bounded whatever comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.insight import ColdPrompt, LaneHour, ProgramHour
from llm_queue.dispatch.moments import JobEnded, Moment, PromptComputed

MINUTE: Final = 60.0
MINUTES: Final = 60

MOST_WAITS: Final = 1000
"""Waits that are remembered of a minute in a lane, for the median. Further ones are counted."""

MOST_PROGRAMS: Final = 100
"""Programs that are told apart in a minute. Further ones count as :data:`OTHERS`."""

SHOWN: Final = 20
"""Programs that are shown: those with the most model time. All others are one row."""

OTHERS: Final = "other"

COLD_PROMPTS: Final = 10

WaitsRow = tuple[float, float, float, int]
"""How many seconds ago a minute ended, the median and the 95th percentile of its waits in seconds, and how many there
were."""


class Work(NamedTuple):
    """What was done for one program: seconds, and numbers of jobs, prompts and tokens."""

    model_s: float = 0.0
    load_s: float = 0.0
    jobs: int = 0
    cold_prompts: int = 0
    cached_tokens: int = 0
    prompt_tokens: int = 0

    def plus(self, other: Work) -> Work:
        """Both together."""
        return Work(
            self.model_s + other.model_s,
            self.load_s + other.load_s,
            self.jobs + other.jobs,
            self.cold_prompts + other.cold_prompts,
            self.cached_tokens + other.cached_tokens,
            self.prompt_tokens + other.prompt_tokens,
        )


_NOTHING: Final = Work()


@dataclass(slots=True)
class _Waits:
    first: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        if len(self.first) < MOST_WAITS:
            self.first.append(seconds)

    def row(self) -> tuple[float, float, int]:
        in_order = sorted(self.first)
        return in_order[(len(in_order) - 1) // 2], in_order[(19 * len(in_order) - 1) // 20], self.count


@dataclass(slots=True)
class _Minute:
    number: int
    waits: dict[str, _Waits] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    rows: dict[str, tuple[float, float, int]] = field(default_factory=dict)

    def add(self, client: str, work: Work) -> None:
        if client not in self.work and len(self.work) >= MOST_PROGRAMS:
            client = OTHERS
        self.work[client] = self.work.get(client, _NOTHING).plus(work)

    def sum_up(self) -> None:
        """The minute is over: of its waits only the figures are kept."""
        self.rows, self.waits = self.figures(), {}

    def figures(self) -> dict[str, tuple[float, float, int]]:
        return self.rows or {lane: waits.row() for lane, waits in self.waits.items()}


class History:
    """An observer of the line, which is also told of loads and runs. ``clock`` gives the time in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minutes: deque[_Minute] = deque([_Minute(self._number())])
        self._before: dict[str, Work] = {}
        self._cold: deque[tuple[PromptComputed, float]] = deque(maxlen=COLD_PROMPTS)

    def __call__(self, moment: Moment) -> None:
        match moment:
            case PromptComputed():
                self._computed(moment)
            case JobEnded(report) if report.remote is not True:
                minute = self._minute()
                minute.add(report.client, Work(jobs=1))
                if report.attempts:
                    minute.waits.setdefault(report.lane, _Waits()).add(report.wait_s)
            case _:
                pass  # nothing that is kept here

    def loaded(self, client: str, seconds: float) -> None:
        """A load that a job of ``client`` caused has ended, well or badly."""
        self._minute().add(client, Work(load_s=seconds))

    def ran(self, client: str, seconds: float) -> None:
        """An attempt for ``client`` has ended."""
        self._minute().add(client, Work(model_s=seconds))

    def _computed(self, prompt: PromptComputed) -> None:
        cold, cached = int(prompt.cold), prompt.cached
        self._minute().add(prompt.client, Work(cold_prompts=cold, cached_tokens=cached, prompt_tokens=prompt.tokens))
        if prompt.cold:
            self._cold.append((prompt, self._clock()))

    # --- what can be asked ---

    def lanes(self) -> dict[str, LaneHour]:
        """The waits of each lane, a row for each minute in which a job of it ended; the latest minute last."""
        self._minute()
        waits: dict[str, list[WaitsRow]] = {lane.label: [] for lane in Lane}
        now = self._clock()
        for minute in self._minutes:
            ago = max(0.0, now - MINUTE * (minute.number + 1))
            for lane, (middle, high, count) in minute.figures().items():
                waits[lane].append((round(ago, 3), round(middle, 3), round(high, 3), count))
        return {lane: LaneHour(waits=tuple(rows)) for lane, rows in waits.items()}

    def programs(self) -> tuple[ProgramHour, ...]:
        """What was done for each program, the one with the most model time first."""
        now = self._minute()
        total = _added([self._before, now.work])
        rest = total.pop(OTHERS, _NOTHING)
        in_order = sorted(total.items(), key=lambda each: -each[1].model_s)
        for _, work in in_order[SHOWN:]:
            rest = rest.plus(work)
        shown = in_order[:SHOWN] + ([(OTHERS, rest)] if rest != _NOTHING else [])
        return tuple(ProgramHour(client=client, **work._asdict()) for client, work in shown)

    def cold_prompts(self) -> tuple[ColdPrompt, ...]:
        """The last prompts that the upstream had to compute anew, the latest first."""
        now = self._clock()
        return tuple(
            ColdPrompt(
                client=prompt.client,
                at_character=None if prompt.changed_at is None else prompt.changed_at[0],
                tokens=prompt.tokens,
                seconds=prompt.seconds,
                seconds_ago=now - at,
            )
            for prompt, at in reversed(self._cold)
        )

    # --- minutes ---

    def _number(self) -> int:
        return int(self._clock() // MINUTE)

    def _minute(self) -> _Minute:
        """The minute that it is; those that are over are summed up, and those of more than an hour ago forgotten."""
        number = self._number()
        if self._minutes[-1].number != number:
            self._minutes[-1].sum_up()
            while self._minutes and self._minutes[0].number <= number - MINUTES:
                self._minutes.popleft()
            self._before = _added(minute.work for minute in self._minutes)
            self._minutes.append(_Minute(number))
        return self._minutes[-1]


def _added(all_work: Iterable[dict[str, Work]]) -> dict[str, Work]:
    total: dict[str, Work] = {}
    for work in all_work:
        for client, done in work.items():
            total[client] = total.get(client, _NOTHING).plus(done)
    return total
