"""``llm-queue service``: have the line started with every session, by systemd on Linux or by launchd on macOS.

One file says all: which Python, which settings. It is shown before it is written. Keys never stand in it.
"""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import httpx

from llm_queue import log
from llm_queue.launch import command, secrets
from llm_queue.service.units import MARK, Plan, plan_for
from llm_queue.settings import Settings

ACTIONS: Final = ("install", "uninstall", "status")

_ANSWER_WITHIN: Final = 5.0

Run = Callable[[Sequence[str]], int]
"""Runs a command in the terminal and returns its exit code."""


def run(arguments: Sequence[str]) -> int:
    """Run a command, shown first, with this terminal. 127 if there is no such command."""
    log.say(f"$ {shlex.join(arguments)}")  # people see what is done for them
    try:
        return subprocess.run(arguments, check=False).returncode  # noqa: S603 - fixed commands of this module
    except FileNotFoundError:
        return 127


def act(
    action: str,
    settings: Settings,
    *,
    yes: bool = False,
    platform: str = sys.platform,
    run: Run = run,
    say: Callable[[str], None] = log.say,
    ask: Callable[[str], str] | None = None,
) -> int:
    """Install, uninstall or show the service; returns the exit code, 0 when it is as it was asked to be.

    ``yes`` answers the questions. ``ask`` puts one to a person; without one, and without ``yes``, nothing is written.
    """
    if settings.gguf is not None and not settings.gguf.startswith("~"):
        settings = dataclasses.replace(settings, gguf=str(Path(settings.gguf).absolute()))
    plan = plan_for(platform, settings)
    if plan is None:
        say(f"llm-queue: there is no systemd and no launchd on {platform}. Have it start this with your session:")
        say(f"  {subprocess.list2cmdline(command(settings))}")
        return 1
    if action == "install":
        if ask is None and sys.stdin.isatty():
            ask = input
        return _install(plan, settings, yes=yes, run=run, say=say, ask=ask)
    if action == "uninstall":
        return _uninstall(plan, run=run, say=say)
    return _status(plan, settings, run=run, say=say)


# --- the three actions --------------------------------------------------------------------------------------------


def _install(
    plan: Plan, settings: Settings, *, yes: bool, run: Run, say: Callable[[str], None], ask: Callable[[str], str] | None
) -> int:
    before = plan.path.read_text(encoding="utf-8") if plan.path.exists() else None
    commands = plan.start
    if before == plan.text:
        say(f"{plan.path} is there already, and as it should be")
        commands = plan.again
    elif before is not None:
        there, wanted = before.splitlines(), plan.text.splitlines()
        say("\n".join(difflib.unified_diff(there, wanted, f"{plan.path} as it is", "as it would be", lineterm="")))
        if not yes:
            say(f"llm-queue: {plan.path} is there and differs, and was left alone. To overwrite it, say --yes.")
            return 1
        commands = plan.restart
    else:
        say(f"{plan.path}:\n\n{plan.text}")
        if not yes and not _agreed(ask):
            say("llm-queue: nothing was written. On a terminal it asks; elsewhere, say --yes.")
            return 1
    if names := list(secrets(settings)):
        say(f"Not written, since they are secrets: {', '.join(names)}. Put NAME=VALUE lines into {plan.keys},")
        say("readable by you alone, and install again or restart the service.")
    if before != plan.text:
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        plan.path.write_text(plan.text, encoding="utf-8")
    code = _run_all(commands, run, say)
    if code == 0:
        say(plan.note)
    return code


def _agreed(ask: Callable[[str], str] | None) -> bool:
    if ask is None:
        return False
    try:
        return ask("Write it, and start the service? [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        return False


def _uninstall(plan: Plan, *, run: Run, say: Callable[[str], None]) -> int:
    if not plan.path.exists():
        say(f"there is no {plan.path}: nothing to remove")
        return 0
    if not _is_ours(plan.path):
        say(f"llm-queue: {plan.path} was not written by `llm-queue service install`, and was left alone")
        return 1
    code = _run_all(plan.stop, run, say)
    plan.path.unlink()
    say(f"removed {plan.path}")
    if plan.keys.exists():
        say(f"left {plan.keys}, which is yours")
    return max(code, _run_all(plan.forget, run, say))


def _status(plan: Plan, settings: Settings, *, run: Run, say: Callable[[str], None]) -> int:
    if not plan.path.exists():
        say(f"not installed: there is no {plan.path}")
    else:
        say(f"{plan.path}{'' if _is_ours(plan.path) else ', not written by us'}")
        run(plan.show)
    return max(_readiness(port, say) for port in settings.port)


def _readiness(port: int, say: Callable[[str], None]) -> int:
    """Say what ``/ready`` says on that port; 0 if it can serve, else 1."""
    url = f"http://127.0.0.1:{port}/ready"
    try:
        response = httpx.get(url, timeout=_ANSWER_WITHIN, trust_env=False)
    except httpx.HTTPError as error:
        say(f"{url}: {error}")
        return 1
    say(f"{url}: {response.status_code} {response.text}")
    return 0 if response.is_success else 1


def _run_all(commands: Sequence[Sequence[str]], run: Run, say: Callable[[str], None]) -> int:
    """Run them all, whatever becomes of each; 1 if one failed."""
    failed = [(arguments, code) for arguments in commands if (code := run(arguments))]
    for arguments, code in failed:
        say(f"llm-queue: `{shlex.join(arguments)}` failed with {code}")
    return 1 if failed else 0


def _is_ours(path: Path) -> bool:
    return MARK in path.read_text(encoding="utf-8", errors="replace")
