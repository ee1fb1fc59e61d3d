"""What is measured side by side: one function for each row of the table. All times are in seconds, sizes in bytes."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.load import PATHS, Caller, one_after_the_other, request, request_in
from tests.bench.ways import Engine, Peers, Way

EVERYBODY: Final = ("llm-queue", "ancestor", "HAProxy")
CROWD: Final = 10_000
CROWD_BEHIND_HAPROXY: Final = 9_800
"""As many as it takes when a process may open 20,000 files, two for each, and a caller that asks for the health."""

FLAGS: Final = ("--max-waiting", "20000")
ROUNDS: Final = 3
"""How often each row is measured in each way, in turns."""

Numbers = dict[str, float]
"""Names of measures, and their values."""


@dataclass(frozen=True)
class Row:
    """One thing that is measured, in one way at a time: a set-up of the engine, and what is done with the way."""

    measure: Callable[[Way, Engine], Coroutine[Any, Any, Numbers]]
    seconds: float = 0.0
    tokens: int = 20
    rate: float = 0.0
    first: float = 0.0
    ways: tuple[str, ...] = EVERYBODY
    rounds: int = ROUNDS


async def new_connections(way: Way, engine: Engine) -> Numbers:
    """Processor time of a request that comes on a connection of its own."""
    data = request(way, close=True)
    await one_after_the_other(way, data, 20, anew=True)
    before, times = way.cpu(), 300
    await one_after_the_other(way, data, times, anew=True)
    return {"CPU of a request on a new connection, 20 tokens": (way.cpu() - before) / times}


async def gap(way: Way, engine: Engine) -> Numbers:
    """From the end of an answer at the engine to the arrival of the next request, while some wait."""
    data = request(way)
    callers = [await Caller.connect(way) for _ in range(8)]
    each = 30

    async def loop(caller: Caller) -> None:
        for _ in range(each):
            await caller.ask(data)

    await one_after_the_other(way, data, 3, anew=False)
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(loop(caller))
    log = engine.log()
    assert log["most"] == 1, log["most"]
    gaps = sorted(later - end for end, later in zip(log["ends"][10:-10], log["arrivals"][11:-9], strict=True))
    for caller in callers:
        caller.close()
    return {f"gap between two requests, service {engine_ms(engine)} ms": statistics.median(gaps)}


def engine_ms(engine: Engine) -> str:
    """How long a request takes there, in words."""
    return f"{engine.seconds * 1000:g}"


async def streamed(way: Way, engine: Engine) -> Numbers:
    """Processor time of one streamed token, at 200 tokens a second."""
    data = request(way, stream=True)
    await one_after_the_other(way, data, 1, anew=False)
    before = way.cpu()
    await one_after_the_other(way, data, 2, anew=False)
    return {"CPU per streamed token at 200/s": (way.cpu() - before) / (2 * engine.tokens)}


async def whole(way: Way, engine: Engine) -> Numbers:
    """Processor time of one token of an answer that the caller wants whole."""
    data = request(way)
    await one_after_the_other(way, data, 1, anew=False)
    before, times = way.cpu(), 20
    await one_after_the_other(way, data, times, anew=False)
    return {"whole answers, CPU per upstream token": (way.cpu() - before) / (times * engine.tokens)}


async def fast(way: Way, engine: Engine) -> Numbers:
    """Tokens a second of a stream as fast as it can."""
    data = request(way, stream=True)
    await one_after_the_other(way, data, 1, anew=False)
    took = await one_after_the_other(way, data, 5, anew=False)
    return {"streamed tokens per second": engine.tokens / statistics.median(took)}


async def first_token(way: Way, engine: Engine) -> Numbers:
    """How much later the first token of a stream comes than the engine gives it."""
    data = request(way, stream=True)
    caller = await Caller.connect(way)
    took = [await caller.first(data) for _ in range(60)]
    caller.close()
    return {"added time to first token": statistics.median(took[10:]) - engine.seconds}


async def dialects(way: Way, engine: Engine) -> Numbers:
    """Streamed tokens per second in each dialect of the line, and the time of a whole answer of no time."""
    numbers: Numbers = {}
    for dialect in PATHS:
        stream, whole_one = request_in(dialect, stream=True), request_in(dialect)
        await one_after_the_other(way, stream, 1, anew=False)
        took = await one_after_the_other(way, stream, 5, anew=False)
        numbers[f"in {dialect} dialect, streamed tokens per second"] = engine.tokens / statistics.median(took)
        took = await one_after_the_other(way, whole_one, 100, anew=False)
        numbers[f"in {dialect} dialect, a whole answer"] = statistics.median(took)
    return numbers


async def hang_up(way: Way, engine: Engine) -> Numbers:
    """From the hang-up of a caller whose request runs to the arrival of the next one at the engine."""
    data = request(way, stream=True)
    gaps: list[float] = []
    for _ in range(20):
        first, second = await Caller.connect(way), await Caller.connect(way)
        first.writer.write(data)
        await until_count(engine, 2 * len(gaps) + 1)
        second.writer.write(data)
        await asyncio.sleep(0.05)
        left = time.monotonic()
        first.close()
        await until_count(engine, 2 * len(gaps) + 2)
        gaps.append((await log_of(engine))["arrivals"][-1] - left)
        second.close()
        await asyncio.sleep(0.05)
    return {"hang-up to next arrival, p99": max(gaps)}


async def log_of(engine: Engine) -> dict[str, list[float]]:
    """The engine's log, asked in a thread."""
    return await asyncio.to_thread(engine.log)


