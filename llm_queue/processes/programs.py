"""What a person would call a running program: the script, not its interpreter; the app, not its helper."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

MAX_ANCESTORS: Final = 4
"""Parents that are looked at for the program that a worker process belongs to."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How one interpreter reads its command line.

    ``values`` are options whose value is the next word. ``modules`` are options whose value names what is run.
    ``codes`` are options whose value is the code itself. ``commands`` are first words that are no script. With
    ``clusters``, one-letter options may stand together, as in ``python -um jobs``.
    """

    values: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()
    clusters: bool = False


def _interpreter(
    values: str = "", *, modules: str = "", codes: str = "", commands: str = "", clusters: bool = False
) -> Interpreter:
    return Interpreter(
        values=frozenset(values.split()),
        modules=frozenset(modules.split()),
        codes=frozenset(codes.split()),
        commands=frozenset(commands.split()),
        clusters=clusters,
    )


_PYTHON: Final = _interpreter("-W -X --check-hash-based-pycs", modules="-m", codes="-c", clusters=True)
_NODE: Final = _interpreter(
    "-r --require --import --loader --experimental-loader -C --conditions --env-file --env-file-if-exists --title "
    "--inspect-port --icu-data-dir --openssl-config --max-http-header-size --redirect-warnings --stack-trace-limit "
    "--experimental-config-file --watch-path",
    codes="-e --eval -p --print -pe",
    commands="inspect",
)
_SHELL: Final = _interpreter("-o +o -O +O --rcfile --init-file", codes="-c", clusters=True)
_RUBY: Final = _interpreter("-I -r -C -E", codes="-e")
_JAVA: Final = _interpreter(
    "-cp -classpath --class-path -p --module-path --add-modules --add-opens --add-exports --add-reads --source",
    modules="-m --module",
)
_BUN: Final = _interpreter("-r --preload --cwd -c --config --env-file", codes="-e --eval", commands="run x")
_DENO: Final = _interpreter(
    "-c --config --import-map --env-file --lock --cert", commands="run serve task eval repl test"
)

INTERPRETERS: Final[dict[str, Interpreter]] = {
    **dict.fromkeys(("python", "pythonw", "pypy"), _PYTHON),
    **dict.fromkeys(("node", "nodejs"), _NODE),
    **dict.fromkeys(("sh", "bash", "dash", "zsh", "ksh"), _SHELL),
    "bun": _BUN,
    "deno": _DENO,
    "ruby": _RUBY,
    "perl": _interpreter("-I -M -m", codes="-e -E", clusters=True),
    "php": _interpreter("-d -c -S -t -z", codes="-r"),
    "java": _JAVA,
    "electron": Interpreter(),
}
"""Programs that say nothing of what they run, by their name without its version. ``uv run`` and ``npx`` start one of
these, so that the script's path is there too."""

_VERSION: Final = re.compile(r"(?:[0-9.]+t?)?$")


def program_name(process: psutil.Process) -> str:
    """The name of the program that ``process`` runs, with the script's folder if it is one.

    A worker process has the name of the program that started it: those of Python's ``multiprocessing``, and the helpers
    that browsers and Electron apps send their requests from. Raises ``psutil.Error`` or ``OSError`` where the system
    does not tell.
    """
    words = process.cmdline()
    name = _executable(process, words)
    for _ in range(MAX_ANCESTORS):
        parent = process.parent() if _is_worker(words) else None
        if parent is None or _executable(parent, parent.cmdline()) != name:
            break  # the parent of an orphan is the system's first process
        process, words = parent, parent.cmdline()
    interpreter = INTERPRETERS.get(_VERSION.sub("", name.lower().removesuffix(".exe")))
    if interpreter is None:
        return name
    option, word = what_is_run(interpreter, words[1:])
    if not word or option in interpreter.codes:
        return f"{name} {option}".strip()
    if option in interpreter.modules or re.match(r"[a-z]{2,}:", word):  # a module; a URL, or npm:PACKAGE
        return word
    return os.path.normpath(os.path.join(_folder(process), word))


def what_is_run(interpreter: Interpreter, arguments: Sequence[str]) -> tuple[str, str]:
    """The option that says what to run, and its value; ``""`` and the script if there is no such option.

    The value is empty if the interpreter was told nothing, as when it reads from its standard input.
    """
    rest = iter(arguments)
    for word in rest:
        option, attached = word, ""
        if interpreter.clusters and re.match(r"-[A-Za-z]", word):
            option, attached = _split(interpreter, word)
        if option in interpreter.codes | interpreter.modules:
            return option, attached or next(rest, "")
        if option in interpreter.values:
            if not attached:
                next(rest, "")
        elif word == "--":
            return "", next(rest, "")
        elif word[:1] not in ("-", "+") and word not in interpreter.commands:
            return "", word
    return "", ""


def _split(interpreter: Interpreter, word: str) -> tuple[str, str]:
    """Of letters that stand together, the first that takes a value, and what is attached to it: ``-um jobs`` is -m."""
    for place, letter in enumerate(word[1:], 1):
        if f"-{letter}" in interpreter.codes | interpreter.modules | interpreter.values:
            return f"-{letter}", word[place + 1 :]
    return word, ""


def _is_worker(words: Sequence[str]) -> bool:
    return any(
        word == "--multiprocessing-fork" or word.startswith(("--type=", "from multiprocessing.")) for word in words[1:]
    )


def _executable(process: psutil.Process, words: Sequence[str]) -> str:
    """The file's name. The process's own name is no help: node calls its first thread MainThread."""
    try:
        path = process.exe()
    except (psutil.Error, OSError):
        path = ""
    name = os.path.basename(path.removesuffix(" (deleted)"))
    if words and name in ("", "busybox"):
        name = os.path.basename(words[0])
    return name or process.name()


def _folder(process: psutil.Process) -> str:
    """Where it runs; empty where the system does not tell. The folder may be gone."""
    try:
        return (process.cwd() or "").removesuffix(" (deleted)")
    except (psutil.Error, OSError):
        return ""
