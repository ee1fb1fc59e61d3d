"""A client that is a command: run to its end, or interrupted as by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from client import left

PATIENCE = 100
"""Seconds that a command may take."""


class Failed(Exception):
    """It ended with an error; the text is what its user sees."""


def output(command: list[str], environ: dict[str, str] | None = None) -> str:
    """What it prints. Raises :class:`Failed`."""
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        env={**os.environ, **(environ or {})},
    )
    if ended.returncode:
        raise Failed(ended.stdout + ended.stderr)
    return ended.stdout


def interrupt(command: list[str], environ: dict[str, str], begun: Callable[[bytes], bool]) -> dict[str, Any]:
    """Interrupt it as soon as ``begun`` is true of what it has printed, and see it end."""
    # A shell's background job ignores the signal, and hands that down to what it starts; a handler is not handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **environ},
        bufsize=0,
    )
    assert child.stdout is not None
    seen = b""
    while not begun(seen):
        piece = child.stdout.read(4096)
        if not piece:
            raise Failed(f"it ended by itself: {seen.decode()}")
        seen += piece
    child.send_signal(signal.SIGINT)
    try:
        child.wait(10)
    finally:
        child.kill()
    return left()
