"""The line as one screen: what runs, who is next and when, and what there is to know besides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from llm_queue.terminal.paper import Column, Paper, Row, Span, count, seconds, size
from llm_queue.terminal.shapes import JobView, Queue

FEWEST_JOBS: Final = 3
"""Jobs that are shown however low the terminal is."""

ENOUGH_JOBS: Final = 8
"""Jobs that must have room before the last hour gets any."""

USUAL_JOBS: Final = 15
"""Jobs that are shown where there is no end to the paper."""

LANES: Final = ("interactive", "normal", "background")

SHORT_ID: Final = 6
"""Characters of a job's id that are shown: enough for `llm-queue why`, which takes the beginning of one."""

_COLUMNS: Final = (
    Column("", 3, right=True),
    Column("job", SHORT_ID),
    Column("program", 15, grow=True, keep_end=True),
    Column("lane", 11),
    Column("model", 13, grow=True),
    Column("waited", 8, right=True),
    Column("starts", 18),
)

_LABEL: Final = 9
"""Columns of the words at the left: the longest, and a space."""


def screen(queue: Queue, url: str, paper: Paper) -> list[Row]:
    """The rows, no more than the paper is high."""
    above = [*_head(queue, url), *_warnings(queue)]
    facts, hour = [*_facts(queue, paper)], [*_hour(queue, paper)]
    if paper.height is None:
        return [*above, [""], *_jobs(queue, paper, USUAL_JOBS), [""], *facts, *hour]
    # The heads of the table, the line below it, two empty ones, and the one in which the prompt stands.
    room = paper.height - len(above) - len(facts) - 5
    below = [*facts, *hour] if room - len(hour) >= min(len(queue.jobs), ENOUGH_JOBS) else facts
    jobs = max(FEWEST_JOBS, room - (len(below) - len(facts)))
    rows = [*above, [""], *_jobs(queue, paper, jobs), [""], *below]
    return rows[: max(1, paper.height - 1)]


def _label(word: str, style: str = "dim") -> Span:
    return Span(f"{word:{_LABEL}}", style)


def _head(queue: Queue, url: str) -> Iterator[Row]:
    yield [Span("llm-queue", "strong"), f" at {url}"]
    if queue.upstream.name:
        yield [_label("upstream"), f"{queue.upstream.name} at {queue.upstream.url}"]
    waiting = sum(queue.waiting.values())
    if queue.paused is not None:
        freed = ", all models unloaded" if queue.paused.unloaded else ""
        yield [_label("paused", "warn"), f"for {seconds(queue.paused.since_s)}{freed}: llm-queue resume goes on"]
        if queue.paused.kept:
            yield [_label(""), f"still loaded: {queue.paused.kept}"]
    elif queue.draining:
        yield [_label("ends", "warn"), "no new work is taken, what is here may finish"]
    lanes = ", ".join(f"{queue.waiting[lane]} {lane}" for lane in LANES if queue.waiting.get(lane))
    yield [_label("waiting"), f"{waiting:,}" + (f" ({lanes})" if lanes else "")]


def _warnings(queue: Queue) -> Iterator[Row]:
    if queue.upstream.away:
        yield [_label("away", "bad"), queue.upstream.away]
    if (bypass := queue.bypass) is not None:
        who = f", by {bypass.program}" if bypass.program else ""
        yield [_label("bypass", "bad"), f"{bypass.reason}{who}"]
        yield [_label(""), "llm-queue doctor says more"]


def _jobs(queue: Queue, paper: Paper, most: int) -> list[Row]:
    if not queue.jobs:
        return [[Span("Nobody waits, and nothing runs.", "dim"), " Try it: llm-queue ask 'Why is the sky blue?'"]]
    shown = queue.jobs[:most]
    cells = [_cells(job, queue) for job in shown]
    rows = paper.table(_COLUMNS, cells, [_style(job) for job in shown])
    living = sum(queue.waiting.values()) + sum(job.place == 0 for job in queue.jobs)
    if (more := max(living, len(queue.jobs)) - len(shown)) > 0:
        rows.append([Span(f"{'':4}and {more:,} more", "dim")])
    return rows


def _cells(job: JobView, queue: Queue) -> tuple[str, ...]:
    place = "▶" if job.place == 0 else str(job.place)
    return place, job.job[:SHORT_ID], job.client, job.lane, job.model, seconds(job.wait_s), starts(job, queue)


def _style(job: JobView) -> str:
    return "good" if job.place == 0 else "accent" if job.lane == "interactive" else ""


