"""What keeps the service running: a unit of systemd, an agent of launchd. Pure: nothing is written here."""

from __future__ import annotations

import os
import plistlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.parsers.expat import ExpatError

from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from llm_queue.launch import command
from llm_queue.settings import Settings
from llm_queue.systemd import STOP_RESERVE

MARK: Final = "written by: llm-queue service install"
"""Stands in a comment of what we wrote. A file without it is not ours to remove."""

WATCHDOG: Final = 60
"""Seconds without a sign of life of the line after which systemd kills and starts it again. The line gives one every 30
s, and the longest that was ever seen to hold it up is 1.3 s."""


Commands = tuple[tuple[str, ...], ...]
"""Command lines, in the order in which they are run."""


@dataclass(frozen=True)
class Plan:
    """The file that keeps the service, and the commands that make its system read it. ``keys`` may hold secrets."""

    path: Path
    text: str
    keys: Path
    start: Commands
    again: Commands
    restart: Commands
    stop: Commands
    forget: Commands
    show: tuple[str, ...]
    note: str


def plan_for(platform: str, settings: Settings) -> Plan | None:
    """What to write and to run on ``platform`` for the user of this process; None where we know no way."""
    if platform == "linux":
        return _systemd(settings, Unix("llm-queue").user_config_path)
    if platform == "darwin":
        return _launchd(settings, MacOS("llm-queue").user_config_path, getattr(os, "getuid", lambda: 0)())
    return None


def flags_in(text: str) -> list[str]:
    """The flags of the service that a file of ours keeps; none if the text is no such file."""
    if text.lstrip().startswith("<?xml"):
        try:
            words = [str(word) for word in plistlib.loads(text.encode()).get("ProgramArguments", [])]
        except (plistlib.InvalidFileException, ExpatError):
            words = []
    else:
        lines = [line.removeprefix("ExecStart=:") for line in text.splitlines() if line.startswith("ExecStart=:")]
        words = [word.replace("%%", "%") for line in lines for word in _split(line)]
    return words[words.index("llm_queue") + 1 :] if "llm_queue" in words else []


def _split(line: str) -> list[str]:
    """The words of a line that :func:`_in_unit` has written."""
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _command(settings: Settings) -> list[str]:
    """Nothing is imported from the folder in which it happens to start."""
    python, *rest = command(settings)
    return [python, "-P", *rest]


def _stop_within(settings: Settings) -> int:
    return int(settings.drain_timeout) + STOP_RESERVE


def _systemd(settings: Settings, config: Path) -> Plan:
    unit = "llm-queue.service"
    control = ("systemctl", "--user")
    text = f"""\
# {MARK}
[Unit]
Description=llm-queue: one line in front of the local LLM

[Service]
Type=notify
NotifyAccess=main
ExecStart=:{" ".join(map(_in_unit, _command(settings)))}
EnvironmentFile=-%E/llm-queue/environment
Restart=on-failure
RestartSec=2
# a wrong setting stays wrong
RestartPreventExitStatus=2
# a model may have to be fetched before the start is over
TimeoutStartSec=infinity
# a line that is stuck is started again; what Python did then is in the log
WatchdogSec={WATCHDOG}
Environment=PYTHONFAULTHANDLER=1
# prompts live in memory alone
LimitCORE=0
# the line drains in {settings.drain_timeout:g} s
TimeoutStopSec={_stop_within(settings)}

[Install]
WantedBy=default.target
"""
    return Plan(
        path=config.parent / "systemd" / "user" / unit,
        text=text,
        keys=config / "environment",
        start=((*control, "daemon-reload"), (*control, "enable", "--now", unit)),
        again=((*control, "enable", "--now", unit),),
        restart=((*control, "daemon-reload"), (*control, "enable", unit), (*control, "restart", unit)),
        stop=((*control, "disable", "--now", unit),),
        forget=((*control, "daemon-reload"),),
        show=(*control, "--no-pager", "status", unit),
        note="It starts with your session. `loginctl enable-linger` starts it with the machine; its log: "
        f"journalctl --user -u {unit}",
    )


def _in_unit(argument: str) -> str:
    """One word of a command line, as systemd reads it; the colon before the first spares the dollar signs."""
    argument = argument.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    argument = argument.replace("%", "%%")
    return f'"{argument}"' if any(character in argument for character in " \t\\\"';") else argument


_WITH_KEYS: Final = 'set -a; [ -f "$0" ] && . "$0"; exec "$@"'
"""What systemd's EnvironmentFile does, for a shell whose first argument is that file."""


def _launchd(settings: Settings, config: Path, user: int) -> Plan:
    label, domain = "llm-queue", f"gui/{user}"
    library = Path.home() / "Library"
    path = library / "LaunchAgents" / f"{label}.plist"
    keys = config / "environment"
    log = library / "Logs" / "llm-queue.log"
    agent = {
        "Label": label,
        "ProgramArguments": ["/bin/sh", "-c", _WITH_KEYS, str(keys), *_command(settings)],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": _stop_within(settings),
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    head, _, body = plistlib.dumps(agent, sort_keys=False).decode().partition("?>\n")
    load = ("launchctl", "bootstrap", domain, str(path))
    unload = ("launchctl", "bootout", f"{domain}/{label}")
    return Plan(
        path=path,
        text=f"{head}?>\n<!-- {MARK} -->\n{body}",
        keys=keys,
        start=(load,),
        again=(("launchctl", "kickstart", f"{domain}/{label}"),),
        restart=(unload, load),
        stop=(unload,),
        forget=(),
        show=("launchctl", "print", f"{domain}/{label}"),
        note=f"It starts with your session; its log: {log}",
    )
