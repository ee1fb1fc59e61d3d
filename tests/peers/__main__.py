"""Run what peers test their own servers with, directly and through the line: ``python -m tests.peers [SUITE ...]``.

Prints what passes of each part, and fails if something passes directly, fails through the line, and is not among the
exemptions, or if an exemption is not needed. The suites come out of the package registries and stay in the cache.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.peers import exemptions, llama_cpp, ollama
from tests.peers.commands import CannotRun, bound_memory, say
from tests.peers.outcomes import Comparison, Exempt, Outcome, table
from tests.real.install_ollama import CannotInstall, installation

Run = Callable[[str, Path, Sequence[str]], dict[str, Outcome]]
"""Has all cases ask a server, or the ones that are named, writes what they say to a file, and returns what became of
them."""


@dataclass
class Sides:
    """One suite, or one file of it, on both ways."""

    run: Run
    folder: Path
    name: str
    exempt: Sequence[Exempt]
    direct: dict[str, Outcome] = field(default_factory=dict)
    through: dict[str, Outcome] = field(default_factory=dict)

    def ask_directly(self, server: str) -> None:
        say(f"{self.name}: directly")
        self.direct = self.run(server, self.folder / f"{self.name}-direct.txt", ())

    def ask_through(self, line: str, server: str) -> None:
        """Then once more what passed on one way alone: words of a model are partly luck, and a stream of llama.cpp's
        server now and then lacks its first event.
        """
        say(f"{self.name}: through the line")
        self.through = self.run(line, self.folder / f"{self.name}-through.txt", ())
        lost = Comparison(self.direct, self.through, self.exempt, ()).lost
        if lost:
            say(f"{self.name}: through the line, once more: {', '.join(lost)}")
            self.through |= self.run(line, self.folder / f"{self.name}-through-again.txt", lost)
        unlucky = Comparison(self.through, self.direct, (), ()).lost
        if unlucky:
            say(f"{self.name}: directly, once more: {', '.join(unlucky)}")
            self.direct |= self.run(server, self.folder / f"{self.name}-direct-again.txt", unlucky)


def run_ollama(folder: Path) -> Comparison:
    """Ollama's integration tests."""
    sides = Sides(ollama.OllamaTests(folder).run, folder, "ollama", exemptions.OLLAMA)
    with ollama.ollama_with_their_models(folder / "ollama.log") as real:
        sides.ask_directly(real.url)
        real.unload()
        with ollama.line_before(real) as line:
            sides.ask_through(line, real.url)
    return Comparison(sides.direct, sides.through, exemptions.OLLAMA, exemptions.OLLAMA_BARS)


def run_llama_cpp(folder: Path) -> Comparison:
    """llama.cpp's server tests, for each file with a new server on each way: what it remembers of prompts is tested."""
    tests = llama_cpp.LlamaCppTests(folder)
    log = folder / "llama-server.log"
    direct: dict[str, Outcome] = {}
    through: dict[str, Outcome] = {}
    for part in llama_cpp.PARTS:
        sides = Sides(partial(tests.run, part), folder, Path(part.file).stem, exemptions.LLAMA_CPP)
        with llama_cpp.llama_server_for(part, folder, log) as server:
            sides.ask_directly(server)
        with llama_cpp.llama_server_for(part, folder, log) as server, llama_cpp.line_before(server) as line:
            sides.ask_through(line, server)
        direct |= sides.direct
        through |= sides.through
    return Comparison(direct, through, exemptions.LLAMA_CPP, exemptions.LLAMA_CPP_BARS)


SUITES = {"ollama": run_ollama, "llama.cpp": run_llama_cpp}


def parts_of(comparison: Comparison) -> Iterable[str]:
    """A Go test, or a file, in the order in which they ran."""
    return dict.fromkeys(name.partition("::")[0] if "::" in name else name.split("/")[0] for name in comparison.direct)


def report(suite: str, comparison: Comparison) -> None:
    """Print it as a table, with what differs below."""
    rows: list[tuple[object, ...]] = [(suite, "cases", "direct", "through", "exempt", "lost")]
    for part in (*sorted(parts_of(comparison)), ""):
        cases = sum(name.startswith(part) for name in comparison.direct)
        differing = (comparison.excused, comparison.lost)
        exempt, lost = (sum(name.startswith(part) for name in names) for names in differing)
        rows.append((part or "all", cases, *comparison.count(part), exempt, lost))
    print(f"\n{table(rows)}\n")
    for name, reason in comparison.excused.items():
        print(f"exempt: {name}\n        {reason}")
    for fault in comparison.faults():
        print(f"FAULT: {fault}")


def main() -> None:
    """Run the suites that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description="Run peers' own test suites.")
    parser.add_argument("suite", nargs="*", choices=[*SUITES, []], help=f"of {', '.join(SUITES)} [all]")
    chosen = parser.parse_args().suite or list(SUITES)
    folder = installation().folder.parent / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    bound_memory()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # and end what was started
    comparisons = {}
    try:
        for suite in chosen:
            comparisons[suite] = SUITES[suite](folder)
    except (CannotRun, CannotInstall) as error:
        sys.exit(str(error))
    for suite, comparison in comparisons.items():
        report(suite, comparison)
    print(f"\nwhat the suites have said: {folder}")
    sys.exit(any(comparison.faults() for comparison in comparisons.values()))


if __name__ == "__main__":
    main()
