"""The parts of the documentation that are drawn from the code, so that they cannot drift from it.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. ``python docs/generate.py`` says
which parts differ from the code, and then exits with 1; ``python docs/generate.py write`` mends them. Needs the project
installed, and no Sphinx.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from unittest import mock

import httpx
import trio

from llm_queue import errors, running
from llm_queue.cli import parser
from llm_queue.core.jobs import TRANSITIONS, State
from llm_queue.errors import QueueError
from llm_queue.metrics.families import COUNTED, READ, Family
from llm_queue.processes.connected import Program
from llm_queue.settings import Knob, Settings, knobs
from llm_queue.terminal.desk import Asked, Desk
from llm_queue.terminal.doctor import doctor as examine
from llm_queue.terminal.facts import Sources
from llm_queue.terminal.line import Line
from llm_queue.terminal.run import run
from llm_queue.testing.fake_ollama.behaviour import DIRECTIVES

ROOT: Final = Path(__file__).resolve().parent.parent

MOST_USED: Final = (
    "ollama_url", "model", "num_ctx", "port", "host", "api_keys", "attempt_timeout", "max_attempts", "max_wait",
    "max_waiting", "keep_alive", "log_format",
)  # fmt: skip
"""The settings that the README shows, in this order."""

_BLOCK: Final = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """Every document that may have generated parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def refreshed(text: str) -> str:
    """A document with each generated part as the code has it now. Raises KeyError for a part that nobody draws."""
    return _BLOCK.sub(lambda match: f"{match[1]}{PARTS[match['name']]()}\n{match[3]}", text)


def stale(text: str) -> list[str]:
    """The names of the parts of a document that differ from the code."""
    return [match["name"] for match in _BLOCK.finditer(text) if refreshed(match[0]) != match[0]]


# --- the parts ----------------------------------------------------------------------------------------------------


def settings_table() -> str:
    """Every setting."""
    return _settings(knobs())


def settings_most_used() -> str:
    """Those that the README shows."""
    by_name = {knob.name: knob for knob in knobs()}
    return _settings(by_name[name] for name in MOST_USED)


def _settings(shown: Iterable[Knob]) -> str:
    rows = ((f"`{knob.flag}`", _variable(knob), _default(knob), knob.help) for knob in shown)
    return _table(("flag", "variable", "default", "what it is"), rows)


def _variable(knob: Knob) -> str:
    return f"`{knob.env}`" + (" (in ms)" if knob.scale == 0.001 else "")


def _default(knob: Knob) -> str:
    value = knob.default
    if value in (None, "", ()):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if knob.unit == "bytes" and value % 2**20 == 0:
        return f"{value // 2**20} MiB"
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{shown} {knob.unit}".strip() if knob.unit else f"`{shown}`" if isinstance(value, str) else shown


def states_diagram() -> str:
    """Each state with the states that may follow it."""
    lines = []
    for state, followers in TRANSITIONS.items():
        width = max(len(one.value) for one in TRANSITIONS)
        for index, (after, when) in enumerate(followers.items()):
            before = state.value.ljust(width) if index == 0 else " " * width
            fork = "─┬─>" if index == 0 else " ├─>" if index < len(followers) - 1 else " └─>"
            lines.append(f"{before} {fork} {after.value:<10} {when}")
        lines.append("")
    return _fenced("text", "\n".join(lines).rstrip())


def states_table() -> str:
    """Each state, where it can go, and whether it is an end."""
    rows = (
        (f"`{state.value}`", "an end" if state.ended else ", ".join(f"`{after.value}`" for after in TRANSITIONS[state]))
        for state in State
    )
    return _table(("state", "may be followed by"), rows)


def errors_table() -> str:
    """Every error a caller can get: from the least to the greatest status, then as in the code."""
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, QueueError)]
    classes.sort(key=lambda kind: (kind.status, inspect.getsourcelines(kind)[1]))
    rows = ((f"`{kind.code}`", _status(kind), _retryable(kind), " ".join(_doc(kind).split())) for kind in classes)
    return _table(("code", "status", "worth asking again?", "what it says, unless it can say it more exactly"), rows)


def _status(kind: type[QueueError]) -> str:
    own = kind.http_status is QueueError.http_status
    return str(kind.status) if own else "the upstream's own, mostly 400 to 499"


def _retryable(kind: type[QueueError]) -> str:
    if kind.retryable:
        return "yes, after `Retry-After`"
    return "no" if kind.status >= 500 else "not as it is"


def _doc(kind: type[QueueError]) -> str:
    return kind.__doc__ or ""


