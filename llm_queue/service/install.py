"""Writing what a plan says, and having its system read it. Everything is shown before."""

from __future__ import annotations

import difflib
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_queue import log
from llm_queue.launch import secrets
from llm_queue.service.units import MARK, Plan
from llm_queue.settings import Settings

Run = Callable[[Sequence[str]], int]
"""Runs a command in the terminal and returns its exit code."""

YES: Final = ("y", "yes")


def run(arguments: Sequence[str]) -> int:
    """Run a command, shown first, with this terminal. 127 if there is no such command."""
    log.say(f"$ {shlex.join(arguments)}")  # people see what is done for them
    try:
        return subprocess.run(arguments, check=False).returncode  # noqa: S603 - fixed commands of this package
    except FileNotFoundError:
        return 127


@dataclass(frozen=True)
class Talk:
    """How things are said, asked and run. ``ask`` puts a question to a person; None: there is nobody to ask."""

    run: Run = run
    say: Callable[[str], None] = log.say
    ask: Callable[[str], str] | None = None

    def agreed(self, question: str) -> bool:
        """True if a person says yes."""
        if self.ask is None:
            return False
        try:
            return self.ask(question).strip().lower() in YES
        except (EOFError, KeyboardInterrupt):
            return False

    def run_all(self, commands: Sequence[Sequence[str]]) -> int:
        """Run them all, whatever becomes of each; 1 if one failed."""
        failed = [(arguments, code) for arguments in commands if (code := self.run(arguments))]
        for arguments, code in failed:
            self.say(f"llm-queue: `{shlex.join(arguments)}` failed with {code}")
        return 1 if failed else 0


def shown(path: Path, text: str) -> str:
    """What writing ``text`` to ``path`` would do: the file, or how it would change."""
    before = content(path)
    if before is None:
        return f"{path}:\n\n{text}"
    if before == text:
        return f"{path} is there already, and as it should be"
    there, wanted = before.splitlines(), text.splitlines()
    return "\n".join(difflib.unified_diff(there, wanted, f"{path} as it is", "as it would be", lineterm=""))


def write(path: Path, text: str) -> None:
    """Write it, with the folders around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def install(plan: Plan, settings: Settings, talk: Talk) -> int:
    """Write the plan's file where it differs, and start the service or start it again. Returns an exit code."""
    before = content(plan.path)
    commands = plan.start if before is None else plan.again if before == plan.text else plan.restart
    kept = content(plan.keys) or ""
    if names := [name for name in secrets(settings) if f"{name}=" not in kept]:
        talk.say(f"Not written, since they are secrets: {', '.join(names)}. Put NAME=VALUE lines into {plan.keys},")
        talk.say("readable by you alone, and install again or restart the service.")
    if before != plan.text:
        write(plan.path, plan.text)
    code = talk.run_all(commands)
    if code == 0:
        talk.say(plan.note)
    return code


def content(path: Path) -> str | None:
    """The text of a file; None if there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def is_ours(path: Path) -> bool:
    """True if the file is there and was written by us."""
    return MARK in (content(path) or "")
