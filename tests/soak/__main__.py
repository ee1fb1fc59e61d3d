"""A long run of the service under random load and faults: ``nox -s soak -- --seconds 60``.

Exit code 0 if all holds, 1 if something does not; what, and the seed that repeats what was asked, is said at the end.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from tests.soak.crowd import crowd
from tests.soak.kinds import KINDS
from tests.soak.ledger import Ledger
from tests.soak.processes import Process, Service, Upstream, ask

MORE_MEMORY: Final = (1.1, 12.0)
"""Memory is flat if the median of the last tenth is at most this many times that of the first, and so many MiB more:
what the collector of cycles has not looked at yet, and what the allocator keeps."""

MORE_FILES: Final = 8
"""Descriptors are flat if there are at most so many more at the end, when nobody calls, than at the beginning."""

WARM_UP: Final = 0.1
"""Share of the time after which the first tenth begins: until then imports, caches and the list of finished jobs fill
up. At least :data:`WARM_JOBS` have ended by then."""

WARM_JOBS: Final = 2000

FLAGS: Final = (
    *("--attempt-timeout", "0.5", "--load-timeout", "5", "--outage-wait", "3", "--first-outage-wait", "3"),
    *("--max-waiting", "80", "--drain-timeout", "10", "--stall-limit", "5"),
)


@dataclass
class Samples:
    """Memory in MiB and descriptors, over time."""

    memory: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def tenths(self) -> tuple[float, float]:
        """The medians of the first and the last tenth of the samples of memory."""
        tenth = max(1, len(self.memory) // 10)
        return statistics.median(self.memory[:tenth]), statistics.median(self.memory[-tenth:])


def kinds_of(service: Service) -> list[str]:
    """Those that this service speaks."""
    spoken = []
    for name, kind in KINDS.items():
        status, _ = ask(service.url + kind.path)
        (spoken.append(name) if status == 405 else print(f"left out, since it is not spoken here: {name}"))
    return spoken


def callers(
    service: Service, ledger: Ledger, given: argparse.Namespace, kinds: list[str], seconds: float, **how: float
) -> list[Process]:
    """Start the processes that call."""
    flags = [word for name in kinds for word in ("--kind", name)]
    flags += ["--port", str(service.port), "--seed", str(given.seed), "--clients", str(given.clients)]
    flags += ["--seconds", str(seconds)]
    flags += [word for name, value in how.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")]
    first = 0x1000 if how["faults"] else 0x2000
    return [
        Process(["-m", "tests.soak.caller", *flags, "--first-client", str(first + number * 256)], ledger.caller_said)
        for number in range(given.processes)
    ]


def soak(service: Service, upstream: Upstream, ledger: Ledger, given: argparse.Namespace, kinds: list[str]) -> None:
    """Random load and faults for so long; the upstream dies now and then."""
    draw = random.Random(given.seed)
    _, files_before = service.measure()
    samples = Samples()
    begun = time.monotonic()
    calling = callers(service, ledger, given, kinds, given.seconds, faults=0.15, hang_ups=0.1)
    next_death = begun + draw.uniform(5, 15)
    next_look = begun
    while any(process.child.poll() is None for process in calling):
        now = time.monotonic()
        if now > begun + given.seconds + 200:
            ledger.problem("callers did not come to their end")
            break
        if now >= next_look:
            service.look_through()
            next_look = now + 2
        if next_death <= now < begun + given.seconds - 5:
            upstream.die_and_return(draw.uniform(0.1, 2.0))
            next_death = time.monotonic() + draw.uniform(10, 40)
        if now > begun + WARM_UP * given.seconds and sum(ledger.ended.values()) >= WARM_JOBS:
            memory, files = service.measure()
            samples.memory.append(memory)
            samples.files.append(files)
        time.sleep(max(0.1, given.seconds / 1000))
    for process in calling:
        if process.wait() != 0:
            ledger.problem(f"a process of callers ended with {process.child.returncode}")
    until_empty(service, upstream, ledger)
    _, files_after = service.measure()
    if files_after > files_before + MORE_FILES:
        ledger.problem(f"descriptors: {files_before} before, {files_after} after")
    print(f"descriptors: {files_before} before, {files_after} after, {max(samples.files, default=0)} at most")
    if not samples.memory:
        ledger.problem(f"too short to judge memory: fewer than {WARM_JOBS} jobs came to an end")
        return
    first, last = samples.tenths()
    times, more = MORE_MEMORY
    if last > first * times + more:
        ledger.problem(f"memory grew: {first:.1f} MiB in the first tenth, {last:.1f} in the last")
    print(f"memory: {first:.1f} MiB in the first tenth, {last:.1f} in the last, {max(samples.memory):.1f} at most")


def isolate(service: Service, upstream: Upstream, ledger: Ledger, given: argparse.Namespace, kinds: list[str]) -> None:
    """So many interleaved requests without faults; some callers leave, so that connections and jobs end anywhere."""
    each = -(-given.isolation // given.processes)
    before = ledger.tallies["own canaries"]
    begun = time.monotonic()
    calling = callers(service, ledger, given, kinds, given.isolation_seconds, faults=0.0, hang_ups=0.03, requests=each)
    for process in calling:
        if process.wait(given.isolation_seconds + 200) != 0:
            ledger.problem(f"a process of callers ended with {process.child.returncode}")
    until_empty(service, upstream, ledger)
    seen = ledger.tallies["own canaries"] - before
    took = time.monotonic() - begun
    print(f"isolation: {given.isolation} requests in {took:.0f} s, {seen} answers with their own canary and no other")
    if seen < given.isolation / 2:
        ledger.problem(f"isolation: only {seen} answers had their canary")


def until_empty(service: Service, upstream: Upstream, ledger: Ledger) -> None:
    """At the end nobody waits, nothing runs, here or upstream."""
    last_moment = time.monotonic() + 20
    while True:
        line = service.line()
        left = [sum(line["waiting"].values()), line["slot"], line["jobs"], line["remote"]["running"]]
        running = upstream.state()["in_flight"]
        if not any(left) and not running:
            return
        if time.monotonic() > last_moment:
            ledger.problem(f"the end left something: {left}, upstream {running}")
            return
        time.sleep(0.1)


def count(service: Service, ledger: Ledger) -> None:
    """All counters must add up."""
    line, tallies = service.line(), ledger.tallies
    service.child.send_signal(signal.SIGTERM)
    if (code := service.wait()) != 0:
        ledger.problem(f"the service ended with {code}")
    ledger.close()
    ended, remote, rejected = line["ended"], line["remote"]["ended"], line["rejected"]
    sums = [
        ("accepted, ended", line["accepted"], sum(ended.values())),
        ("ended, by the log", dict(ended), dict(ledger.ended)),
        ("beside the line, by the log", dict(remote), dict(ledger.ended_remote)),
        ("rejected, by the log", sum(rejected.values()), ledger.events["rejected"]),
    ]
    for name, one, other in sums:
        print(f"{name}: {one} = {other}")
        if one != other:
            ledger.problem(f"{name}: {one} is not {other}")
    made = line["accepted"] + sum(remote.values()) + sum(rejected.values())
    left = tallies["hung up"] + tallies["stale"]
    pages = service.pages  # of which those that are not there were rejected, too
    print(f"sent {tallies['sent']}, of which {left} callers left; accepted and rejected {made}, with {pages} pages")
    if not tallies["sent"] - left <= made <= tallies["sent"] + pages + len(KINDS):
        ledger.problem(f"{tallies['sent']} requests, of which {left} callers left, made {made}")
    for status, seen in ledger.seen_rejected.items():
        if ledger.rejected[status] < seen:
            ledger.problem(f"{seen} callers saw a {status}, and {ledger.rejected[status]} were rejected so")


def main() -> int:
    """Run it, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of random load and faults [1800]")
    parser.add_argument("--isolation", type=int, default=100_000, help="interleaved requests after it [100000]")
    parser.add_argument("--isolation-seconds", type=float, default=3600.0, help="their limit [3600]")
    parser.add_argument("--callers", type=int, default=10_000, help="who wait at once, before it [10000]")
    parser.add_argument("--processes", type=int, default=3, help="that call [3]")
    parser.add_argument("--clients", type=int, default=30, help="in each of them [30]")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31), help="of what is asked")
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.seconds:g} s, {given.processes} processes of {given.clients} clients", flush=True)
    ledger = Ledger()
    upstream = Upstream(ledger)
    try:
        if given.callers:
            crowd(upstream, ledger, given.callers)
            ledger.forget()
        service = Service(upstream, ledger, *FLAGS)
        try:
            kinds = kinds_of(service)
            if given.seconds:
                soak(service, upstream, ledger, given, kinds)
            if given.isolation:
                isolate(service, upstream, ledger, given, kinds)
            count(service, ledger)
        finally:
            service.kill()
    finally:
        upstream.kill()
    print(f"{upstream.lives} lives of the upstream, {ledger.lines} lines of the service, {service.pages} pages")
    print(f"{ledger.paired} jobs whose callers saw what the log says; tallies: {dict(sorted(ledger.tallies.items()))}")
    print(f"log: {dict(ledger.events.most_common())}")
    for problem in ledger.problems:
        print(f"PROBLEM: {problem}")
    if ledger.problems:
        print(f"{len(ledger.problems) + ledger.dropped} problems; --seed {given.seed} asks the same again")
    return 1 if ledger.problems else 0


if __name__ == "__main__":
    sys.exit(main())