def metrics_counted() -> str:
    """The metrics that are counted as it happens."""
    return _metrics(COUNTED)


def metrics_read() -> str:
    """Those that are read when somebody asks."""
    return _metrics(READ)


def _metrics(families: Iterable[Family]) -> str:
    rows = ((f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.text) for one in families)
    return _table(("metric", "kind", "labels", "what it is"), rows)


def directives() -> str:
    """What steers the fake Ollama."""
    return _fenced("text", inspect.cleandoc(DIRECTIVES))


def help_text() -> str:
    """What ``--help`` prints, without its first lines, which repeat the flags."""
    with mock.patch.dict(os.environ, {"COLUMNS": "100", "PYTHON_COLORS": "0"}):
        _usage, _, text = parser().format_help().partition("\n\n")
    return _fenced("text", text.rstrip())


def terminal(command: str, *words: str) -> str:
    """What a command of the terminal says, from a line whose values stand in files beside this one."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    settings, transport = Settings(), httpx.MockTransport(_line)
    if command == "doctor":

        async def doctor() -> int:
            async with running.client(running.address(settings), settings, transport) as http:
                return await examine(Desk(Line(http), settings, out=out, err=out), _MACHINE)

        trio.run(doctor)
    else:
        run(command, settings, Asked(words), {}, out=out, err=out, transport=transport)
    assert isinstance(out.buffer, io.BytesIO)
    said = " ".join(("$ llm-queue", command, *words))
    return _fenced("text", f"{said}\n{out.buffer.getvalue().decode().rstrip()}")


def _line(request: httpx.Request) -> httpx.Response:
    """The service, and the Ollama behind it."""
    match request.url.path:
        case "/ready" if request.url.port == 11500:
            return httpx.Response(200, json={"ready": True})
        case "/queue":
            return httpx.Response(200, content=(ROOT / "docs" / "terminal_line.json").read_bytes())
        case "/v1/models":
            return httpx.Response(200, json={"data": _MODELS})
        case "/api/version":
            return httpx.Response(200, json={"version": "0.33.0"})
        case "/api/ps":
            loaded = {"name": "granite4.1:8b", "size_vram": 6 * 2**30, "context_length": 4096}
            return httpx.Response(200, json={"models": [loaded]})
        case path if path.startswith("/queue/jobs/"):
            return httpx.Response(200, content=(ROOT / "docs" / "terminal_job.json").read_bytes())
    return httpx.Response(404)


_MODELS: Final = [
    {"id": "granite4.1:8b", "context_length": 8192, "meta": {"n_ctx_train": 131072}},
    {"id": "nomic-embed-text", "context_length": 2048, "meta": {"n_ctx_train": 2048}},
    {"id": "qwen3-coder:30b", "context_length": 32768, "meta": {"n_ctx_train": 262144}},
]

_MACHINE: Final = Sources(
    listening=lambda port: {one: Program(port // 10, "llm_queue") for one in ("127.0.0.1", "::1")},
    connected=lambda *_: [Program(4711, "/usr/local/bin/ollama")],
    environment=lambda _: {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_CONTEXT_LENGTH": "4096"},
    query=lambda words: "" if "--user" in words else "LoadState=loaded\nActiveState=active",
    memory=lambda: 32 * 2**30,
    platform="linux",
    transport=httpx.MockTransport(_line),
)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings_table,
    "settings-most-used": settings_most_used,
    "terminal-status": lambda: terminal("status"),
    "terminal-why": lambda: terminal("why", "fT2mC6"),
    "terminal-models": lambda: terminal("models"),
    "terminal-doctor": lambda: terminal("doctor"),
    "states-diagram": states_diagram,
    "states": states_table,
    "errors": errors_table,
    "metrics-counted": metrics_counted,
    "metrics-read": metrics_read,
    "directives": directives,
    "help": help_text,
}


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(heads), _row(["---"] * len(heads)), *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("*", r"\*") for cell in cells) + " |"


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


# --- the command --------------------------------------------------------------------------------------------------


def differences() -> Iterator[str]:
    """One line for each part that differs from the code."""
    for document in documents():
        for name in stale(document.read_text(encoding="utf-8")):
            yield f"{document.relative_to(ROOT)}: {name!r} differs from the code; run: python docs/generate.py write"


def write() -> None:
    """Mend them all."""
    for document in documents():
        text = document.read_text(encoding="utf-8")
        if (fresh := refreshed(text)) != text:
            document.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    elif sys.argv[1:]:
        sys.exit("usage: python docs/generate.py [write]")
    sys.exit("\n".join(differences()) or 0)
