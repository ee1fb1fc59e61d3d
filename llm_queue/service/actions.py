"""``llm-queue service``: have the line started with every session, by systemd on Linux or by launchd on macOS.

One file says all: which Python, which settings. It is shown before it is written. Keys never stand in it.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from llm_queue import log
from llm_queue.launch import command
from llm_queue.service.install import Run, Talk, content, install, is_ours, run, shown
from llm_queue.service.machine import Machine
from llm_queue.service.takeover import TakeOver, still_moved
from llm_queue.service.units import Plan, plan_for
from llm_queue.settings import Settings
from llm_queue.settings.keys import KeysFile

_ANSWER_WITHIN: Final = 5.0


def act(
    action: str,
    settings: Settings,
    *,
    yes: bool = False,
    take_over: bool = False,
    undo: bool = False,
    platform: str = sys.platform,
    machine: Machine | None = None,
    run: Run = run,
    say: Callable[[str], None] = log.say,
    ask: Callable[[str], str] | None = None,
) -> int:
    """Install, uninstall or show the service; returns the exit code, 0 when it is as it was asked to be.

    ``yes`` answers the questions. ``ask`` puts one to a person; without one, and without ``yes``, nothing is written.
    With ``take_over`` an install puts the line in Ollama's place, or, with ``undo``, Ollama back into its own;
    ``machine`` is what is asked about it.
    """
    if settings.gguf is not None and not settings.gguf.startswith("~"):
        settings = dataclasses.replace(settings, gguf=str(Path(settings.gguf).absolute()))
    if (file := settings.api_keys_file) is not None:
        settings = dataclasses.replace(
            settings, api_keys_file=KeysFile(str(Path(file).expanduser().absolute()), file.keys)
        )
    if ask is None and action == "install" and sys.stdin is not None and sys.stdin.isatty():
        ask = input
    talk = Talk(run, say, ask)
    if take_over:
        return TakeOver(platform, settings, talk, machine or Machine(), yes=yes).act(undo=undo)
    plan = plan_for(platform, settings)
    if plan is None:
        say(f"llm-queue: there is no systemd and no launchd on {platform}. Have it start this with your session:")
        say(f"  {subprocess.list2cmdline(command(settings))}")
        return 1
    if action == "install":
        return _install(plan, settings, talk, yes=yes)
    if action == "uninstall":
        return _uninstall(plan, talk, platform)
    return _status(plan, settings, talk)


# --- the three actions --------------------------------------------------------------------------------------------


def _install(plan: Plan, settings: Settings, talk: Talk, *, yes: bool) -> int:
    before = content(plan.path)
    talk.say(shown(plan.path, plan.text))
    if before not in (None, plan.text) and not yes:
        talk.say(f"llm-queue: {plan.path} is there and differs, and was left alone. To overwrite it, say --yes.")
        return 1
    if before is None and not yes and not talk.agreed("Write it, and start the service? [y/N] "):
        talk.say("llm-queue: nothing was written. On a terminal it asks; elsewhere, say --yes.")
        return 1
    return install(plan, settings, talk)


def _uninstall(plan: Plan, talk: Talk, platform: str) -> int:
    if not plan.path.exists():
        talk.say(f"there is no {plan.path}: nothing to remove")
        return 0
    if not is_ours(plan.path):
        talk.say(f"llm-queue: {plan.path} was not written by `llm-queue service install`, and was left alone")
        return 1
    code = talk.run_all(plan.stop)
    plan.path.unlink()
    talk.say(f"removed {plan.path}")
    if plan.keys.exists():
        talk.say(f"left {plan.keys}, which is yours")
    if (moved := still_moved(platform)) is not None:
        talk.say(f"Ollama is still at another port, by {moved}: `llm-queue service install --take-over --undo`")
    return max(code, talk.run_all(plan.forget))


def _status(plan: Plan, settings: Settings, talk: Talk) -> int:
    if not plan.path.exists():
        talk.say(f"not installed: there is no {plan.path}")
    else:
        talk.say(f"{plan.path}{'' if is_ours(plan.path) else ', not written by us'}")
        talk.run(plan.show)
    return max(_readiness(port, talk.say) for port in settings.port)


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
