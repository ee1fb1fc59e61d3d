"""What a client is asked to do, and what it says: the words between a test and the script of a client.

A script gets one :class:`Order` as JSON in its first argument, and prints one answer as a line of JSON. Its features:

- ``plain``: ask, and answer ``{"text"}``;
- ``stream``: the same in a stream, ``{"text", "pieces"}``;
- ``tools``: offer a tool ``weather(place)``, run it when the model calls it, ask again with its result, and answer
  ``{"tool", "arguments", "text"}``;
- ``structured``: ask for an object with the whole number ``answer``, and answer ``{"structured"}``;
- ``leave``: begin a stream, hang up in the client's own way after its first piece, answer ``{"left": true}``, and live
  on until standard input ends, so that it is not the end of the process which hangs up.

Whatever the client's user sees when it goes wrong is the answer ``{"error"}``.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 120.0
"""Seconds that a client may take for one answer: importing a framework alone takes some on a busy machine."""


@dataclass(frozen=True)
class Order:
    """One thing to do: ``url`` is the address that the client is set up with, ``home`` a folder of its own."""

    feature: str
    url: str
    model: str
    prompt: str
    home: str
    variant: str = ""


class Running:
    """The script of a client at work; ``programs`` is a folder of commands that it may call."""

    def __init__(self, command: list[str], order: Order, log: Path, programs: Path) -> None:
        self._log = log
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        environ = {"PATH": path, "HOME": order.home, "LANG": "C.UTF-8", "NO_PROXY": "*"}
        with log.open("wb") as errors:
            self._child = subprocess.Popen(
                [*command, json.dumps(asdict(order))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=order.home,
                env=environ,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout:
            for line in self._child.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def answer(self) -> dict[str, Any]:
        """What it says; what else it prints is passed over. Fails when it takes too long, or ends without a word."""
        what = "it ended without an answer"
        try:
            while (line := self._lines.get(timeout=PATIENCE)) is not None:
                if line.startswith("{"):
                    said: dict[str, Any] = json.loads(line)
                    return said
        except queue.Empty:
            what = f"it has said nothing for {PATIENCE:g} s"
        raise AssertionError(f"{what}:\n{self._log.read_text(errors='replace')[-4000:]}")

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self._child.poll() is None:
                self._child.kill()
            self._child.wait()
            self._reader.join(10)
