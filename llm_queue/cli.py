"""The command line: parse it, then hand over.

Each command imports what it needs when it is wanted: nobody who asks how the line is should wait for the modules of the
service.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from llm_queue import log
from llm_queue.exits import Exit
from llm_queue.imports import uncollected
from llm_queue.settings import Settings, WrongSetting, knobs, load
from llm_queue.settings.values import OLLAMA_PORT, switch


class Parser(argparse.ArgumentParser):
    """argparse's, which says what is wrong in one line, and not after a page of usage."""

    def error(self, message: str) -> NoReturn:
        log.complain(f"{self.prog}: {message} ({self.prog} --help shows all)")
        raise SystemExit(Exit.BAD_SETTING)

    def check_words(self, arguments: Sequence[str]) -> None:
        """Complain of a flag or a command that there is not, by its own name.

        argparse takes the value behind an unknown flag for a command, and blames that.
        """
        known = list(self._option_string_actions)
        flags = list(arguments)[: arguments.index("--")] if "--" in arguments else arguments
        for word in flags:
            if word.startswith("--") and (flag := word.partition("=")[0]) not in known:
                self.error(f"there is no {flag}{_perhaps(flag, known)}")
        if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
            self.error(f"there is no command {arguments[0]!r}{_perhaps(arguments[0], list(_COMMANDS))}")


class _Joined(argparse.Action):
    """A flag that may be repeated: its values become one list with commas, as its variable has it."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: Any, _flag: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is None else f"{before},{values}")


class _Version(argparse.Action):
    """Shows our version, which takes time to look up, only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        log.say(f"llm-queue {version('llm-queue')}")
        parser.exit()


def _perhaps(word: str, known: list[str]) -> str:
    """What was probably meant."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def parser() -> Parser:
    """The parser, with one flag for every setting."""
    parser = Parser(
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
        help="serve (the default): run the service; simulate: play stories through the line in virtual time; demo: "
        "run three programs through it and watch; service: have it started with every session. Of the service that "
        "runs: top: watch the line; status: show it once; why JOB: why a job waits; ask QUESTION: ask it; pause, "
        "resume: start nothing, go on; cancel JOB: end a job; models: what can be asked; doctor: what to mend",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="word",
        help=f"for service: what to do ({', '.join(ACTIONS)}) [status]; for why and cancel: a job's id, or the "
        "beginning of it; for ask: the question",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, and end")
    settings = parser.add_argument_group("settings")
    for knob in knobs():
        default = _shown(knob.default)
        unit = f" {knob.unit}" if knob.unit and default != "none" else ""
        text = f"{knob.help} [{knob.env}; default: {default}{unit}]"
        action = _Joined if knob.repeatable else "store"
        flag = settings.add_argument(
            knob.flag, dest=knob.name, metavar="VALUE", help=text.replace("%", "%%"), action=action
        )
        if knob.parse is switch:
            flag.nargs, flag.const = "?", "yes"  # alone it means yes
    play = parser.add_argument_group("for simulate")
    play.add_argument(
        "--story", action="append", metavar="NAME", help="what to play, of those that it shows; may be repeated [all]"
    )
    play.add_argument(
        "--load-seconds", action="append", type=_seconds, metavar="S", help="what a load takes [as in the story]"
    )
    show = parser.add_argument_group("for demo")
    show.add_argument("--seconds", type=_seconds, metavar="S", default=60.0, help="how long it lasts at most [60]")
    line = parser.add_argument_group("for the commands that ask a service that runs")
    line.add_argument("--json", action="store_true", help="say it as JSON (not for top and ask)")
    line.add_argument("--lane", choices=LANES, default="interactive", help="for ask: its lane [interactive]")
    line.add_argument("--unload", action="store_true", help="for pause: free the memory of the models, too")
    keep = parser.add_argument_group("for service")
    keep.add_argument("--yes", action="store_true", help="write, and overwrite, without asking")
    keep.add_argument(
        "--take-over", action="store_true", help="with install: move Ollama to another port, and listen on its own too"
    )
    keep.add_argument("--undo", action="store_true", help="with --take-over: put Ollama back")
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command and return the exit code of the process: see :class:`~llm_queue.exits.Exit`."""
    wanted = parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments = _with_job(arguments, wanted)
    wanted.check_words(arguments)
    flags = vars(wanted.parse_intermixed_args(arguments))
    flags["action"] = _action(wanted, flags["command"], flags["words"])
    if flags["take_over"] and flags["action"] != "install":
        wanted.error("--take-over belongs to: service install")
    if flags["undo"] and not flags["take_over"]:
        wanted.error("--undo belongs to: service install --take-over")
    try:
        settings = load(flags, environ)
    except WrongSetting as error:
        log.complain(f"llm-queue: {error}")
        return Exit.BAD_SETTING
    return _COMMANDS[flags["command"]](settings, flags, environ)


def _with_job(arguments: list[str], wanted: Parser) -> list[str]:
    """The same with a job's id at the end, where it is a word even if it begins with a hyphen."""
    if len(arguments) < 2 or arguments[0] not in ("why", "cancel") or not arguments[1].startswith("-"):
        return arguments
    job = arguments[1]
    if job == "--" or job.partition("=")[0] in wanted._option_string_actions:
        return arguments
    return [arguments[0], *arguments[2:], "--", job]


