"""Run what others have written: its output kept, its time and memory bounded, and nothing of it leaves this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

MEMORY = 6 << 30
"""Bytes that one process may take: Ollama, an engine with its model, or the tests."""

OFFLINE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,::1"),
}
"""Nobody listens on that port: what would fetch a model or a picture from elsewhere fails at once."""


class CannotRun(Exception):
    """Something is missing. The text says what."""


def bound_memory() -> None:
    """For this process and all that it starts, each on its own."""
    import resource  # there is none on Windows, where the rest of this is imported by its tests

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def prepare(command: Sequence[str | Path], cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Run what must succeed, such as a build, and return what it says. Raises ``CannotRun``."""
    try:
        ended = subprocess.run(
            command, cwd=cwd, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise CannotRun(f"this does not start: {' '.join(map(str, command))}: {error}") from error
    if ended.returncode != 0:
        raise CannotRun(f"this failed: {' '.join(map(str, command))}\n{ended.stdout}{ended.stderr}".rstrip())
    return ended.stdout


def run_suite(
    command: Sequence[str | Path], cwd: Path, environ: Mapping[str, str], seconds: float, output: Path
) -> str:
    """Run tests that may fail, and return what they say, which stands in ``output`` as well.

    After ``seconds`` they are ended, and with them all that they have started; what they have said by then is the
    result, so cases that did not come to their turn have none.
    """
    with output.open("wb") as file:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **OFFLINE, **environ},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return output.read_text(encoding="utf-8", errors="replace")


def say(line: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
