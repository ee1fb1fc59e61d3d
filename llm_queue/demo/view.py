"""The line as it is now, for people: as plain lines, or as a table that is drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from llm_queue.demo.programs import Record
from llm_queue.dispatch.status import JobStatus, Status

if TYPE_CHECKING:
    from rich.console import Console, Group

MOST_ROWS: Final = 10
"""Jobs that are shown: more would not fit into a small terminal beside the rest."""


class View(Protocol):
    """Shows the line; told of it several times a second."""

    def __call__(self, seconds: float, status: Status, records: Sequence[Record]) -> None:
        """``seconds`` since the start, what ``GET /queue`` says, and the programs' answers so far."""


def why(job: JobStatus, status: Status) -> str:
    """Why this job stands where it stands."""
    if job.state == "running":
        return "runs"
    if job.state == "loading":
        return "its model loads"
    reason = "in a hurry" if job.lane == "interactive" else "has time" if job.lane == "background" else ""
    if status.held_for and not job.resident:
        return f"held for {status.held_for}, who is about to ask again"
    needs = "" if job.resident else "needs a load"
    if reason:
        return f"{reason}, {needs}" if needs else reason
    if needs:
        return f"{needs}, when its turn comes"
    return "its turn" if job.place == 1 else "its model is loaded"


# --- plain ---


class Plain:
    """One line whenever who is served or who waits has changed, and not more often than once a second."""

    EVERY: Final = 1.0

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._last: tuple[float, str] = (-self.EVERY, "")

    def __call__(self, seconds: float, status: Status, records: Sequence[Record]) -> None:
        text = plain(status)
        if text != self._last[1] and seconds >= self._last[0] + self.EVERY:
            self._last = (seconds, text)
            self._write(f"{seconds:5.1f} s  {text}")


def plain(status: Status) -> str:
    """Who runs, and who waits and why, in one line."""
    jobs = status.jobs
    now = [f"{job.client} ({why(job, status)})" for job in jobs if job.place == 0]
    waiting = [f"{job.client} ({why(job, status)})" for job in jobs if job.place > 0]
    more = sum(status.waiting.values()) - len(waiting[:MOST_ROWS])
    shown = ", ".join(waiting[:MOST_ROWS]) + (f" and {more} more" if more > 0 and waiting else "")
    return f"{', '.join(now) or 'nobody runs'}; waiting: {shown or 'nobody'}"


# --- on a terminal ---


_COLUMNS: Final = (("", 2), ("program", 10), ("lane", 11), ("model", 12), ("context", 7), ("waited", 7))


def drawn(seconds: float, status: Status, records: Sequence[Record]) -> Group:
    """The line as a table, and under it what each program has had."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    line = Table(box=box.SIMPLE_HEAD, expand=True, title_justify="left", title=f"The line after {seconds:.0f} s")
    for head, width in _COLUMNS:
        right = head in ("context", "waited")
        # Widths that do not depend on who waits: columns that jump cannot be read.
        line.add_column(head, justify="right" if right else "left", no_wrap=True, min_width=width)
    line.add_column("why", no_wrap=True, ratio=1)
    for job in status.jobs[:MOST_ROWS]:
        served = job.place == 0
        line.add_row(
            Text("▶" if served else str(job.place)),
            Text(job.client),
            Text(job.lane),
            Text(job.model),
            Text(str(job.num_ctx or "")),
            Text(f"{job.wait_s:.1f} s"),
            Text(why(job, status)),
            style="bold green" if served else "yellow" if job.lane == "interactive" else "",
        )
    answers = Table(box=None, expand=True, show_header=False, padding=(0, 1))
    answers.add_column(no_wrap=True)
    answers.add_column(no_wrap=True, justify="right")
    answers.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    for record in records:
        last = " ".join(record.answers[-1].text.split()) if record.answers else ""
        answers.add_row(Text(record.program.name), Text(_progress(record)), Text(last, style="dim"))
    footer = f" loads {status.loads}   loads avoided {status.reloads_avoided}   Ctrl-C ends it"
    return Group(line, answers, Text(footer, style="dim"))


def _progress(record: Record) -> str:
    done = len(record.answers)
    return f"{done} of {record.program.jobs}" if record.program.jobs is not None else f"{done} answers"


@contextmanager
def on_terminal(console: Console) -> Iterator[View]:
    """A view that is drawn anew in place, for as long as the block lasts; the terminal is as before after it."""
    from rich.live import Live

    # No thread of rich's own: it is drawn when we say so, and nothing is left to end.
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def show(seconds: float, status: Status, records: Sequence[Record]) -> None:
            live.update(drawn(seconds, status, records), refresh=True)

        yield show
