"""``python -m tests.fuzz.parsers``: bodies that nobody means, given to what reads them, without a socket in between.

Thousands a second, so that the depth of each dialect is reached as well. Only an error for the caller may come out.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from llm_queue.errors import QueueError
from llm_queue.wire.callers.anthropic_request import parse_counted
from llm_queue.wire.callers.dialect import Operation, RequestLimits
from llm_queue.wire.callers.ollama_request import asked_to_change, asked_to_show
from llm_queue.wire.callers.routes import ROUTES
from llm_queue.wire.prompts import prompt_size
from tests.fuzz.seeds import Json
from tests.fuzz.targets import Target, asked
from tests.fuzz.values import ODD, Token, fields_of, mutate, mutate_bytes, write

LIMITS = RequestLimits(max_depth=64, max_messages=2000, num_ctx_ceiling=65536)
PIECES = (b'"', b"\\", b"\\ud800", b"{", b"[", b",", b"\xff", b"1e999")

Reader = Callable[[bytes], object]


def readers() -> list[tuple[Target, Reader]]:
    """Each target that takes a body, with what the service does with one before anything is queued."""
    found: list[tuple[Target, Reader]] = []
    operations = {route.path: route.operation for route in ROUTES}
    others: dict[str, Reader] = {
        "/v1/messages/count_tokens": lambda body: parse_counted(body, LIMITS),
        "/api/show": lambda body: asked_to_show(body, LIMITS.max_depth),
    }
    for target in asked(body=True):
        if target.path in operations:
            found.append((target, partial(_read, operations[target.path])))
        elif target.path in others:
            found.append((target, others[target.path]))
        elif target.closed:
            found.append((target, lambda body: asked_to_change(body, LIMITS.max_depth)))
    return found


def _read(operation: Operation[object], body: bytes) -> None:
    prompt_size(operation.parse(body, LIMITS).request)


def body_of(target: Target, seed: int, number: int) -> bytes:
    """The body of that number: the same whenever it is made."""
    draw = random.Random(f"{seed}:{number}")
    body = write(mutate(target.value(draw), draw, draw.choice((0, 1, 1, 2, 3, 8))), draw)
    return mutate_bytes(body, draw, draw.choice((1, 2, 4)), PIECES) if draw.random() < 0.3 else body


def odd_bodies(target: Target) -> Iterator[bytes]:
    """The first body of a target, with each field of its type in turn as each odd value."""
    seed: Json = target.seeds[0]
    for name in fields_of(target.body) if target.body is not None else seed:
        for odd in ODD:
            yield write(seed | {name: Token(odd)})


def fault_in(read: Reader, body: bytes) -> str:
    """What went wrong but should not have; empty if nothing did."""
    try:
        read(body)
    except QueueError as error:
        return "" if error.http_status < 500 else repr(error)
    except Exception as error:  # that is what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{error!r:.300} at {frame.filename}:{frame.lineno}"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, and return the exit code: 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.parsers", description=__doc__)
    parser.add_argument("--seed", type=int, help="what all bodies follow from; otherwise drawn, and printed")
    parser.add_argument("--seconds", type=float, default=60, help="stop after so many seconds, or 60")
    given, _ = parser.parse_known_args(argv)  # the session gives all its parts the same
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    last_moment = time.monotonic() + min(given.seconds, 60)
    there, number, faults = readers(), 0, dict[str, str]()
    while time.monotonic() < last_moment:
        target, read = there[number % len(there)]
        body = body_of(target, seed, number)
        if fault := fault_in(read, body):
            faults.setdefault(fault, f"{target.path}, number {number}: {body[:1000]!r}")
        number += 1
    print(f"seed {seed}: {number} bodies, {len(faults)} faults")
    for fault, where in faults.items():
        print(f"\nFAULT {fault}\n{where}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
