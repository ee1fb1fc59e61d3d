"""The composition root: what runs inside what, what ends what, and with which exit code.

From the outside in: the upstream's connections, the nursery with the dispatcher, the web server. Stopping walks the
other way: the line drains while the listeners stay open, everybody has an answer, then the web server ends, then the
dispatcher. A service that could not accept would be gone; one whose dispatcher is dead must not answer 200.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

import structlog
import trio

from llm_queue import descriptors, log
from llm_queue.dispatch.dispatcher import Dispatcher, DispatcherDied
from llm_queue.dispatch.observe import HeldBack, JobLog
from llm_queue.errors import LoopDetected
from llm_queue.exits import Exit
from llm_queue.garbage import Collector
from llm_queue.instance import Instance
from llm_queue.metrics.page import Metrics
from llm_queue.processes.connected import Neighbours
from llm_queue.settings import Settings
from llm_queue.settings.values import OLLAMA_PORT
from llm_queue.systemd import Systemd
from llm_queue.traces.export import begin
from llm_queue.upstream.choose import Choice, NoUpstream, choose
from llm_queue.upstream.protocol import Upstream
from llm_queue.web.app import create_app
from llm_queue.web.listener import open_all, serve_http

_log = structlog.get_logger("llm_queue")

STOPPING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a supervisor, and, where there is such a signal, a terminal that is closed."""


FIRST_LOOK: Final = 2.0
"""Seconds that the greeting waits for the upstream's first answer, which may show that the upstream is ourselves. One
that is not there is known at once."""

_IN_A_ROW: Final = (
    "the upstream is another llm-queue: two lines in a row, each with turns and priorities of its own. One is enough"
)


