"""Agents on one machine: how many steps they take in a minute, with the prompt cache in mind and without.

``nox -s bench-real`` on a quiet machine. An agent here asks as coding agents do: the same long beginning, all that was
said so far, a short answer, a tool that takes a moment, the next step. Each row is taken on a service of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from llm_queue.upstream.embedded.weights import weights
from tests.bench.page import write_section
from tests.e2e.conftest import Service

STEPS: Final = 15
"""Steps of one conversation; then another begins."""

BEGINNING: Final = 900
"""Words of an agent's fixed beginning: about a thousand tokens of the small model."""

ANSWER: Final = 24
"""Tokens of an answer."""

TOOL: Final = (0.2, 2.0)
"""Seconds that a tool takes."""

WORDS: Final = ("the", "file", "of", "test", "that", "line", "value", "is", "read", "by", "name", "and", "kept", "in")


@dataclass(frozen=True)
class Row:
    """Some agents on one engine. ``models`` is the number of models that they share out among themselves.

    ``cache`` is the engine's memory for old prompts. ``strands`` says whether the line takes them into account.
    """

    name: str
    agents: int
    cache: str
    strands: bool = True
    models: int = 1
    ollama: bool = False


ROWS: Final = (
    Row("one agent", 1, "0"),
    Row("two agents, no old prompts kept", 2, "0", strands=False),
    Row("two agents, no old prompts kept", 2, "0"),
    Row("three agents, room for two", 3, "75MiB", strands=False),
    Row("three agents, room for two", 3, "75MiB"),
    Row("two agents, room for all", 2, "256MiB", strands=False),
    Row("two agents, room for all", 2, "256MiB"),
    Row("two agents on two models", 2, "256MiB", strands=False, models=2),
    Row("two agents on two models", 2, "256MiB", models=2),
    Row("one agent, real Ollama", 1, "0", ollama=True),
    Row("two agents, real Ollama, LLAMA_ARG_CACHE_RAM=0", 2, "0", strands=False, ollama=True),
    Row("two agents, real Ollama, LLAMA_ARG_CACHE_RAM=0", 2, "0", ollama=True),
)


