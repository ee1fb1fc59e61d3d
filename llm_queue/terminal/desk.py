"""Where a command runs: the service that it asks, what it writes on, and what it was told."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TextIO

from llm_queue import log
from llm_queue.settings import Settings
from llm_queue.terminal.line import Line
from llm_queue.terminal.paper import Paper, Row


@dataclass(frozen=True)
class Asked:
    """What a command was told, besides the settings: its words, and its flags."""

    words: tuple[str, ...] = ()
    json: bool = False
    lane: str = "interactive"
    unload: bool = False


@dataclass(frozen=True)
class Desk:
    """One command's place. ``out`` is for what was asked for, ``err`` for all that is said besides."""

    line: Line
    settings: Settings
    asked: Asked = Asked()
    environ: Mapping[str, str] = field(default_factory=dict)
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    stdin: TextIO | None = None

    @property
    def paper(self) -> Paper:
        """What ``out`` is, now: a terminal's size changes."""
        return Paper.of(self.out, self.environ)

    def write(self, *rows: Row) -> None:
        """Rows, to ``out``."""
        self.say(self.paper.lines(rows))

    def say(self, text: str) -> None:
        """A text, to ``out``, as it is. Raises ``BrokenPipeError`` when nobody reads any more."""
        self.out.write(text + "\n")
        self.out.flush()

    def complain(self, text: str) -> None:
        """A line for people, to ``err``."""
        log.say(f"llm-queue: {text}", self.err)
