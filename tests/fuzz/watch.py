"""The processes under attack: started, asked what they hold, and ended."""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.e2e.conftest import Ollama, Process
from tests.fuzz.seeds import MODEL

SETTINGS: Final = {
    "OLLAMA_MODEL": MODEL,
    "PORT": "0",
    "LLM_QUEUE_LOG_FORMAT": "json",
    "LLM_TIMEOUT_MS": "5000",
    "LLM_QUEUE_STREAM_TOTAL": "20",
    "LLM_QUEUE_STALL_LIMIT": "1",
    "LLM_QUEUE_MAX_BODY": str(4 * 2**20),
    "LLM_QUEUE_REMEMBERED_JOBS": "100",
}
"""Short limits, where there are any: nothing of an attack should last longer than it must."""

GREETING: Final = re.compile(
    r"llm-queue is listening|  (and on|programs use|watch it|in front of|model|context size|try it|note) "
)
"""How the lines begin that are meant for people."""


class FuzzedOllama(Ollama):
    """A fake Ollama that answers at once, and can do whatever a body asks for."""

    def __init__(self) -> None:
        able = ("completion", "tools", "thinking", "vision", "insert", "embedding")
        flags = [part for one in able for part in ("--capability", one)]
        super().__init__("--model", MODEL, "--load-seconds", "0", "--token-seconds", "0", *flags)


@dataclass(frozen=True)
class Held:
    """What the process holds: trio tasks, open descriptors by kind, and bytes of memory."""

    tasks: int
    descriptors: dict[str, int]
    memory: int

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.descriptors.items()))
        return f"{self.tasks} tasks, {kinds}, {self.memory / 2**20:.0f} MiB"


class FuzzedService(Process):
    """The service, in front of that Ollama. ``faults`` are what it said itself that it must not."""

    def __init__(self, ollama_url: str) -> None:
        super().__init__("-m", "tests.fuzz.service", environ=SETTINGS | {"OLLAMA_URL": ollama_url} | _path())
        self.url = self.wait_for_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1)
        self.port = int(self.url.rpartition(":")[2])
        self.faults: list[str] = []
        self.contained: collections.Counter[str] = collections.Counter()
        self._logged: set[str] = set()
        self._told: list[dict[str, Any]] = []

    def listen(self) -> None:
        """Read what it has said since, and forget it: a long run says much."""
        with self._more:
            lines, self.lines[:] = list(self.lines), []
        for line in lines:
            if line.startswith("fuzz "):
                told = json.loads(line.removeprefix("fuzz "))
                if "contained" in told:
                    self.contained[f"{told['contained']} at {' < '.join(reversed(told['where']))}"] += 1
                else:
                    self._told.append(told)
            elif not line.startswith("{"):
                if GREETING.match(line) is None:
                    self.faults.append(f"it wrote: {line[:500]}")
            else:
                self._hear(json.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        """An error in the log is a fault, once for each place that it comes from."""
        if said["level"] in ("error", "critical"):
            trace = str(said.get("exception", ""))
            place = said["event"] + "".join(re.findall(r'File "(.+?", line \d+)', trace)[-2:])
            if place not in self._logged:
                self._logged.add(place)
                self.faults.append(f"it logged: {said['event']}\n{trace[-2000:]}")

    def held(self) -> Held:
        """What it holds now."""
        self._told.clear()
        self.signal(signal.SIGUSR1)
        last_moment = time.monotonic() + 10
        while not self._told:
            assert time.monotonic() < last_moment, "it does not answer a signal"
            time.sleep(0.01)
            self.listen()
        folder = Path("/proc", str(self.child.pid))
        kinds = collections.Counter(_kind(folder / "fd" / name) for name in os.listdir(folder / "fd"))
        memory = int(re.findall(r"VmRSS:\s+(\d+) kB", (folder / "status").read_text())[0]) * 1024
        return Held(self._told[-1]["tasks"], dict(kinds), memory)

    def line(self) -> dict[str, Any]:
        """Its ``/queue``."""
        status: dict[str, Any] = httpx.get(f"{self.url}/queue", trust_env=False, timeout=10).json()
        return status


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def _kind(descriptor: Path) -> str:
    try:
        return re.sub(r"[:\[].*", "", os.readlink(descriptor))
    except OSError:  # it was closed in between
        return "closed"
