"""What the demo has shown, and what the same load would have been without the line."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from llm_queue.demo.programs import LARGER, Answered, Record
from llm_queue.dispatch.status import Status
from llm_queue.simulate.orders import first_come
from llm_queue.simulate.simulation import Program as Simulated
from llm_queue.simulate.simulation import Result, Seconds, Served, Simulation, always

LOAD_GUESS: Final = 3.0
"""Seconds of a load where none was seen: a 5 GB model from a laptop's disk."""


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds of a load, and whether one was seen; and whether context sizes matter here."""

    load: float
    load_seen: bool
    sizes: bool


def costs(records: Sequence[Record], status: Status) -> Costs:
    """From the answers' own words, else from all loads of this service so far, else a guess."""
    answers = [answer for record in records for answer in record.answers]
    loads = [answer.loaded for answer in answers if answer.loaded > 0]
    sizes = any(answer.num_ctx for answer in answers)
    if loads:
        return Costs(median(loads), True, sizes)
    if status.loads:
        return Costs(status.load_seconds / status.loads, True, sizes)
    return Costs(LOAD_GUESS, False, sizes)


def without_the_line(records: Sequence[Record], measured: Costs, seconds: float) -> Result:
    """The same programs for as long, first come, first served, each at its own context size; simulated."""
    programs = [_simulated(record, measured) for record in records if record.answers]
    return Simulation(programs, load=always(measured.load), seconds=seconds, order=first_come).run()


def _simulated(record: Record, measured: Costs) -> Simulated:
    program = record.program
    larger = program.larger and measured.sizes
    return Simulated(
        program.name,
        run=_one_of(record.answers),
        think=program.pause,
        # An engine without a line loads the model anew for another size, up or down. The line's own sizes never
        # shrink, and the simulation's neither: so a size of its own is a model of its own here.
        model="larger" if larger else "usual",
        num_ctx=LARGER if larger else 1,
        lane=program.lane,
        start=program.start,
        at_once=program.tasks,
        jobs=program.jobs,
    )


def _one_of(answers: Sequence[Answered]) -> Seconds:
    def draw(chance: random.Random) -> float:
        return chance.choice(answers).ran

    return draw


def summary(records: Sequence[Record], before: Status, after: Status, seconds: float) -> str:
    """The end of the demo in plain text. ``before`` and ``after`` are what ``GET /queue`` said then."""
    width = max(len(record.program.name) for record in records)
    lines = [f"{seconds:.0f} seconds through the line:", "", _head(width)]
    for record in records:
        waits = [answer.waited for answer in record.answers]
        lines.append(_row(record.program.name, width, Served(waits)))
    loads = max(0, after.loads - before.loads)
    avoided = max(0, after.reloads_avoided - before.reloads_avoided)
    there = " (the model was loaded already)" if not loads and not avoided else ""
    lines += ["", f"  {_many(loads, 'load')}, {avoided} avoided{there}"]
    for record in records:
        if record.errors:
            lines.append(
                f"  {record.program.name}: {_many(len(record.errors), 'error')}, the last: {record.errors[-1]}"
            )
    if not any(record.answers for record in records):
        return "\n".join([*lines, "", "Nothing was answered, so there is nothing to compare."])
    measured = costs(records, after)
    result = without_the_line(records, measured, seconds)
    lines += ["", "The same programs for as long without the line (simulated, not measured):", "", _head(width)]
    served = {client: one for (_, client), one in result.served.items()}
    lines += [_row(name, width, served.get(name, Served())) for name in (record.program.name for record in records)]
    lines += ["", f"  {_many(result.loads, 'load')}", "", _method(measured)]
    return "\n".join(lines)


def _head(width: int) -> str:
    return f"  {'':<{width}}     jobs  median wait  longest wait"


def _row(name: str, width: int, served: Served) -> str:
    return f"  {name:<{width}}  {len(served.waits):>7}  {served.median_wait:>9.1f} s  {served.longest_wait:>10.1f} s"


def _method(measured: Costs) -> str:
    seen = "as measured here" if measured.load_seen else "a guess, since none was seen here"
    how = (
        f"Simulated from the run times measured above and a load of {measured.load:.1f} s ({seen}): first come, first\n"
        "served, each program at its own context size, and a load whenever that changes. Waits include loads."
    )
    one = "This engine has one context size, so that here the order alone makes the difference."
    return how if measured.sizes else f"{how}\n{one}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
