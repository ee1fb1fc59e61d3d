"""The command line: parse it, then hand over."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final

import trio

from llm_queue import log
from llm_queue.serve import Exit, serve
from llm_queue.settings import WrongSetting, knobs, load


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
        "command", nargs="?", choices=["serve"], default="serve", help="serve: run the service (default)"
    )
    parser.add_argument("--version", action="version", version=f"llm-queue {version('llm-queue')}")
    for knob in knobs():
        default = _shown(knob.default)
        unit = f" {knob.unit}" if knob.unit and default != "none" else ""
        text = f"{knob.help} [{knob.env}; default: {default}{unit}]"
        parser.add_argument(knob.flag, dest=knob.name, metavar="VALUE", help=text.replace("%", "%%"))
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command and return the exit code of the process: see :class:`~llm_queue.serve.Exit`."""
    flags = vars(parser().parse_args(argv))
    try:
        settings = load(flags, environ)
    except WrongSetting as error:
        print(f"llm-queue: {error}", file=sys.stderr)
        return Exit.BAD_SETTING
    log.configure(settings.log_format)
    try:
        return trio.run(serve, settings)
    except OSError as error:
        if error.errno not in _CANNOT_LISTEN:
            raise
        where = f"{settings.host or '127.0.0.1'}:{settings.port}"
        print(f"llm-queue: cannot listen on {where}: {error.strerror or error}. {_ADVICE}", file=sys.stderr)
        return Exit.BAD_SETTING


_CANNOT_LISTEN: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
_ADVICE: Final = "Is it running already? Stop that one, or choose another --port."


def _shown(default: object) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)