async def serve(
    settings: Settings,
    *,
    upstream: Upstream | None = None,
    environ: Mapping[str, str] = os.environ,
    signals: AsyncIterator[int] | None = None,
    trace: Callable[[str], object] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> Exit:
    """Serve until told to stop; ``task_status`` gets the URLs once we listen.

    ``signals`` stands in for the process's own SIGINT and SIGTERM, and ``trace`` gets a record of the line
    (:mod:`llm_queue.core.trace`). Cancelled, it ends at once: whoever waits is closed without an answer. Raises
    :class:`OSError` if the address is taken, :class:`~llm_queue.traces.export.NoTracing` if spans are asked for and
    cannot be sent, and :class:`~llm_queue.upstream.choose.NoUpstream` if the upstream that is wanted is not there, or
    is ourselves; ``environ`` is where it is looked for.
    """
    tracing, untraced = begin(settings.otel, environ)
    files = descriptors.raise_limit(settings.max_waiting)
    listeners, warnings = await open_all(settings.host, settings.port)
    if too_few := descriptors.shortage(files, settings.max_waiting):
        warnings.append(too_few)
    warnings += untraced
    instance = Instance()
    systemd = Systemd(environ)
    try:
        if upstream is None:
            places = [listener.socket.getsockname()[:2] for listener in listeners]
            engine = await choose(settings, environ, instance=instance, places=places)
        else:
            engine = Choice(upstream)
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    upstream = engine.upstream
    settings = dataclasses.replace(settings, model=settings.model or upstream.default_model)
    job_log = HeldBack(JobLog(upstream.name, upstream.url))  # until the greeting
    collector = Collector()
    neighbours = Neighbours(upstream.url).name
    dispatcher = Dispatcher(settings, upstream, [job_log, collector], trace=trace, neighbours=neighbours)
    metrics = Metrics(dispatcher)
    dispatcher.observers.add(metrics)
    if tracing is not None:
        spans = tracing.spans(upstream.name, upstream.url)
        dispatcher.observers.add(spans)
        dispatcher.trace_by(spans.place_of)
    app = create_app(settings, dispatcher, instance, metrics)
    shutdown = trio.Event()
    loop: LoopDetected | None = None
    to_the_end = ExitStack()
    try:
        async with trio.open_nursery() as nursery:
            died = await nursery.start(_supervise, dispatcher, shutdown)
            await nursery.start(_stop_on_signal, dispatcher, shutdown, signals, systemd)
            async with trio.open_nursery() as web:
                served = partial(
                    serve_http,
                    app,
                    listeners,
                    shutdown=shutdown,
                    stall_limit=settings.stall_limit,
                    most=descriptors.most_connections(files),
                )
                await web.start(served)
                with trio.move_on_after(FIRST_LOOK):
                    loop = await dispatcher.watch.first_look()
                if loop is None:
                    urls = [_url(listener) for listener in listeners]
                    _say_hello(settings, engine, urls, warnings + ([_IN_A_ROW] if instance.behind else []))
                    job_log.let_go()
                    nursery.start_soon(collector.run)
                    to_the_end.enter_context(collector.calm())
                    nursery.start_soon(systemd.give_signs, dispatcher.beat)
                    systemd.ready(urls)
                    task_status.started(urls)
                else:
                    shutdown.set()
            nursery.cancel_scope.cancel()
    finally:
        to_the_end.close()
        with trio.CancelScope(shield=True):
            await upstream.aclose()
            if tracing is not None:
                await tracing.aclose()
    if loop is not None:
        raise NoUpstream(loop.message)
    if died():
        return Exit.BUG
    return Exit.JOBS_LOST if dispatcher.unfinished else Exit.DRAINED


async def _supervise(
    dispatcher: Dispatcher, shutdown: trio.Event, *, task_status: trio.TaskStatus[Callable[[], bool]]
) -> None:
    """Run the dispatcher; when a bug ends it, let those who were told so read it, and end the process."""
    bug: list[DispatcherDied] = []
    task_status.started(lambda: bool(bug))
    try:
        await dispatcher.run()
    except DispatcherDied as died:
        bug.append(died)
        _log.critical("the line itself has failed, and the service ends: please report this", exc_info=died)
        shutdown.set()


async def _stop_on_signal(
    dispatcher: Dispatcher,
    shutdown: trio.Event,
    signals: AsyncIterator[int] | None,
    systemd: Systemd,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """The first signal drains the line, the second skips to the end."""
    if signals is not None:
        task_status.started()
        await _drain_then_stop(dispatcher, shutdown, signals, systemd)
        return
    with trio.open_signal_receiver(*STOPPING) as received:
        task_status.started()
        await _drain_then_stop(dispatcher, shutdown, received, systemd)
        async for _ in received:
            pass  # it ends already, and the last answers are on their way


async def _drain_then_stop(
    dispatcher: Dispatcher, shutdown: trio.Event, signals: AsyncIterator[int], systemd: Systemd
) -> None:
    await _first_order(dispatcher, signals)
    left = dispatcher.live_jobs
    systemd.stopping(dispatcher.settings.drain_timeout, left)
    if left:
        how = "; press Ctrl-C again to stop now" if log.is_terminal(sys.stderr) else ""
        _log.info(f"stopping: {left} job{'s' if left != 1 else ''} may finish first{how}")
    async with trio.open_nursery() as nursery:

        async def drain() -> None:
            await dispatcher.drain()
            nursery.cancel_scope.cancel()

        nursery.start_soon(drain)
        await anext(signals)
        nursery.cancel_scope.cancel()
    if dispatcher.unfinished:
        _log.warning("these jobs were not finished, and were told so", jobs=dispatcher.unfinished)
    shutdown.set()


async def _first_order(dispatcher: Dispatcher, signals: AsyncIterator[int]) -> None:
    """Wait for the first signal, or for the order to drain (``POST /queue/drain``)."""
    async with trio.open_nursery() as nursery:

        async def ordered() -> None:
            await dispatcher.commands.drain_ordered.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(ordered)
        await anext(signals)
        nursery.cancel_scope.cancel()


def _url(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _by_port(urls: list[str]) -> dict[str, list[str]]:
    """The addresses at each port, in the order in which they were opened."""
    found: dict[str, list[str]] = {}
    for url in urls:
        found.setdefault(url.rpartition(":")[2], []).append(url)
    return found


def _say_hello(settings: Settings, engine: Choice, urls: list[str], warnings: Sequence[str]) -> None:
    (port, first), *more = _by_port(urls).items()
    # The name localhost leads to [::1] first, where another program may listen.
    both = settings.on_loopback and len(first) > 1
    root = f"http://localhost:{port}" if both else urls[0]
    upstream = engine.upstream
    size = f"{settings.num_ctx} tokens at least" if upstream.chooses_context else "the engine's own"
    key = ' -H "Authorization: Bearer $KEY"' if settings.keys else ""
    lines = [
        f"llm-queue is listening on {' and '.join(first)}",
        *(f"  and on            {' and '.join(others)}{_whose(number)}" for number, others in more),
        f"  programs use      {root}/v1 as OpenAI's address, {root} as Ollama's or Anthropic's",
        f"  watch it          {root} in a browser, or llm-queue top",
        f"  in front of       {upstream.name}: {upstream.url}",
        f"  model             {settings.model or 'the first of the engine'}, unless a request names another",
        f"  context size      {size}",
        f"  try it            curl {root}/v1/chat/completions{key} -d '{_QUESTION}'",
        *(f"  note              {note}" for note in engine.notes),
    ]
    log.say("\n".join(lines))
    for warning in warnings:
        _log.warning(warning)


def _whose(port: str) -> str:
    return ", in Ollama's place" if port == str(OLLAMA_PORT) else ""


_QUESTION: Final = (
    '{"temperature": 0, "messages": [{"role": "user", "content": "What is the capital of France? One word."}]}'
)
