"""What became of each case of a suite, run directly and run through the line, and what that says about the line."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from xml.etree import ElementTree

GO_RESULT = re.compile(r"--- (PASS|FAIL|SKIP): (\S+) \(\d+\.\d+s\)")


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


Outcomes = Mapping[str, Outcome]
"""By the name of the case."""


def outcomes_of_go(output: str) -> dict[str, Outcome]:
    """Read what a test binary of Go prints with ``-test.v``. A case is a line of it, so one with parts counts too."""
    words = {"PASS": Outcome.PASSED, "FAIL": Outcome.FAILED, "SKIP": Outcome.SKIPPED}
    return {name: words[word] for word, name in GO_RESULT.findall(output)}


def outcomes_of_junit(report: str) -> dict[str, Outcome]:
    """Read a JUnit report of pytest's: ``file::case[parameters]``."""
    found = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        inside = {child.tag for child in case}
        if inside & {"failure", "error"}:
            outcome = Outcome.FAILED
        elif "skipped" in inside:
            outcome = Outcome.SKIPPED
        else:
            outcome = Outcome.PASSED
        file = case.get("classname", "").replace(".", "/")
        found[f"{file}.py::{case.get('name')}"] = outcome
    return found


@dataclass(frozen=True)
class Exempt:
    """Cases that pass directly and need not pass through the line."""

    pattern: str
    """Of shell's kind, for the names of the cases; square brackets stand for themselves."""
    reason: str

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern.replace("[", "[[]"))


@dataclass(frozen=True)
class Bar:
    """How much of a part must pass at least, so that a suite that has hardly run is not taken for a success."""

    part: str
    """How the names of its cases begin."""
    direct: int
    through: int


@dataclass
class Comparison:
    """Both runs of one suite, side by side."""

    direct: Outcomes
    through: Outcomes
    exempt: Sequence[Exempt]
    bars: Sequence[Bar]
    lost: list[str] = field(init=False)
    """Pass directly, fail through the line, and nothing excuses that."""
    excused: dict[str, str] = field(init=False)
    """Likewise, but exempt: with the reason."""

    def __post_init__(self) -> None:
        self.lost, self.excused = [], {}
        failed = [name for name, outcome in self.direct.items() if outcome is Outcome.PASSED and not self._passed(name)]
        for name in failed:
            reason = next((exempt.reason for exempt in self.exempt if exempt.matches(name)), None)
            if reason is not None:
                self.excused[name] = reason
            elif not any(other.startswith(f"{name}/") for other in failed):  # else that part of it says it all
                self.lost.append(name)

    def _passed(self, name: str) -> bool:
        return self.through.get(name) is Outcome.PASSED

    def count(self, part: str = "") -> tuple[int, int]:
        """How many cases of a part pass directly, and how many of these through the line as well."""
        direct = [name for name, outcome in self.direct.items() if outcome is Outcome.PASSED and name.startswith(part)]
        return len(direct), sum(map(self._passed, direct))

    def faults(self) -> list[str]:
        """All that is not as it should be, one line each."""
        found = [f"passes directly, and fails through the line: {name}" for name in self.lost]
        for exempt in self.exempt:
            meant = [name for name in self.direct if exempt.matches(name)]
            if not meant:
                found.append(f"is in the list of exemptions, and there is no such case: {exempt.pattern}")
            found += [f"is in the list of exemptions, and passes: {name}" for name in meant if self._passed(name)]
        for bar in self.bars:
            direct, through = self.count(bar.part)
            if direct < bar.direct:
                found.append(f"{bar.part}: {direct} cases pass directly, and {bar.direct} should")
            if through < bar.through:
                found.append(f"{bar.part}: {through} cases pass through the line, and {bar.through} should")
        return found


def table(rows: Iterable[Sequence[object]]) -> str:
    """As text, the first column to the left and the others to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]))
    return "\n".join(lines)
