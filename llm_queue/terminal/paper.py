"""What text is written on: how wide it is, whether it has colours, and which characters it knows.

Rows are made of spans, so that a width is counted in characters and not in what colours them. Whatever a service or a
caller has named is cleaned: a name may hold what a terminal would obey.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TextIO

from llm_queue.log import is_terminal

NARROWEST: Final = 40
"""Columns below which nothing is made to fit: nobody reads a table that narrow."""

NO_TERMINAL: Final = 80
"""Columns of what is no terminal, and says no width: what a mail or a log is read at."""

COMMAND: Final = "command"
"""The style of what is to be copied: it is never cut."""

_CODES: Final = {"strong": "1", "dim": "2", "good": "32", "warn": "33", "bad": "31", "accent": "36", COMMAND: "1"}
"""How each style is said to a terminal."""

_ASCII: Final = {"▶": ">", "█": "#", "░": "-", "…": "~"}
"""What stands for our own signs where the encoding has none of them; each as wide as the other."""

_SPARKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_SPARKS: Final = "_.:-=+*#"


class Span(NamedTuple):
    """A piece of a row: its text, and one of the styles (empty: as it is)."""

    text: str
    style: str = ""


Row = Sequence[Span | str]
"""One line. A string is a span without a style."""


class Column(NamedTuple):
    """A column of a table: at least ``width`` wide, and wider by its part of what is left if it may ``grow``.

    A name that is too long loses its beginning if ``keep_end``: the end of a path tells one script from another.
    """

    head: str
    width: int
    grow: bool = False
    right: bool = False
    keep_end: bool = False


@dataclass(frozen=True)
class Paper:
    """What a command writes on. ``width`` is in columns, ``height`` in rows (None: as many as it takes)."""

    width: int = NO_TERMINAL
    height: int | None = None
    colours: bool = False
    unicode: bool = True
    encoding: str = "utf-8"

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str]) -> Paper:
        """The paper that a stream is: a terminal's own size and its colours, unless ``NO_COLOR`` is set."""
        terminal = is_terminal(stream)
        encoding = getattr(stream, "encoding", None) or "ascii"
        size = shutil.get_terminal_size((NO_TERMINAL, 24)) if terminal else os.terminal_size((NO_TERMINAL, 0))
        return cls(
            width=max(NARROWEST, size.columns),
            height=size.lines if terminal else None,
            colours=terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb",
            unicode=_knows(encoding, "".join(_ASCII) + _SPARKS),
            encoding=encoding,
        )

    def line(self, row: Row) -> str:
        """A row as it is written: cut to the width, coloured if there are colours."""
        parts, left = [], self.width
        for one in row:
            span = Span(one) if isinstance(one, str) else one
            text = self.clean(span.text)
            text = text if span.style == COMMAND else self.fit(text, left)
            left -= width_of(text)
            parts.append(self._styled(text, span.style))
        return "".join(parts).rstrip()

    def lines(self, rows: Iterable[Row]) -> str:
        """Rows below each other."""
        return "\n".join(map(self.line, rows))

    def clean(self, text: str) -> str:
        """Text that can be written here, in one line, and makes no terminal do anything."""
        text = "".join(one if one.isprintable() else "?" for one in text)
        if not self.unicode:
            text = "".join(_ASCII.get(one, one) for one in text)
        return text.encode(self.encoding, "replace").decode(self.encoding)

    def fit(self, text: str, width: int, *, keep_end: bool = False) -> str:
        """Text that is no wider: an ellipsis stands for what is left out."""
        if width_of(text) <= width:
            return text
        mark = self.clean("…")
        kept, used = "", width_of(mark)
        for one in reversed(text) if keep_end else text:
            used += width_of(one)
            if used > width:
                break
            kept = one + kept if keep_end else kept + one
        return (mark + kept if keep_end else kept + mark) if width > 0 else ""

    def bar(self, part: float, width: int) -> str:
        """A bar that is filled to ``part``, from 0 to 1."""
        full = round(min(1.0, max(0.0, part)) * width)
        return self.clean("█" * full + "░" * (width - full))

    def sparks(self, values: Sequence[float]) -> str:
        """Values as a row of columns, the highest as high as it goes."""
        signs, top = _SPARKS if self.unicode else _ASCII_SPARKS, max(values, default=0.0) or 1.0
        return "".join(signs[min(len(signs) - 1, int(one / top * (len(signs) - 1) + 0.5))] for one in values)

    def table(self, columns: Sequence[Column], cells: Iterable[Sequence[str]], styles: Sequence[str]) -> list[Row]:
        """A table with its heads; each row has one of ``styles``. Columns do not jump: their widths are the paper's."""
        widths = self._widths(columns)
        rows: list[Row] = [[Span(self._row(columns, widths, [one.head for one in columns]), "dim")]]
        rows += [[Span(self._row(columns, widths, row), style)] for row, style in zip(cells, styles, strict=True)]
        return rows

    def _row(self, columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
        parts = []
        for column, width, cell in zip(columns, widths, cells, strict=True):
            text = self.fit(self.clean(cell), width, keep_end=column.keep_end)
            space = " " * (width - width_of(text))
            parts.append(space + text if column.right else text + space)
        return " ".join(parts).rstrip()

    def _widths(self, columns: Sequence[Column]) -> list[int]:
        growing = [one for one in columns if one.grow]
        left = self.width - len(columns) + 1 - sum(one.width for one in columns)
        each, over = divmod(max(0, left), len(growing)) if growing else (0, 0)
        widths = []
        for one in columns:
            widths.append(one.width + (each + (over > 0) if one.grow else 0))
            over -= one.grow
        return widths

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.colours and style and text.strip() else text


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _knows(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# --- words ----------------------------------------------------------------------------------------------------------


def wrapped(text: str, width: int) -> list[str]:
    """A sentence in lines that are no wider, but for words that are."""
    lines = [""]
    for word in text.split():
        if lines[-1] and width_of(lines[-1]) + 1 + width_of(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines


def seconds(value: float | None) -> str:
    """A time for people: as exact as it is short."""
    if value is None:
        return ""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 99.5:
        return f"{value:.0f} s"
    minutes = value / 60
    if minutes < 59.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


def size(value: int | None) -> str:
    """Bytes for people."""
    if value is None:
        return ""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1023.5:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def count(number: int, one: str, more: str = "") -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