async def until_count(engine: Engine, count: int) -> None:
    """Wait until that many requests have arrived."""
    until = time.monotonic() + 20
    while len((await log_of(engine))["arrivals"]) < count:
        assert time.monotonic() < until, "the request never arrived"
        await asyncio.sleep(0.002)


async def crowd(way: Way, engine: Engine) -> Numbers:
    """Ten thousand callers come and wait: how long it takes, what it costs, and whom it holds up.

    Another caller asks for the health all the while: the longest that it waits is a stop of the loop. Then callers in a
    hurry come, one after the other, while all wait and the engine takes no time: what counts is when each is served.
    """
    data = request(way)
    blocker = await Caller.connect(way)
    blocker.writer.write(data)
    await until_count(engine, 1)
    memory = way.memory()
    size = CROWD_BEHIND_HAPROXY if way.name == "HAProxy" else CROWD
    stops: list[float] = []
    watching = asyncio.create_task(watch(way, stops))
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    callers = []
    for _ in range(size):
        callers.append(await Caller.connect(way))
        callers[-1].writer.write(data)
    await until_all_wait(way, size)
    accepted = time.monotonic() - begun
    gc.freeze()  # or our own collector stops us, and that would look like a stop of what is measured
    await asyncio.sleep(12)  # the first word to those who wait, if there is any
    watching.cancel()
    numbers = {
        "10,000 come: until all wait": accepted,
        "longest stop of the loop while 10,000 come and wait": max(stops),
        "memory per waiting request at 10,000": (way.memory() - memory) / size,
    }
    if way.name == "llm-queue":
        asked = []
        for _ in range(5):
            await asyncio.sleep(1.1)  # what is asked within a second of another is told the same
            began = time.monotonic()
            await get(way, "/queue")
            asked.append(time.monotonic() - began)
        numbers["GET /queue at 10,000"] = statistics.median(asked)
    blocker.close()
    numbers |= await drained(way, engine, callers)
    for caller in callers:
        caller.close()
    gc.unfreeze()
    return numbers


async def drained(way: Way, engine: Engine, callers: list[Caller]) -> Numbers:
    """How long it takes to answer them all, and how long a caller in a hurry waits meanwhile."""
    hurried: list[float] = []
    urgent = request(way, priority=True)

    async def hurry() -> None:
        caller = await Caller.connect(way)
        while True:
            hurried.extend([await timed(caller, urgent)])
            await asyncio.sleep(0.01)

    begun = time.monotonic()
    hurrying = asyncio.create_task(hurry())
    await asyncio.gather(*(caller.answer() for caller in callers))
    took = time.monotonic() - begun
    hurrying.cancel()
    hurried.sort()
    return {
        "10,000 wait: until all are answered": took,
        "priority request with 10,000 waiting, p99": hurried[int(len(hurried) * 0.99)],
    }


async def timed(caller: Caller, data: bytes) -> float:
    """Seconds that an answer takes."""
    begun = time.monotonic()
    await caller.ask(data)
    return time.monotonic() - begun


async def watch(way: Way, stops: list[float]) -> None:
    """Ask for the health, again and again on one connection, and note how long each answer takes."""
    caller = await Caller.connect(way)
    while True:
        begun = time.monotonic()
        await caller.ask(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        stops.append(time.monotonic() - begun)
        await asyncio.sleep(0.01)


async def get(way: Way, path: str) -> bytes:
    """What a GET on a new connection is answered."""
    caller = await Caller.connect(way)
    answer = await caller.ask(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    caller.close()
    return answer


async def until_all_wait(way: Way, size: int) -> None:
    """Wait until all that was sent has become a request that waits.

    The line says how many wait. Of the others it is taken from their process: it has little to do then.
    """
    before = -1.0
    while True:
        await asyncio.sleep(0.1)
        if way.name == "llm-queue":
            if sum(json.loads(await get(way, "/queue?limit=0"))["waiting"].values()) >= size:
                return
            continue
        now = way.cpu()
        if now - before < 0.02:
            return
        before = now


ROWS: Final[dict[str, tuple[Row, ...]]] = {
    "connections": (Row(new_connections),),
    "gap": (Row(gap, seconds=0.005), Row(gap, seconds=0.05, rounds=1)),
    "tokens": (
        Row(streamed, tokens=400, rate=200.0, rounds=1),
        Row(whole, tokens=400),
        Row(fast, tokens=20_000),
        Row(first_token, seconds=0.05, rate=200.0),
    ),
    "dialects": (Row(dialects, tokens=200, ways=("llm-queue",)),),
    "hang-up": (Row(hang_up, seconds=0.1, tokens=300, rate=100.0, rounds=1),),
    "crowd": (Row(crowd, first=3600.0, rounds=1),),
}


def measured(peers: Peers, parts: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """Every row of these parts, in all ways that can be had, in turns: measure to way to values of all rounds."""
    seen: dict[str, dict[str, list[float]]] = {}
    for part in parts:
        for row in ROWS[part]:
            for _ in range(row.rounds):
                for name in row.ways:
                    if name not in peers.skipped:
                        one_round(peers, row, name, seen)
    return seen


def one_round(peers: Peers, row: Row, name: str, seen: dict[str, dict[str, list[float]]]) -> None:
    """Measure once, in one way, and add the numbers to ``seen``."""
    engine = Engine(seconds=row.seconds, tokens=row.tokens, rate=row.rate, first=row.first)
    try:
        with peers.opened(name, engine.url, *FLAGS) as way:
            numbers: Numbers = asyncio.run(row.measure(way, engine))
            for measure, value in numbers.items():
                seen.setdefault(measure, {}).setdefault(name, []).append(value)
                print(f"{measure:<60} {name:<10} {value:.6g}", flush=True)
    finally:
        engine.end()
