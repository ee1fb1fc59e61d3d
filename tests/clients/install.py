"""Install the clients that ``tests/clients`` runs: ``python -m tests.clients.install``.

Python clients get environments of their own, because frameworks contradict each other's versions; Node clients get one
folder. All of it lies in one folder of the cache, at the versions that are pinned beside this file, and is made anew
when those change. Node's part is left out, with a word about it, where there is no Node 20 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENTS = tuple(path.stem.removeprefix("requirements-") for path in sorted(HERE.glob("requirements-*.txt")))
OLDEST_NODE = 20
CHROMIUM = ("chromium", "chromium-browser")  # Debian's; Google Chrome no longer loads extensions by a flag
PATIENCE = 1200.0
"""Seconds that one installation may take."""


@dataclass(frozen=True)
class Installed:
    """The folder with the clients."""

    folder: Path

    @classmethod
    def here(cls) -> Installed:
        """The one of this machine: ``LLM_QUEUE_CLIENTS``, else in the cache."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(Path(os.environ.get("LLM_QUEUE_CLIENTS") or cache / "llm-queue" / "clients"))

    @property
    def node_folder(self) -> Path:
        """Where the Node clients are, and the scripts beside them."""
        return self.folder / "node"

    @property
    def node_commands(self) -> Path:
        """The commands that came with them."""
        return self.node_folder / "node_modules" / ".bin"

    def environment(self, name: str) -> Path:
        """The folder of a Python environment."""
        return self.folder / name

    def python(self, name: str) -> Path:
        """The Python that has these clients; the tests' own for an empty name. Skips the test if it is not there."""
        if not name:
            return Path(sys.executable)
        if not is_made(self.environment(name), recipe_of(name)):
            pytest.skip(f"the environment {name} is not there: nox -s clients")
        return self.environment(name) / "bin" / "python"

    def node(self) -> list[str]:
        """The command that starts Node. Skips the test if it, or the clients, are not there."""
        reason = why_no_node()
        if reason is None and not is_made(self.node_folder, recipe_of("node")):
            reason = "the Node clients are not installed: nox -s clients"
        if reason is not None:
            pytest.skip(reason)
        return ["node"]

    def copy_scripts(self) -> None:
        """Lay the scripts beside what they import: Node looks for it from there."""
        if self.node_folder.is_dir():
            for script in (HERE / "node").glob("*.mjs"):
                shutil.copy(script, self.node_folder)


def why_no_node() -> str | None:
    """What is missing for the Node clients, if anything."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node is not installed"
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(told.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        return f"Node {told} is too old: {OLDEST_NODE} or newer is needed"
    return None


def recipe_of(name: str) -> str:
    """What is pinned: an installation that was made from something else is made anew."""
    if name == "node":
        return (HERE / "node" / "package-lock.json").read_text()
    return (HERE / f"requirements-{name}.txt").read_text()


def is_made(folder: Path, recipe: str) -> bool:
    """True if an installation was made to its end, from this recipe."""
    with contextlib.suppress(OSError):
        return (folder / "ready").read_text() == recipe
    return False


def make_environment(folder: Path, name: str) -> None:
    """One Python environment."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--requirement", str(HERE / f"requirements-{name}.txt"))
    (folder / "ready").write_text(recipe_of(name))


def make_node(folder: Path) -> None:
    """The Node clients. No install scripts run but Claude Code's, which lays its program where npm links to it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "node" / file, folder)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    run("node", "install.cjs", folder=folder / "node_modules" / "@anthropic-ai" / "claude-code")
    (folder / "ready").write_text(recipe_of("node"))


def run(*command: str, folder: Path | None = None) -> None:
    """Run a command; its output is seen. Raises CalledProcessError and TimeoutExpired."""
    subprocess.run(command, cwd=folder, check=True, timeout=PATIENCE)


def main(argv: Sequence[str] | None = None) -> None:
    """Install what is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.install", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join([*ENVIRONMENTS, 'node'])}; all by default")
    names = parser.parse_args(argv).names or [*ENVIRONMENTS, "node"]
    installed = Installed.here()
    for name in names:
        if is_made(installed.folder / name, recipe_of(name)):
            continue
        if name != "node":
            print(f"installing Python clients: {name}", flush=True)
            make_environment(installed.environment(name), name)
        elif (reason := why_no_node()) is not None:
            print(f"no Node clients: {reason}", flush=True)
        else:
            print("installing Node clients", flush=True)
            make_node(installed.node_folder)
    if not any(shutil.which(name) for name in CHROMIUM):
        print("no browser extension: Chromium is not installed", flush=True)


if __name__ == "__main__":
    main()