def starts(job: JobView, queue: Queue) -> str:
    """When it starts, or how far it is: what stands in the last column."""
    if job.state == "loading":
        return "its model loads"
    if job.place == 0:
        return progress(job)
    if queue.paused is not None:
        return "paused"
    if job.place == 1 and (job.starts_in_s or 0.0) < 0.05 and job.resident:
        return "next"
    low, high = job.starts_in_low_s, job.starts_in_high_s
    if low is not None and high is not None:
        return f"in {span(low, high)}"
    if job.starts_in_s is not None:
        return f"in {seconds(job.starts_in_s)}"
    return "" if job.resident else "needs a load"


def span(low: float, high: float) -> str:
    """From when to when, in as few words as it takes."""
    if seconds(low) == seconds(high):
        return seconds(low)
    if high < 9.95:
        return f"{low:.1f} to {high:.1f} s"
    return f"{low:.0f} to {high:.0f} s" if high < 120 else f"{low / 60:.0f} to {high / 60:.0f} min"


def progress(job: JobView) -> str:
    """How far the job is that runs."""
    if job.tokens:
        rate = f", {job.tokens_per_s:.0f}/s" if job.tokens_per_s else ""
        return f"{count(job.tokens, 'token')}{rate}"
    return f"runs {seconds(job.running_s)}".rstrip() if job.running_s is not None else "runs"


def _facts(queue: Queue, paper: Paper) -> Iterator[Row]:
    if queue.models is not None:
        names = [
            " ".join(
                part for part in (one.name, str(one.num_ctx or ""), size(one.vram_bytes or one.size_bytes)) if part
            )
            for one in queue.models
        ]
        yield [_label("loaded"), ", ".join(names) or "nothing"]
    if (turn := queue.turn) is not None and turn.length_s and queue.models != []:  # nothing loaded has no turn
        left = max(0.0, turn.length_s - turn.used_s)
        bar = paper.bar(left / turn.length_s, 20)
        yield [
            _label("turn"),
            Span(bar, "accent"),
            f" {seconds(left)} of {seconds(turn.length_s)} left",
        ]
    held_for = queue.hold.client if queue.hold is not None else queue.held_for if queue.held else None
    if held_for:
        until = queue.hold.until_in_s if queue.hold is not None else None
        more = f" for {seconds(until)} more" if until else ""
        yield [_label("held"), f"{held_for} is about to ask again: the slot is kept free{more}"]
    ended = sum(queue.ended.values())
    yield [
        _label("so far"),
        f"{count(ended, 'job')}, {count(queue.loads, 'load')}, {queue.reloads_avoided:,} avoided",
    ]


def _hour(queue: Queue, paper: Paper) -> Iterator[Row]:
    """The last hour, where the service remembers it."""
    told = [(lane, queue.lanes[lane].waits) for lane in LANES if lane in queue.lanes and queue.lanes[lane].waits]
    if told:
        yield [""]
        yield [Span("Median wait in the last hour, by lane", "dim")]
    for lane, waits in told:
        by_minute = {int(ago // 60): median for ago, median, _, jobs in waits if jobs}
        values = [by_minute.get(minute) or 0.0 for minute in range(59, -1, -1)]
        most = max((one[2] or 0.0 for one in waits), default=0.0)
        sparks = paper.sparks(values[-max(10, min(60, paper.width - 34)) :])
        yield [f"{lane:12}", Span(sparks, "accent"), f" 95 %: {seconds(most)} at most"]
    taken = [one for one in queue.programs if one.model_s + one.load_s > 0]
    whole = sum(one.model_s + one.load_s for one in taken)
    if taken:
        yield [""]
        yield [Span("Model time in the last hour, by program", "dim")]
    for one in sorted(taken, key=lambda one: -(one.model_s + one.load_s))[:4]:
        share = (one.model_s + one.load_s) / whole
        cold = f", {count(one.cold_prompts, 'cold prompt')}" if one.cold_prompts else ""
        name = paper.fit(paper.clean(one.client), 24, keep_end=True)
        took = seconds(one.model_s + one.load_s)
        yield [f"{name:24} ", Span(paper.bar(share, 16), "accent"), f" {took} in {count(one.jobs, 'job')}{cold}"]
    for prompt in queue.cold_prompts[:1]:
        where = f", from character {prompt.at_character:,} on" if prompt.at_character is not None else ""
        cost = f": {seconds(prompt.seconds)}" if prompt.seconds else ""
        yield [""]
        yield [Span("Last cold prompt ", "dim"), f"of {prompt.client}{where}{cost}"]
