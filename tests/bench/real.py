"""The load that the line was made for, on a real Ollama: straight, through the Node ancestor, and through the line.

``nox -s bench-real -- --ollama URL`` on a quiet machine. All ways take turns in one run, so what counts is their ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from tests.bench.page import write_section
from tests.e2e.conftest import Service, until

ANCESTOR = "llm-queue@0.2.2"
SIZES = (2048, 4096)


@dataclass(frozen=True)
class Caller:
    """One program of a load."""

    name: str
    model: int = 0
    num_ctx: int = SIZES[0]
    every: float = 0.0
    priority: bool = False


LOADS: dict[str, tuple[Caller, ...]] = {
    "one program alone": (Caller("a"),),
    "two programs, one size": (Caller("a"), Caller("b")),
    "two programs, two sizes": (Caller("a"), Caller("b", num_ctx=SIZES[1])),
    "two programs, two models": (Caller("a"), Caller("b", model=1)),
    "two models and two sizes": (Caller("a"), Caller("b", model=1, num_ctx=SIZES[1])),
    "the same and a click every 2 s": (
        Caller("a"),
        Caller("b", model=1, num_ctx=SIZES[1]),
        Caller("click", every=2.0, priority=True),
    ),
}


@dataclass
class Seen:
    """What the programs of a load saw, by name, over all rounds."""

    seconds: float = 0.0
    waits: dict[str, list[float]] = field(default_factory=dict)
    errors: int = 0

    @property
    def rate(self) -> float:
        """Answers per second of the closed loops together."""
        return sum(len(waits) for name, waits in self.waits.items() if name != "click") / self.seconds


class Ways:
    """The ways to the same Ollama."""

    def __init__(self, ollama: str, models: list[str]) -> None:
        self.ollama = ollama
        self.models = models
        self.urls = {"direct": ollama}

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Start the service, and the ancestor where there is a node."""
        with contextlib.ExitStack() as stack:
            if shutil.which("npm") and shutil.which("node"):
                self.urls["ancestor"] = stack.enter_context(self._ancestor())
            environ = {"OLLAMA_MODEL": self.models[0], "OLLAMA_NUM_CTX": str(SIZES[0])}
            service = Service(self.ollama, environ=environ)
            stack.callback(service.end)
            self.urls["llm-queue"] = service.url
            yield

    @contextlib.contextmanager
    def _ancestor(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder, socket.socket() as placeholder:
            subprocess.run(["npm", "install", "--silent", "--prefix", folder, ANCESTOR], check=True)
            placeholder.bind(("127.0.0.1", 0))
            port = placeholder.getsockname()[1]
            placeholder.close()
            environ = os.environ | {
                "OLLAMA_URL": self.ollama,
                "OLLAMA_MODEL": self.models[0],
                "OLLAMA_NUM_CTX": str(SIZES[0]),
                "PORT": str(port),
                "HOST": "127.0.0.1",
            }
            command = str(Path(folder, "node_modules", ".bin", "llm-queue"))
            child = subprocess.Popen([command, "serve"], env=environ, stdout=subprocess.DEVNULL)
            url = f"http://127.0.0.1:{port}"
            try:
                until(lambda: _answers(url))
                yield url
            finally:
                child.terminate()
                child.wait(20)

    def play(self, way: str, load: tuple[Caller, ...], seconds: float) -> tuple[dict[str, list[float]], int]:
        """Run the programs side by side; what they waited, and how many errors they saw."""
        children = {}
        for caller in load:
            arguments = [
                "--url",
                self.urls[way],
                "--model",
                self.models[caller.model],
                "--num-ctx",
                str(caller.num_ctx),
            ]
            arguments += ["--seconds", str(seconds), "--every", str(caller.every)]
            arguments += ["--native"] * (way == "direct") + ["--priority"] * caller.priority
            command = [sys.executable, "-m", "tests.bench.caller", *arguments]
            children[caller.name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        said: dict[str, Any] = {
            name: json.loads(child.communicate(timeout=seconds + 200)[0]) for name, child in children.items()
        }
        return {name: one["waits"] for name, one in said.items()}, sum(one["errors"] for one in said.values())


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    return False


def measure(ways: Ways, names: list[str], seconds: float, rounds: int) -> dict[str, dict[str, Seen]]:
    """All loads in all ways, in turns."""
    seen = {name: {way: Seen() for way in ways.urls} for name in names}
    for _ in range(rounds):
        for name in names:
            for way in ways.urls:
                ways.play(way, LOADS[name][:1], 2.0)  # the first one's model is there when the time begins
                waits, errors = ways.play(way, LOADS[name], seconds)
                result = seen[name][way]
                result.seconds += seconds
                result.errors += errors
                for caller, values in waits.items():
                    result.waits.setdefault(caller, []).extend(values)
                print(f"{name:<32} {way:<10} {result.rate:6.2f} answers/s  {errors} errors", flush=True)
    return seen


def report(seen: dict[str, dict[str, Seen]], ollama_version: str, seconds: float, rounds: int) -> str:
    """The page for the documentation."""
    alone = seen["one program alone"]["direct"].rate
    lines = [
        f"- {time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU",
        f"- Python {platform.python_version()}, llm-queue {version('llm-queue')}, Ollama {ollama_version}, {ANCESTOR}",
        f"- a 135 M parameter model under two names, one loaded at a time; contexts of {SIZES[0]} and {SIZES[1]}",
        f"- {rounds} round(s) of {seconds:g} s for each row; waits in seconds, from question to whole answer",
        "",
        "| load | way | of one alone | answers/s | waits: median / longest | errors |",
        "|---|---|---|---|---|---|",
    ]
    for name, ways in seen.items():
        for way, one in ways.items():
            waits = ", ".join(
                f"{caller} {statistics.median(values):.2f} / {max(values):.1f}" if values else f"{caller} never served"
                for caller, values in one.waits.items()
            )
            share = one.rate / alone if alone else 0.0
            lines.append(f"| {name} | {way} | {share:.2f} | {one.rate:.2f} | {waits} | {one.errors} |")
    return "\n".join([*lines, "", "```text", *plot(seen, alone), "```", ""])


def plot(seen: dict[str, dict[str, Seen]], alone: float) -> list[str]:
    """Answers of the closed loops, as bars: a full one of forty signs is what one program alone gets directly."""
    lines = []
    for name, ways in seen.items():
        lines.append(name)
        for way, one in ways.items():
            share = one.rate / alone if alone else 0.0
            lines.append(f"  {way:<10} {'#' * round(40 * share):<50} {share:.2f}")
    return lines


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.real")
    parser.add_argument("--ollama", default=os.environ.get("LLM_QUEUE_REAL_OLLAMA", "http://127.0.0.1:11434"))
    parser.add_argument("--model", action="append", help="two of them [smollm2:135m, second:135m]")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--load", action="append", choices=list(LOADS), help="[all]")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    given = parser.parse_args()
    ways = Ways(given.ollama, given.model or ["smollm2:135m", "second:135m"])
    names = ["one program alone", *[name for name in given.load or LOADS if name != "one program alone"]]
    ollama_version = httpx.get(f"{given.ollama}/api/version", trust_env=False).json()["version"]
    with ways.opened():
        seen = measure(ways, names, given.seconds, given.rounds)
    page = report(seen, ollama_version, given.seconds, given.rounds)
    print(page)
    if given.write:
        write_section("bench-real", page)


if __name__ == "__main__":
    main()
