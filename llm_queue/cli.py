"""The command line: parse it, then hand over."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import trio

from llm_queue import log
from llm_queue.core.line import Rules
from llm_queue.serve import Exit, serve
from llm_queue.settings import Settings, WrongSetting, knobs, load
from llm_queue.stories import LOAD_COSTS, STORIES, table


def parser() -> argparse.ArgumentParser:
    """The parser, with one flag for every setting."""
    parser = argparse.ArgumentParser(
        prog="llm-queue",
        description="One line in front of your local Ollama: every program waits its turn, and the model loads once.",
        epilog="A flag wins over its environment variable, and that over the default.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=list(_COMMANDS),
        default="serve",
        help="serve (the default): run the service; simulate: play stories through the line in virtual time",
    )
    parser.add_argument("--version", action="version", version=f"llm-queue {version('llm-queue')}")
    settings = parser.add_argument_group("settings")
    for knob in knobs():
        default = _shown(knob.default)
        unit = f" {knob.unit}" if knob.unit and default != "none" else ""
        text = f"{knob.help} [{knob.env}; default: {default}{unit}]"
        settings.add_argument(knob.flag, dest=knob.name, metavar="VALUE", help=text.replace("%", "%%"))
    play = parser.add_argument_group("for simulate")
    play.add_argument("--story", action="append", choices=list(STORIES), help="what to play; may be repeated [all]")
    play.add_argument(
        "--load-seconds", action="append", type=_load_seconds, metavar="S", help="what a load takes [0.5 and 6]"
    )
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command and return the exit code of the process: see :class:`~llm_queue.serve.Exit`."""
    flags = vars(parser().parse_args(argv))
    try:
        settings = load(flags, environ)
    except WrongSetting as error:
        print(f"llm-queue: {error}", file=sys.stderr)
        return Exit.BAD_SETTING
    return _COMMANDS[flags["command"]](settings, flags)


def _serve(settings: Settings, _: Mapping[str, Any]) -> int:
    log.configure(settings.log_format)
    try:
        return trio.run(serve, settings)
    except OSError as error:
        if error.errno not in _CANNOT_LISTEN:
            raise
        where = f"{settings.host or '127.0.0.1'}:{settings.port}"
        print(f"llm-queue: cannot listen on {where}: {error.strerror or error}. {_ADVICE}", file=sys.stderr)
        return Exit.BAD_SETTING


def _simulate(settings: Settings, flags: Mapping[str, Any]) -> int:
    rules = Rules(settings.lane_burst, settings.turn_factor, settings.switch_wait, settings.hold)
    print(table(flags["story"] or list(STORIES), tuple(flags["load_seconds"] or LOAD_COSTS), rules))
    return 0


_COMMANDS: Final[dict[str, Callable[[Settings, Mapping[str, Any]], int]]] = {"serve": _serve, "simulate": _simulate}

_CANNOT_LISTEN: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
_ADVICE: Final = "Is it running already? Stop that one, or choose another --port."


def _load_seconds(raw: str) -> float:
    try:
        seconds = float(raw)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("takes seconds, from 0.001 to 3600")
    return seconds


def _shown(default: object) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)
