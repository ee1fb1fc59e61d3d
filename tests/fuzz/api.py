"""``python -m tests.fuzz.api``: schemathesis on the OpenAPI document that the service publishes.

It makes requests of the document, right ones and wrong ones, and holds each answer against it: no error of ours, and
the status, the media type and the shape that the document has.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import ENDLESS, STOPS
from tests.fuzz.watch import FuzzedOllama, FuzzedService

CONFIG = Path(__file__).with_name("schemathesis.toml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, and return the exit code: 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.api", description=__doc__)
    parser.add_argument("--seed", type=int, help="what all requests follow from; otherwise drawn, and printed")
    parser.add_argument("--seconds", type=int, default=60, help="stop after so many seconds")
    parser.add_argument("--examples", type=int, default=100, help="requests for each operation at most, in a round")
    given, _ = parser.parse_known_args(argv)  # the session gives both parts the same
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    ollama = FuzzedOllama()
    service = FuzzedService(ollama.url)
    try:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", "--no-color"),
            *(f"{service.url}/openapi.json", "--phases", "coverage,fuzzing", "--warnings", "off", "--workers", "2"),
            *("--seed", str(seed), "--max-time", str(given.seconds), "--max-examples", str(given.examples)),
            *("--request-timeout", "60", "--continue-on-failure"),
            *(word for path in (ENDLESS, *sorted(STOPS)) for word in ("--exclude-path", path)),
        ]
        print(f"seed {seed}", flush=True)
        code = subprocess.run(command, check=False).returncode
        service.signal(signal.SIGTERM)
        ended = service.wait()
        service.listen()
    finally:
        service.end()
        ollama.end()
    for fault in service.faults[:5]:
        print(f"\nFAULT {fault}")
    if ended:
        print(f"\nFAULT exit code {ended} after SIGTERM")
    return 1 if code or ended or service.faults else 0


if __name__ == "__main__":
    sys.exit(main())
