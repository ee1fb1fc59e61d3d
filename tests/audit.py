"""Asks whether a package of the lock file has a known weakness: ``nox -s audit``.

pip-audit asks the advisory database of the package index, so this needs the network. Its exit code is 1 for a weakness
as for a question without an answer; here they are told apart, by whether there is a report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / ".ci" / "lock.txt"
LIMIT: Final = 600.0
"""Seconds for all questions."""

Run = Callable[[Sequence[str]], str]
"""Runs a command, and returns what it has said to standard error."""


class Result(IntEnum):
    """The exit code."""

    CLEAN = 0
    WEAK = 1
    NO_ANSWER = 2


def run(command: Sequence[str]) -> str:
    """Run it, for :data:`LIMIT` seconds at most."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False).stderr
    except subprocess.TimeoutExpired:
        return f"pip-audit did not end within {LIMIT:g} s"


def weaknesses(report: dict[str, Any]) -> list[str]:
    """A line for each: the package, its version, the weakness, and the version that mends it."""
    return [
        f"{package['name']} {package['version']}: {found['id']}, "
        + (f"mended in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "not mended yet")
        for package in report["dependencies"]
        for found in package.get("vulns", ())
    ]


def audit(lock: Path, more: Sequence[str] = (), *, run: Run = run) -> tuple[Result, str]:
    """What is known of the packages in ``lock``, and a text for people. ``more`` are words for pip-audit."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.json")
        said = run(
            [
                *(sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--no-deps"),
                *("--progress-spinner", "off", "--format", "json", "--output", str(file), *more),
            ]
        )
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            reason = said.strip().splitlines()[-1:] or ["pip-audit said nothing"]
            return Result.NO_ANSWER, f"It is not known whether the lock file has weak packages: {reason[0]}"
    skipped = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    if skipped:
        return Result.NO_ANSWER, f"Nothing could be learned of {', '.join(skipped)}."
    found = weaknesses(report)
    if found:
        return Result.WEAK, "\n".join([*found, "`nox -s lock -- PACKAGE` takes a newer one."])
    return Result.CLEAN, f"None of {len(report['dependencies'])} packages has a known weakness."


def main(words: Sequence[str]) -> Result:
    """Ask, say what was found, and return the exit code."""
    parser = argparse.ArgumentParser(prog="nox -s audit --", description=__doc__)
    parser.add_argument("--may-be-unknown", action="store_true", help="exit with 0 where there is no answer")
    ours, more = parser.parse_known_args(words)
    result, text = audit(LOCK, more)
    print(text, file=sys.stderr if result else sys.stdout)
    if result is Result.NO_ANSWER and ours.may_be_unknown:
        print("Going on all the same, as it was asked to (--may-be-unknown).", file=sys.stderr)
        return Result.CLEAN
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
