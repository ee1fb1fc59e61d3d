"""Many callers at once: they hold, the next one is refused at once, and when they leave nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

from llm_queue.descriptors import BEYOND, RESERVE, raise_limit
from tests.soak.ledger import Ledger
from tests.soak.processes import PATIENCE, Service, Upstream
from tests.soak.wire import Heard, Line

BURST: Final = 2000
"""Connections that come at once."""

SETTLE: Final = 120.0
"""Seconds in which all who come must be in line, or all who leave out of it."""

AT_ONCE: Final = 1.0
"""Seconds within which whoever comes to a full line must know it, with ten thousand others on the same machine."""


def chat(prompt: str) -> bytes:
    """A question, as bytes for the wire."""
    body = json.dumps({"model": "fake", "messages": [{"role": "user", "content": prompt}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


HEALTH: Final = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def answer(line: Line, data: bytes) -> tuple[int, float]:
    """The status of one answer, and the seconds that it took."""
    heard, begun = Heard(), time.monotonic()
    await line.send(data)
    await line.hear(heard)
    return heard.status, time.monotonic() - begun


async def burst(service: Service, size: int) -> float:
    """Seconds until so many who come at once are all answered, each on a connection of its own."""
    lines = [Line(service.port) for _ in range(size)]
    begun = time.monotonic()
    await asyncio.gather(*(line.open() for line in lines))
    statuses = await asyncio.gather(*(answer(line, HEALTH) for line in lines))
    took = time.monotonic() - begun
    assert {status for status, _ in statuses} == {200}
    for line in lines:
        line.close()
    return took


async def come_and_go(service: Service, ledger: Ledger, callers: int) -> None:
    """``callers`` wait behind one that hangs."""
    _, files_before = service.measure()
    took = await burst(service, min(BURST, callers))
    print(f"crowd: {min(BURST, callers)} connections at once, all answered after {took:.2f} s")
    memory_before, _ = service.measure()
    first = Line(service.port)
    await first.open()
    await first.send(chat("!hang"))
    await until(service, lambda line: line["slot"] is not None, ledger, "the first has the slot")
    begun = time.monotonic()
    lines = [Line(service.port) for _ in range(callers)]
    for start in range(0, callers, 500):
        some = lines[start : start + 500]
        await asyncio.gather(*(line.open() for line in some))
        await asyncio.gather(*(line.send(chat(f"!say kanari{start}")) for line in some))
    await until(service, lambda line: sum(line["waiting"].values()) == callers, ledger, f"{callers} wait")
    memory, files = service.measure()
    per = (memory - memory_before) / callers * 1024
    took = time.monotonic() - begun
    print(f"crowd: {callers} wait after {took:.1f} s, {per:.0f} KiB each, {files} descriptors")
    beyond = [Line(service.port) for _ in range(10)]
    for line in beyond:
        await line.open()
        status, seconds = await answer(line, chat("!say too many"))
        if status != 429 or seconds > AT_ONCE:
            ledger.problem(f"crowd: the next over the bound got {status} after {seconds:.2f} s")
    print(f"crowd: the next got 429 after {seconds * 1000:.0f} ms")
    begun = time.monotonic()
    for line in (first, *beyond, *lines):
        line.close(reset=True)
    await until(service, lambda line: not line["slot"] and not any(line["waiting"].values()), ledger, "all have gone")
    print(f"crowd: all gone after {time.monotonic() - begun:.1f} s")
    _, files_after = service.measure()
    if files_after > files_before + 8:
        ledger.problem(f"crowd: descriptors: {files_before} before, {files_after} after")
    end = service.line()
    if end["ended"] != {"cancelled": callers + 1} or end["rejected"] != {"line_full": 10}:
        ledger.problem(f"crowd: {end['ended']} ended, {end['rejected']} rejected")


async def until(service: Service, holds: Callable[[dict[str, Any]], bool], ledger: Ledger, what: str) -> None:
    """Look again until it holds of ``/queue``."""
    last_moment = time.monotonic() + SETTLE
    while not holds(await asyncio.to_thread(service.line)):
        if time.monotonic() > last_moment:
            ledger.problem(f"crowd: this never came to be: {what}")
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def crowd(upstream: Upstream, ledger: Ledger, callers: int) -> None:
    """Run it against a service of its own."""
    limit = raise_limit(callers)
    if limit is not None and limit < callers + BEYOND + RESERVE:
        print(f"crowd: this system allows {limit} open files, so fewer come than {callers}")
        callers = limit - BEYOND - RESERVE
    service = Service(upstream, ledger, "--max-waiting", str(callers), "--attempt-timeout", "600")
    try:
        asyncio.run(come_and_go(service, ledger, callers))
    except TimeoutError:
        pass  # told already
    finally:
        service.child.terminate()
        service.wait(PATIENCE)
