"""Run what peers test their own servers with, directly and through the line: ``python -m tests.peers [SUITE ...]``.

Prints what passes of each part, and fails if something passes directly, fails through the line, and is not among the
exemptions, or if an exemption is not needed. The suites come out of the package registries and stay in the cache.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.peers import exemptions, llama_cpp, ollama
from tests.peers.commands import CannotRun, bound_memory, say
from tests.peers.outcomes import Comparison, Outcome, Outcomes, table
from tests.real.install_ollama import CannotInstall, installation

Run = Callable[[Path, Sequence[str]], dict[str, Outcome]]
"""Runs all cases, or the ones that are named, writes what they say to a file, and returns what became of them."""


def again(run: Run, output: Path, direct: Outcomes, through: dict[str, Outcome]) -> None:
    """Run once more what was lost on the way: a model whose answers are drawn by chance may have had bad luck."""
    lost = Comparison(direct, through, (), ()).lost
    if lost:
        say(f"once more: {', '.join(lost)}")
        through |= run(output.with_suffix(f".again{output.suffix}"), lost)


def run_ollama(folder: Path) -> Comparison:
    """Ollama's integration tests."""
    tests = ollama.OllamaTests(folder)
    with ollama.ollama_with_their_models(folder / "ollama.log") as real:
        say("Ollama's integration tests, directly")
        direct = tests.run(real.url, folder / "ollama-direct.txt")
        real.unload()
        with ollama.line_before(real) as url:
            say("Ollama's integration tests, through the line")
            output = folder / "ollama-through.txt"
            through = tests.run(url, output)
            again(lambda path, only: tests.run(url, path, only), output, direct, through)
    return Comparison(direct, through, exemptions.OLLAMA, exemptions.OLLAMA_BARS)


def run_llama_cpp(folder: Path) -> Comparison:
    """llama.cpp's server tests."""
    tests = llama_cpp.LlamaCppTests(folder)
    direct: dict[str, Outcome] = {}
    through: dict[str, Outcome] = {}
    for part in llama_cpp.PARTS:
        name = Path(part.file).stem
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(llama_cpp.llama_server_for(part, folder, folder / "llama-server.log"))
            say(f"llama.cpp's {name}, directly")
            there = tests.run(part, server, folder / f"{name}-direct.txt")
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(llama_cpp.llama_server_for(part, folder, folder / "llama-server.log"))
            url = stack.enter_context(llama_cpp.line_before(server))
            say(f"llama.cpp's {name}, through the line")
            output = folder / f"{name}-through.txt"
            here = tests.run(part, url, output)
            again(lambda path, only: tests.run(part, url, path, only), output, there, here)  # noqa: B023  (called here)
        direct |= there
        through |= here
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