def _action(wanted: Parser, command: str, words: list[str]) -> str | None:
    """What a service is to do, if that is the command. Complains of words that the command does not take."""
    least, most = _WORDS.get(command, (0, 0))
    if len(words) < least:
        wanted.error(f"{command} takes a job's id, or the beginning of it: llm-queue status shows who waits")
    if len(words) > most:
        wanted.error(f"{command} takes no {words[most]}")
    if command != "service" or not words:
        return None
    if words[0] not in ACTIONS:
        wanted.error(f"service takes no {words[0]!r}{_perhaps(words[0], list(ACTIONS))}")
    return words[0]


def _serve(settings: Settings, _flags: Mapping[str, Any], _environ: Mapping[str, str]) -> int:
    log.configure(settings.log_format)
    if settings.trace is None:
        return _run_service(settings)
    try:
        with Path(settings.trace).open("w", encoding="utf-8", buffering=1) as trace:
            return _run_service(settings, trace.write)
    except OSError as error:
        if error.filename != settings.trace:
            raise
        log.complain(f"llm-queue: --trace {settings.trace} cannot be written: {error.strerror}.")
        return Exit.BAD_SETTING


def _run_service(settings: Settings, trace: Callable[[str], object] | None = None) -> int:
    with uncollected():
        import trio

        from llm_queue.serve import serve
        from llm_queue.traces.export import NoTracing
        from llm_queue.upstream.choose import NoUpstream

    try:
        return trio.run(partial(serve, trace=trace), settings)
    except (NoUpstream, NoTracing) as error:
        log.complain(f"llm-queue: {error}")
        return Exit.BAD_SETTING
    except KeyboardInterrupt:  # before it listens for signals: it may be fetching a model
        return Exit.INTERRUPTED
    except OSError as error:
        if error.errno not in _CANNOT_LISTEN:
            raise
        log.complain(f"llm-queue: {error.strerror}. {_advice(error)}")
        return Exit.BAD_SETTING


def _simulate(settings: Settings, flags: Mapping[str, Any], _environ: Mapping[str, str]) -> int:
    with uncollected():
        from llm_queue.dispatch.setup import rules_of
        from llm_queue.simulate.stories import STORIES, table

    if settings.trace is not None:
        return _replay(settings.trace)
    names = flags["story"] or list(STORIES)
    for name in names:
        if name not in STORIES:
            log.complain(f"llm-queue: there is no story {name!r}{_perhaps(name, list(STORIES))}: {', '.join(STORIES)}")
            return Exit.BAD_SETTING
    print(table(names, tuple(flags["load_seconds"] or ()), rules_of(settings)))
    return 0


def _replay(trace: str) -> int:
    from llm_queue.core.trace import WrongTrace
    from llm_queue.simulate.picks import picks

    try:
        with Path(trace).open(encoding="utf-8") as lines:
            print(picks(lines))
    except OSError as error:
        log.complain(f"llm-queue: --trace {trace} cannot be read: {error.strerror or error}.")
        return Exit.BAD_SETTING
    except WrongTrace as error:
        log.complain(f"llm-queue: --trace {trace}: {error}")
        return Exit.JOBS_LOST
    return 0


def _demo(settings: Settings, flags: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    with uncollected():
        from llm_queue.demo.run import demo

    return demo(settings, flags["seconds"], environ)


def _service(settings: Settings, flags: Mapping[str, Any], _environ: Mapping[str, str]) -> int:
    with uncollected():
        from llm_queue.service.actions import act

    return act(
        flags["action"] or "status", settings, yes=flags["yes"], take_over=flags["take_over"], undo=flags["undo"]
    )


def _terminal(settings: Settings, flags: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    with uncollected():
        from llm_queue.terminal.desk import Asked
        from llm_queue.terminal.run import run

    asked = Asked(tuple(flags["words"]), json=flags["json"], lane=flags["lane"], unload=flags["unload"])
    return run(flags["command"], settings, asked, environ)


ACTIONS: Final = ("install", "uninstall", "status")
"""What ``llm-queue service`` does."""

LANES: Final = ("interactive", "normal", "background")

_WORDS: Final = {"why": (1, 1), "cancel": (1, 1), "ask": (0, 10_000), "service": (0, 1)}
"""How many words a command takes, at least and at most; all others take none."""

_COMMANDS: Final[dict[str, Callable[[Settings, Mapping[str, Any], Mapping[str, str]], int]]] = {
    "serve": _serve,
    "simulate": _simulate,
    "demo": _demo,
    "service": _service,
    **dict.fromkeys(("top", "status", "why", "ask", "pause", "resume", "cancel", "models", "doctor"), _terminal),
}

_CANNOT_LISTEN: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
_ADVICE: Final = "Is it running already? Stop that one, or choose another --port."
_OLLAMAS_PORT: Final = "That is Ollama's port: `llm-queue service install --take-over` moves Ollama to another."


def _advice(error: OSError) -> str:
    return _OLLAMAS_PORT if f":{OLLAMA_PORT}:" in str(error.strerror) else _ADVICE


def _seconds(raw: str) -> float:
    try:
        seconds = float(raw)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("takes seconds, from 0.001 to 3600")
    return seconds


def _shown(default: object) -> str:
    if default in (None, "", ()):
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)
