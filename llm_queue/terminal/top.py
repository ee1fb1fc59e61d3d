"""``llm-queue top``: the line as it changes, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from llm_queue.log import is_terminal
from llm_queue.terminal.desk import Desk
from llm_queue.terminal.line import NoAnswer, Unknown
from llm_queue.terminal.paper import Row, Span
from llm_queue.terminal.screen import screen
from llm_queue.terminal.shapes import Queue

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at a service that tells of no changes, and until a service that has gone is asked again."""

NO_RICH: Final = "to see it as it changes: python3 -m pip install rich"

Show = Callable[[list[Row]], None]


async def top(desk: Desk) -> int:
    """Draw the line anew whenever it changes; once, where nobody sits in front of it. Returns 0, also after Ctrl-C.

    A service that goes away is waited for: the screen says so. Raises :class:`~llm_queue.terminal.line.NoAnswer` if it
    is not there at the beginning.
    """
    queue = await desk.line.queue()
    if not is_terminal(desk.out) or importlib.util.find_spec("rich") is None:
        desk.write(*screen(queue, desk.line.url, desk.paper))
        if is_terminal(desk.out):
            desk.complain(NO_RICH)
        return 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            with _in_place(desk) as show:
                await watch(desk, show, queue)
    return 0


async def watch(desk: Desk, show: Show, queue: Queue) -> None:
    """Show the line, now and whenever it has changed, until cancelled."""
    rows = _drawn(desk, queue)
    show(rows)

    def changed(news: Queue | NoAnswer) -> None:
        nonlocal rows
        if isinstance(news, Queue):
            rows = _drawn(desk, news)
            show(rows)
        else:  # the last screen stays, with what has become of the service on top of it
            show([[Span(str(news), "bad")], [Span("It is asked again each second.", "dim")], [""], *rows[:-3]])

    await follow(desk, changed)


def _drawn(desk: Desk, queue: Queue) -> list[Row]:
    return screen(queue, desk.line.url, desk.paper)


async def follow(desk: Desk, changed: Callable[[Queue | NoAnswer], None]) -> None:
    """Tell of the line whenever it has changed: from the service's own events, or by asking where it has none.

    Cancel it to end it.
    """
    events = True
    while True:
        try:
            if events:
                async with desk.line.events() as changes:
                    async for queue in changes:
                        changed(queue)
            else:
                changed(await desk.line.queue())
        except Unknown:
            events = False
            continue
        except NoAnswer as error:
            changed(error)
        await trio.sleep(LOOK_EVERY)


@contextmanager
def _in_place(desk: Desk) -> Iterator[Show]:
    """Draws on the whole terminal, which is as before after it."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=desk.out, no_color=bool(desk.environ.get("NO_COLOR")), highlight=False)
    # No thread of rich's own: it is drawn when we say so, and nothing is left to end.
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:

        def show(rows: list[Row]) -> None:
            live.update(Text.from_ansi(desk.paper.lines(rows), no_wrap=True), refresh=True)

        yield show
