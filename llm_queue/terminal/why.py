"""``llm-queue why JOB``: why a job waits, or waited."""

from __future__ import annotations

import json
from typing import Final

from llm_queue.terminal.desk import Desk
from llm_queue.terminal.paper import Column, Row, Span, seconds, wrapped
from llm_queue.terminal.shapes import Pick, Report

MOST_PICKS: Final = 12
"""Picks that are shown, the last ones: what lies further back is told by the sentences."""

_COLUMNS: Final = (
    Column("before it", 14, grow=True, keep_end=True),
    Column("model", 14, grow=True),
    Column("rule", 20, grow=True),
    Column("it cost", 20),
)

_OLDER: Final = "This service does not explain its jobs: it is older than this command. Restart it to know more."


async def why(desk: Desk) -> int:
    """Explain one job, named by its id or the beginning of it.

    Raises :class:`~llm_queue.terminal.line.NoAnswer` if there is no such job, or more than one.
    """
    job = await desk.line.whole_id(desk.asked.words[0])
    if desk.asked.json:
        desk.say(json.dumps((await desk.line.get(f"/queue/jobs/{job}")).json(), indent=2, ensure_ascii=False))
        return 0
    report = await desk.line.report(job)
    desk.write(*explained(report, desk))
    return 0


def explained(report: Report, desk: Desk) -> list[Row]:
    """What the job is, the sentences, what went before it, and what bounds its wait."""
    rows: list[Row] = [
        [Span(report.job, "strong"), f" of {report.client}"],
        [f"{report.state}, {report.lane}, {report.model}" + (f" at {report.num_ctx}" if report.num_ctx else "")],
        *([line] for line in wrapped(_times(report), desk.paper.width)),
    ]
    if report.error:
        rows.append([Span(report.error, "bad")])
    rows.append([""])
    explanation = report.explanation
    if explanation is None:
        return [*rows, [Span(_OLDER, "dim")]]
    rows += [[line] for sentence in explanation.sentences for line in wrapped(sentence, desk.paper.width)]
    if explanation.bound:
        rows += [[Span(line, "accent")] for line in wrapped(explanation.bound, desk.paper.width)]
    if explanation.picks:
        picks = explanation.picks[-MOST_PICKS:]
        rows += [[""], *desk.paper.table(_COLUMNS, [_cells(one) for one in picks], [""] * len(picks))]
    return rows


def _times(report: Report) -> str:
    parts = [f"waited {seconds(report.wait_s)}", f"loaded {seconds(report.load_s)}", f"ran {seconds(report.run_s)}"]
    if report.ahead is not None:
        parts.append(f"{report.ahead} before it")
    if report.prompt_tokens is not None:
        cached = f" ({report.cached_tokens} kept)" if report.cached_tokens else ""
        parts.append(f"{report.prompt_tokens} tokens of prompt{cached}")
    if report.completion_tokens is not None:
        parts.append(f"{report.completion_tokens} of answer")
    return ", ".join(parts)


def _cells(pick: Pick) -> tuple[str, ...]:
    costs = (("load", pick.load_s), ("cold prompt", pick.cold_prompt_s), ("hold", pick.hold_s))
    paid = ", ".join(f"{name} {seconds(cost)}" for name, cost in costs if cost)
    return pick.client, pick.model, pick.rule.replace("_", " "), paid
