"""``python -m tests.fuzz``: attack the service with raw bytes, and see that it neither breaks nor keeps anything.

The service is a process of its own in front of the fake Ollama. While it is attacked an honest client asks in each
dialect, and must get every answer. ``--seed`` and ``--only`` play one input again.
"""

from __future__ import annotations

import argparse
import collections
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
import trio

from tests.fuzz.honest import Honest
from tests.fuzz.inputs import make
from tests.fuzz.play import Bounds, Outcome, play
from tests.fuzz.watch import FuzzedOllama, FuzzedService, Held

PLAYERS: Final = 16
"""Connections at a time."""

INPUTS: Final = 100_000
MOST_SHOWN: Final = 5
MOST_FAULTS: Final = 500
SETTLING: Final = 20.0
"""Seconds after the last input in which everything must be as it was before the first."""

GROWTH: Final = 64 * 2**20
"""Bytes of memory that the service may have grown by. What it keeps on purpose (jobs, programs, names) has bounds."""


@dataclass
class Session:
    """One run. ``faults`` are what was wrong, each with how to see it again."""

    seed: int
    port: int
    numbers: Iterator[int]
    last_moment: float
    bounds: Bounds = field(default_factory=Bounds)
    played: int = 0
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)
    summary: collections.Counter[str] = field(default_factory=collections.Counter)

    async def run(self, service: FuzzedService) -> None:
        """Play inputs until they or the time have come to their end, or the service has come to its."""
        async with trio.open_nursery() as nursery:
            for _ in range(PLAYERS):
                nursery.start_soon(self._player, service)
            nursery.start_soon(self._listen, service)

    async def _player(self, service: FuzzedService) -> None:
        for number in self.numbers:
            if (
                time.monotonic() > self.last_moment
                or service.child.poll() is not None
                or len(self.faults) >= MOST_FAULTS
            ):
                return
            given = make(self.seed, number)
            try:
                outcome = await play(self.port, given, self.bounds)
            except OSError as error:
                outcome = Outcome(faults=[f"nobody listens: {error}"])
            self.played += 1
            self.kinds[given.kind] += 1
            self.statuses.update(outcome.statuses)
            if outcome.faults:
                again = f"python -m tests.fuzz --seed {self.seed} --only {number}"
                came = f"  came back: {bytes(outcome.data[:1500])!r}"
                self.faults.append("\n".join([*outcome.faults, again, given.shown(), came]))
                self.summary[f"{given.kind}: {outcome.faults[0][:80]}"] += 1

    async def _listen(self, service: FuzzedService) -> None:
        """The players end this by ending."""
        played = -1
        while played != self.played:
            played = self.played
            await trio.sleep(2)
            service.listen()


async def attack(session: Session, service: FuzzedService, honest: Honest) -> Held:
    """Warm up, attack, and let it settle. Returns what the service held before."""
    await honest.run(rounds=2)
    await trio.sleep(0.5)
    before = await trio.to_thread.run_sync(service.held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(honest.run)
        await session.run(service)
        nursery.cancel_scope.cancel()
    return before


def settle(service: FuzzedService, before: Held) -> tuple[Held, list[str]]:
    """What the service holds in the end, and what of it should not be there."""
    last_moment = time.monotonic() + SETTLING
    while True:
        line = service.line()
        time.sleep(0.3)  # so that the connection of that question is gone
        after = service.held()
        left = left_behind(before, after, line)
        if not left or time.monotonic() > last_moment:
            return after, left
        time.sleep(0.5)


def left_behind(before: Held, after: Held, line: dict[str, object]) -> list[str]:
    """What is there that was not."""
    left = [f"{name} in the line: {line[name]}" for name in ("slot", "jobs") if line[name]]
    if after.tasks > before.tasks:
        left.append(f"{after.tasks - before.tasks} tasks")
    for kind, count in after.descriptors.items():
        more = count - before.descriptors.get(kind, 0)
        if more > 0:
            left.append(f"{more} descriptors: {kind}")
    if after.memory - before.memory > GROWTH:
        left.append(f"{(after.memory - before.memory) / 2**20:.0f} MiB of memory")
    return left


def end(service: FuzzedService) -> list[str]:
    """Stop the service as its supervisor would; what was wrong with that, and with what it said."""
    if service.child.poll() is not None:
        service.wait()
        service.listen()
        return [*service.faults, f"it ended by itself, with exit code {service.child.returncode}"]
    service.signal(signal.SIGTERM)
    code = service.wait()
    service.listen()
    contained = [
        f"a connection ended by an error, {count} times: {error}" for error, count in service.contained.items()
    ]
    return [*service.faults, *contained, *([f"exit code {code} after SIGTERM"] if code else [])]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="what all inputs follow from; otherwise drawn, and printed")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="how many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--only", type=int, action="append", help="play this input alone; may be given several times")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, and return the exit code: 1 if anything was wrong."""
    given = arguments(argv)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    numbers = iter(given.only if given.only else range(given.first, given.first + given.inputs))
    print(f"seed {seed}", flush=True)
    if given.only:
        for number in given.only:
            print(make(seed, number).shown(20_000))
    ollama = FuzzedOllama()
    service = FuzzedService(ollama.url)
    faults: list[str] = []
    try:
        honest = Honest(service.url)
        session = Session(seed, service.port, numbers, time.monotonic() + given.seconds)
        began = time.monotonic()
        before = trio.run(attack, session, service, honest)
        lasted = time.monotonic() - began
        faults += [f"the honest client: {fault}" for fault in honest.faults[:MOST_SHOWN]]
        if service.child.poll() is None:
            after, left = settle(service, before)
            faults += [f"left behind: {one}" for one in left]
            print(f"before: {before}\nafter:  {after}")
        faults += end(service)
        most = httpx.get(f"{ollama.url}/_fake/log", trust_env=False, timeout=60).json()["max_in_flight"]
        if most > 1:
            faults.append(f"{most} requests in flight at the upstream")
    finally:
        service.end()
        ollama.end()
    report(session, honest, lasted)
    faults += session.faults
    for fault in faults[: MOST_SHOWN * 2]:
        print(f"\nFAULT {fault}")
    print(f"\n{len(faults)} faults" if faults else "\nno fault")
    return 1 if faults else 0


def report(session: Session, honest: Honest, lasted: float) -> None:
    """Say what was done."""
    print(f"{session.played} inputs in {lasted:.0f} s: {dict(sorted(session.kinds.items()))}")
    print(f"statuses: {dict(sorted(session.statuses.items()))}")
    print(f"the honest client: {honest.answered}, at most {honest.longest:.2f} s")
    for fault, count in session.summary.most_common(20):
        print(f"fault, {count} times: {fault}")


if __name__ == "__main__":
    sys.exit(main())
