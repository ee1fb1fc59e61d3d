"""The page with the table: written by a run of the whole matrix from what callers got."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.faults.matrix import CELLS, FAULTS, HALF, Cell, Engine, Fault, Form, Outcome, Try, played, senseless

PAGE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "faults.md"

_HEAD: Final = """\
# When the upstream fails

Written by `nox -s faults`, from what callers got. It puts the whole service in front of an upstream that fails on
purpose: {faults} faults, at the first try of a job and at the retry, for whole answers and for streams that are struck
before and after their first token, at each kind of upstream. That makes {cells} cells, of which {played} make sense.
The settings are the defaults.

In each of them these hold as well: the caller is not cut off without a word, and what was not answered in full does not
look so; when the caller has its answer, the slot is free and the upstream works on nothing; the next request is
answered, once the upstream can; the job has ended once; and there was never more than one request in flight. The
dialects (OpenAI's chat and Responses, Anthropic's Messages, Ollama's chat) take turns in the cells; each has the error
in its own [shape](http.md#errors).

How to read them:

- **answer**: the whole answer with status 200, and nothing of a try that was lost. *2 tries*: it was run twice.
- **502 `upstream_broke`**: that status, and an error with that code.
- **200, then `attempt_timed_out`**: nothing could be sent for ten seconds, so the headers had left. The stream ends
  with the dialect's error.
- **half, then `upstream_broke`**: what had come of the answer, and then the error. Such an answer is never repeated.
- **retry**: the first try was lost, by a 500; for what strikes a load, by the death of the process that had the model.
- **{none}** with a number: there is no such cell, for the reason of that number below.

What stands still as a whole cannot see that it was left. The connection is closed after two seconds, and if it wakes
up later, it may find two requests. The embedded engine is killed then.
"""

NONE: Final = "none"


def page(outcomes: Mapping[Cell, Outcome]) -> str:
    """The whole page, for what each cell came to."""
    reasons: list[str] = []
    tables = [_table(engine, outcomes, reasons) for engine in Engine]
    head = _HEAD.format(faults=len(FAULTS), cells=len(CELLS), played=len(played()), none=NONE)
    listed = "\n".join(f"{number}. {reason[0].upper()}{reason[1:]}." for number, reason in enumerate(reasons, 1))
    return "\n".join([head, *tables, "## Cells that make no sense\n", listed, ""])


def _table(engine: Engine, outcomes: Mapping[Cell, Outcome], reasons: list[str]) -> str:
    title = engine.value[0].upper() + engine.value[1:]
    lines = [f"## {title}\n", _row("the upstream", "struck", *(form.value for form in Form)), _row(*["---"] * 5)]
    cells = [cell for cell in CELLS if cell.engine is engine]
    for (fault, attempt), row in groupby(cells, key=_row_of):
        words = fault.words if attempt is Try.FIRST else ""
        lines.append(_row(words, attempt.value, *(_came_to(cell, outcomes, reasons) for cell in row)))
    return "\n".join(lines) + "\n"


def _row_of(cell: Cell) -> tuple[Fault, Try]:
    return cell.fault, cell.attempt


def _came_to(cell: Cell, outcomes: Mapping[Cell, Outcome], reasons: list[str]) -> str:
    reason = senseless(cell)
    if reason is not None:
        if reason not in reasons:
            reasons.append(reason)
        return f"{NONE} ({reasons.index(reason) + 1})"
    outcome = outcomes[cell]
    tries = f", {outcome.tries} tries" if outcome.tries > 1 else ""
    if outcome.code is None:
        return f"answer{tries}"
    begun = "half, then" if outcome.text == HALF else "200, then" if outcome.status == 200 else str(outcome.status)
    return f"{begun} `{outcome.code}`{tries}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
