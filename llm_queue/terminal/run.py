"""Runs one command of the terminal: finds the service, and says so if there is none."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, TextIO

import httpx
import trio

from llm_queue import log, running
from llm_queue.settings import Settings
from llm_queue.terminal.ask import ask
from llm_queue.terminal.commands import cancel, pause, resume
from llm_queue.terminal.desk import Asked, Desk
from llm_queue.terminal.line import Line, NoAnswer
from llm_queue.terminal.models import models
from llm_queue.terminal.status import status
from llm_queue.terminal.top import top
from llm_queue.terminal.why import why


async def _doctor(desk: Desk) -> int:
    """The doctor. It looks at much that no other command needs, and importing that takes a fifth of the time."""
    from llm_queue.terminal.doctor import doctor

    return await doctor(desk)


COMMANDS: Final[dict[str, Callable[[Desk], Awaitable[int]]]] = {
    "top": top,
    "status": status,
    "why": why,
    "ask": ask,
    "pause": pause,
    "resume": resume,
    "cancel": cancel,
    "models": models,
    "doctor": _doctor,
}
"""What each does. All but the doctor need a service that runs."""

NO_SERVICE_NEEDED: Final = ("doctor",)


def run(
    command: str,
    settings: Settings,
    asked: Asked,
    environ: Mapping[str, str],
    *,
    out: TextIO | None = None,
    err: TextIO | None = None,
    stdin: TextIO | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> int:
    """Run it, and return the exit code: 0 when it did what it was asked, 1 when there is no service, when that refused,
    or when the doctor has found something, 2 for a command that was given wrongly, and 130 after Ctrl-C.

    ``transport`` stands in for the network. Raises ``BrokenPipeError`` when nobody reads what it writes.
    """
    streams = out or sys.stdout, err or sys.stderr, stdin or sys.stdin
    code = 1
    try:
        code = trio.run(_run, command, settings, asked, environ, streams, transport)
    except* NoAnswer as group:
        log.say(f"llm-queue: {next(_leaves(group))}", streams[1])
    except* KeyboardInterrupt:
        code = 128 + signal.SIGINT
    return code


async def _run(
    command: str,
    settings: Settings,
    asked: Asked,
    environ: Mapping[str, str],
    streams: tuple[TextIO, TextIO, TextIO],
    transport: httpx.AsyncBaseTransport | None,
) -> int:
    async with running.client(running.address(settings), settings, transport) as http:
        line = Line(http)
        desk = Desk(line, settings, asked, environ, *streams)
        if command not in NO_SERVICE_NEEDED:
            await line.ready()
        return await COMMANDS[command](desk)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
