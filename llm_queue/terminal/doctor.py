"""``llm-queue doctor``: looks at the service, at Ollama and at this machine, and says what to mend and how."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from llm_queue.terminal.desk import Desk
from llm_queue.terminal.facts import Sources, gather
from llm_queue.terminal.findings import Finding, findings
from llm_queue.terminal.paper import COMMAND, Row, Span, count, wrapped

_STYLES: Final = {"ok": "good", "note": "accent", "warning": "warn", "error": "bad"}

_LEVEL: Final = 8
"""Columns of the level."""


async def doctor(desk: Desk, sources: Sources | None = None) -> int:
    """Say all findings. Returns 0 if there is nothing to mend, else 1. ``sources`` is where the facts come from."""
    found = findings(await gather(desk.line, desk.settings, sources or Sources()))
    trouble = sum(one.is_trouble for one in found)
    if desk.asked.json:
        desk.say(json.dumps([one._asdict() for one in found], indent=2, ensure_ascii=False))
        return 1 if trouble else 0
    desk.write(*told(found, desk.paper.width))
    return 1 if trouble else 0


def told(found: Iterable[Finding], width: int) -> list[Row]:
    """The findings for people, and how many there are to mend. Commands stand whole in lines of their own."""
    rows: list[Row] = []
    trouble = 0
    for one in found:
        trouble += one.is_trouble
        first, *more = wrapped(one.text, width - _LEVEL)
        rows.append([Span(f"{one.level:{_LEVEL}}", _STYLES[one.level]), first])
        rows += [[f"{'':{_LEVEL}}{line}"] for line in more]
        if one.command:
            rows.append([f"{'':{_LEVEL}}", Span(f"$ {one.command}", COMMAND)])
    rows.append([""])
    rows.append([Span(f"{count(trouble, 'thing')} to mend.", "warn") if trouble else Span("All is well.", "good")])
    return rows
