"""What open pages cost: processor time of the service at 50 jobs a minute, and the gap between two requests.

Each page is a client that does what the page in a browser does: it reads ``/queue/events``, and asks why a job
runs, and why one is next. ``python -m tests.bench.watchers`` prints it; ``--write`` puts it into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.bench.load import Caller, one_after_the_other, request
from tests.bench.page import write_section
from tests.bench.rows import gap
from tests.bench.ways import Engine, Way
from tests.e2e.conftest import Service

PAGES: Final = 10
JOBS_A_MINUTE: Final = 50
SETTLED: Final = 0.4
AGAIN: Final = 10.0
"""Seconds for which the page waits before it asks about a job, and before it asks anew."""
WARM: Final = 5.0
"""Seconds before the clock starts: imports, first connections."""


@contextmanager
def in_line(engine: str) -> Iterator[Way]:
    """The line in front of the engine at that URL."""
    service = Service(engine, environ={"LLM_QUEUE_LOG_FORMAT": "text"})
    try:
        yield Way("llm-queue", service.url, native=False, pid=service.child.pid)
    finally:
        service.end()


class Page:
    """One open page."""

    def __init__(self, port: int) -> None:
        self.events = 0
        self.asked = 0
        self.live = asyncio.Event()
        self._port = port
        self._shown: dict[str, str] = {}

    async def watch(self) -> None:
        """Until cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
        writer.write(b"GET /queue/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as asking:
                while line := await reader.readline():
                    if line.startswith(b"data: "):
                        self.events += 1
                        self.live.set()
                        self._show(json.loads(line[6:]), asking)
        finally:
            writer.close()

    def _show(self, state: dict[str, object], asking: asyncio.TaskGroup) -> None:
        slot, jobs = state["slot"], state["jobs"]
        assert isinstance(jobs, list)
        running = slot["job"] if isinstance(slot, dict) else None
        waiting = next((job["job"] for job in jobs if job["job"] != running), None)
        for panel, job in (("now", running), ("next", waiting)):
            about = f"{job} {running}"
            if self._shown.get(panel) != about:
                self._shown[panel] = about
                if job is not None:
                    asking.create_task(self._keep_asking(panel, job, about))

    async def _keep_asking(self, panel: str, job: str, about: str) -> None:
        await asyncio.sleep(SETTLED)
        while self._shown[panel] == about:
            await self._ask(job)
            await asyncio.sleep(AGAIN)

    async def _ask(self, job: str) -> None:
        self.asked += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"GET /queue/jobs/{job} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        await reader.read()
        writer.close()


async def work(way: Way, seconds: float) -> float:
    """The share of one core that the service takes in so many seconds of 50 jobs a minute, two of which wait."""
    callers = [await Caller.connect(way) for _ in range(3)]
    data = request(way)

    async def ask(caller: Caller) -> None:
        while True:
            await caller.ask(data)

    tasks = [asyncio.create_task(ask(caller)) for caller in callers]
    await asyncio.sleep(WARM)
    before = way.cpu()
    await asyncio.sleep(seconds)
    spent = way.cpu() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for caller in callers:
        caller.close()
    return spent / seconds


async def with_pages(way: Way, pages: int) -> tuple[list[Page], list[asyncio.Task[None]]]:
    """So many pages, open."""
    opened = [Page(int(way.url.rpartition(":")[2])) for _ in range(pages)]
    tasks = [asyncio.create_task(page.watch()) for page in opened]
    for page in opened:
        await page.live.wait()
    return opened, tasks


async def measured(seconds: float, rounds: int) -> dict[int, dict[str, float]]:
    """The numbers without pages and with them, in turns: the medians of the rounds."""
    found: dict[int, dict[str, list[float]]] = {pages: {} for pages in (0, PAGES)}
    for _ in range(rounds):
        for pages, numbers in found.items():
            tokens = 20
            engine = Engine(rate=tokens * JOBS_A_MINUTE / 60, tokens=tokens)
            try:
                with in_line(engine.url) as way:
                    opened, tasks = await with_pages(way, pages)
                    numbers.setdefault("core", []).append(await work(way, seconds))
                    spent = WARM + seconds
                    events = sum(page.events for page in opened) / max(1, pages) / spent
                    numbers.setdefault("events", []).append(events)
                    numbers.setdefault("asked", []).append(sum(page.asked for page in opened) / max(1, pages) / spent)
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                engine.end()
            engine = Engine(seconds=0.05)
            try:
                with in_line(engine.url) as way:
                    await one_after_the_other(way, request(way), 3, anew=False)
                    opened, tasks = await with_pages(way, pages)
                    numbers.setdefault("gap", []).extend((await gap(way, engine)).values())
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                engine.end()
    return {
        pages: {name: statistics.median(values) for name, values in numbers.items()} for pages, numbers in found.items()
    }


def table(numbers: dict[int, dict[str, float]]) -> str:
    """The numbers as Markdown."""
    without, pages = numbers[0], numbers[PAGES]
    lines = [
        f"| at {JOBS_A_MINUTE} jobs a minute, two waiting | no page | {PAGES} pages |",
        "|---|---|---|",
        f"| share of one core | {100 * without['core']:.1f} % | {100 * pages['core']:.1f} % |",
        f"| events a second and page | | {pages['events']:.1f} |",
        f"| questions a second and page | | {pages['asked']:.1f} |",
        f"| gap between two requests of 50 ms | {1000 * without['gap']:.2f} ms | {1000 * pages['gap']:.2f} ms |",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure; 1 if the pages cost 5 % of a core or more."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.watchers")
    parser.add_argument("--seconds", type=float, default=30.0, help="that each share of a core is measured for")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    numbers = asyncio.run(measured(given.seconds, given.rounds))
    text = table(numbers)
    print(text)
    if given.write:
        write_section("bench-page", text)
    return int(numbers[PAGES]["core"] - numbers[0]["core"] >= 0.05)


if __name__ == "__main__":
    sys.exit(main())