@dataclass
class Seen:
    """What was seen of a row: the steps of each agent, its waits in seconds, and the line's own counts."""

    seconds: float
    steps: list[int]
    waits: list[float] = field(default_factory=list)
    found: int = 0
    tokens: int = 0
    errors: int = 0
    line: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Steps a minute, all agents together."""
        return 60 * sum(self.steps) / self.seconds


def text(draw: random.Random, words: int) -> str:
    """Made-up words, the same for the same seed."""
    return " ".join(draw.choice(WORDS) for _ in range(words))


async def agent(number: int, service: Service, model: str, ends: float, seen: Seen) -> None:
    """Take steps until ``ends``; one that is answered later does not count."""
    draw = random.Random(number)
    system = {"role": "system", "content": f"You are agent {number}. " + text(draw, BEGINNING)}
    headers = {"X-LLM-Queue-Client": f"agent {number}"}
    async with httpx.AsyncClient(base_url=service.url, timeout=300, trust_env=False, headers=headers) as client:
        while True:
            said: list[dict[str, str]] = [system, {"role": "user", "content": text(draw, 20)}]
            for _ in range(STEPS):
                asked = trio.current_time()
                if asked >= ends:
                    return
                body = {"model": model, "messages": said, "max_tokens": ANSWER, "temperature": 0}
                response = await client.post("/v1/chat/completions", json=body)
                if response.status_code != 200:
                    seen.errors += 1
                    continue
                answer = response.json()
                if trio.current_time() <= ends:
                    seen.steps[number] += 1
                    seen.waits.append(trio.current_time() - asked)
                    usage = answer["usage"]
                    seen.tokens += usage["prompt_tokens"]
                    seen.found += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                said += [
                    {"role": "assistant", "content": answer["choices"][0]["message"]["content"]},
                    {"role": "user", "content": text(draw, 15)},
                ]
                await trio.sleep(draw.uniform(*TOOL))


@contextmanager
def served(row: Row, ollama: str | None, model: Path | None) -> Iterator[tuple[Service, list[str]]]:
    """A service for this row, and the models that its agents ask for."""
    flags = [] if row.strands else ["--strands", "off"]
    with ExitStack() as stack:
        if row.ollama:
            assert ollama is not None
            names = [one["name"] for one in httpx.get(f"{ollama}/api/tags", trust_env=False).json()["models"]]
            service = Service(ollama, *flags, environ={"OLLAMA_NUM_CTX": "4096", "OLLAMA_MODEL": names[0]})
        else:
            assert model is not None
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            names = [f"model-{number}" for number in range(row.models)]
            for name in names:
                shutil.copy(model, Path(folder, f"{name}.gguf"))
            settings = {"LLM_QUEUE_ENGINE": "embedded", "LLM_QUEUE_GGUF": folder, "OLLAMA_MODEL": ""}
            environ = settings | {"OLLAMA_NUM_CTX": "4096"}
            service = Service("", "--engine-cache", row.cache, *flags, environ=environ)
        stack.callback(service.end)
        yield service, names


def measure(row: Row, seconds: float, ollama: str | None, model: Path | None) -> Seen:
    """Let the agents of this row work for so many seconds."""
    with served(row, ollama, model) as (service, names):
        seen = Seen(seconds, [0] * row.agents)

        async def all_of_them() -> None:
            ends = trio.current_time() + seconds
            async with trio.open_nursery() as nursery:
                for number in range(row.agents):
                    nursery.start_soon(agent, number, service, names[number % row.models], ends, seen)

        trio.run(all_of_them)
        seen.line = service.line()
    return seen


def shown(rows: list[tuple[Row, Seen]], seconds: float) -> str:
    """The section of the documentation."""
    lines = [
        f"- {time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU; "
        f"Python {platform.python_version()}, llm-queue {version('llm-queue')}; {seconds:g} s for each row",
        f"- a 135 M parameter model; about {BEGINNING + 100} tokens at the beginning of a conversation, {ANSWER} in an "
        f"answer, {STEPS} steps, a tool of {TOOL[0]} to {TOOL[1]} s after each",
        "",
        "| agents | strands | steps a minute | of the one before | least / most of an agent | prompt found "
        "| longest wait | holds | loads |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    before: dict[str, float] = {}
    for row, seen in rows:
        ratio = f"{seen.rate / before[row.name]:.2f}" if before.get(row.name) else ""
        before.setdefault(row.name, seen.rate)
        found = f"{seen.found / seen.tokens:.0%}" if seen.tokens else "-"
        errors = f" ({seen.errors} errors)" if seen.errors else ""
        lines.append(
            f"| {row.name} | {'on' if row.strands else 'off'} | {seen.rate:.1f}{errors} | {ratio} | "
            f"{min(seen.steps) / max(1, *seen.steps):.2f} | {found} | {max(seen.waits, default=0):.0f} s | "
            f"{seen.line['holds']} | {seen.line['loads']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the section if asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.agents")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--ollama", default=os.environ.get("LLM_QUEUE_REAL_OLLAMA"), help="the rows of one as well")
    parser.add_argument("--row", action="append", type=int, help="its number, from 0 [all]")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    given = parser.parse_args()
    rows = [ROWS[number] for number in given.row] if given.row else list(ROWS)
    rows = [row for row in rows if given.ollama or not row.ollama]
    model = None if all(row.ollama for row in rows) else trio.run(weights, print)
    seen: list[tuple[Row, Seen]] = []
    for row in rows:
        seen.append((row, measure(row, given.seconds, given.ollama, model)))
        print(shown(seen[-1:], given.seconds).splitlines()[-1], flush=True)
    page = shown(seen, given.seconds)
    print(page)
    if given.write:
        write_section("bench-agents", page)


if __name__ == "__main__":
    main()
