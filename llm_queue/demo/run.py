"""``llm-queue demo``: find or start a service, run the programs, show the line, and say what came of it."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

import httpx
import msgspec
import trio

from llm_queue import log
from llm_queue.demo.endpoint import NoService, service
from llm_queue.demo.programs import PROGRAMS, Record, play
from llm_queue.demo.summary import summary
from llm_queue.demo.view import Plain, View, on_terminal
from llm_queue.dispatch.status import Status
from llm_queue.settings import Settings

LOOK_EVERY: Final = 0.2
"""Seconds between two looks at the line: what a person can follow."""

NO_RICH: Final = "to see the line drawn: python3 -m pip install rich"


def demo(settings: Settings, seconds: float, environ: Mapping[str, str], out: TextIO | None = None) -> int:
    """Run it for so many seconds at most, and return the exit code.

    0, or 1 when there is no service to be had. A signal (Ctrl-C) ends it at any moment with 128 and its number: the
    service is ended, if it is ours, and the terminal is as before.
    """
    out = out or sys.stdout
    try:
        return trio.run(_demo, settings, seconds, environ, out)
    except KeyboardInterrupt:  # before or after the time in which we listen for it
        return 128 + signal.SIGINT


async def _demo(settings: Settings, seconds: float, environ: Mapping[str, str], out: TextIO) -> int:
    text, code = "", 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with trio.open_nursery() as nursery:

                async def stop_on_signal() -> None:
                    nonlocal code
                    async for number in signals:
                        code = 128 + number
                        nursery.cancel_scope.cancel()

                nursery.start_soon(stop_on_signal)
                async with service(settings, environ, lambda line: print(line, file=out, flush=True)) as http:
                    text = await _run(http, settings, seconds, out)
                nursery.cancel_scope.cancel()
        except* NoService as none:
            code, text = 1, ""
            for error in _leaves(none):
                log.complain(f"llm-queue: {error}")
    if text and not code:
        print(text, file=out, flush=True)
    return code


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _run(http: httpx.AsyncClient, settings: Settings, seconds: float, out: TextIO) -> str:
    """The programs until the cron job is done or the time is over; returns the summary."""
    records = [Record(program) for program in PROGRAMS]
    before = await _status(http)
    started = trio.current_time()
    with _view(out) as view, trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, http, view, records)
            # Two of the programs never end by themselves: the demo ends with the one that has a number of jobs.
            over = trio.Event()
            async with trio.open_nursery() as programs:
                for record in records:
                    programs.start_soon(play, http, record, settings.model, settings.num_ctx, over)
            nursery.cancel_scope.cancel()
    lasted = trio.current_time() - started
    return "\n" + summary(records, before, await _status(http), lasted)


async def _watch(http: httpx.AsyncClient, view: View, records: Sequence[Record]) -> None:
    started = trio.current_time()
    while True:
        view(trio.current_time() - started, await _status(http), records)
        await trio.sleep(LOOK_EVERY)


async def _status(http: httpx.AsyncClient) -> Status:
    try:
        response = await http.get("/queue")
        return msgspec.json.decode(response.raise_for_status().content, type=Status)
    except msgspec.ValidationError as error:
        raise NoService("the service that runs is of another version than this demo: restart it") from error
    except (httpx.HTTPError, ValueError) as error:
        raise NoService(f"the service has gone, or does not say how its line stands: {error}") from error


@contextmanager
def _view(out: TextIO) -> Iterator[View]:
    if out.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console

        with on_terminal(Console(file=out)) as view:
            yield view
        return
    if out.isatty():
        print(NO_RICH, file=out)
    yield Plain(lambda line: print(line, file=out, flush=True))
