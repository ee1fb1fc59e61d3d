"""One cell, played: the whole service in front of a faulty upstream, one caller, and the next."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from llm_queue import errors
from llm_queue.core.seat import PROBE_DELAYS, REFUSE_AFTER_FAILED_LOAD
from llm_queue.dispatch.attempts import ASK_TIMEOUT
from llm_queue.dispatch.dispatcher import Dispatcher
from llm_queue.errors import QueueError
from llm_queue.web.app import create_app
from llm_queue.web.listener import open_listeners, serve_http
from tests.faults.callers import CHAT, DIALECTS, Dialect, Heard, Reply, ask
from tests.faults.engines import Clock, upstream_of, wire_of
from tests.faults.matrix import SETTINGS, WHOLE, Cell, Engine, Outcome, Try, played
from tests.faults.server import SHORT_OUTAGE, Exchange, Server, Strike, strike_of
from tests.harness import Endings

_KINDS: Final = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, QueueError)
}
_ROWS: Final = {engine: [cell for cell in played() if cell.engine is engine] for engine in Engine}


def dialect_of(cell: Cell) -> Dialect:
    """The dialects take turns in the cells of an upstream, and each upstream begins with another."""
    return DIALECTS[(_ROWS[cell.engine].index(cell) + list(Engine).index(cell.engine)) % len(DIALECTS)]


async def play(cell: Cell, folder: Path, clock: Clock) -> Outcome:
    """What the caller of this cell got. All else that must hold is asserted."""
    async with trio.open_nursery() as nursery:
        server = Server(wire_of(cell.engine), nursery)
        await server.start()
        load_faults: list[str] = []
        async with (
            upstream_of(cell.engine, server, folder, clock, load_faults) as upstream,
            trio.open_nursery() as inner,
        ):
            endings = Endings()
            dispatcher = Dispatcher(SETTINGS, upstream, [endings])
            await inner.start(dispatcher.run)
            async with _web(dispatcher) as port:
                outcome = await _ask_and_check(cell, server, dispatcher, port, load_faults)
                await _the_next_is_served(cell, server, dispatcher, port)
            assert dispatcher.live_jobs == 0
            assert set(endings.count.values()) == {1}, "each job ends once"
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    return outcome


@asynccontextmanager
async def _web(dispatcher: Dispatcher) -> AsyncIterator[int]:
    listeners, _ = await open_listeners("127.0.0.1", 0)
    shutdown = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_http, create_app(SETTINGS, dispatcher), listeners, shutdown=shutdown),
        )
        yield listeners[0].socket.getsockname()[1]
        shutdown.set()


async def _ask_and_check(
    cell: Cell, server: Server, dispatcher: Dispatcher, port: int, load_faults: list[str]
) -> Outcome:
    await dispatcher.watch.ready()
    if not cell.fault.load or cell.attempt is Try.RETRY:
        await _served(await ask(port, CHAT, "alpha", "the model is loaded", stream=False), CHAT)
    await _prepare(cell, server, load_faults)
    dialect = dialect_of(cell)
    reply = await ask(port, dialect, "alpha", "the struck one", stream=cell.streamed)
    if not cell.blind:
        assert not server.working, "the upstream has nothing running"
    assert dispatcher.status().slot is None, "the slot is free"
    assert dispatcher.live_jobs == 0
    assert not server.strikes, "the fault has struck"
    assert not server.load_strikes
    assert not load_faults
    return _outcome(dialect, reply, dispatcher, streamed=cell.streamed)


async def _prepare(cell: Cell, server: Server, load_faults: list[str]) -> None:
    """Have the fault strike the first try of the next job, or the one after a try that is lost."""
    fault, name = cell.fault, cell.fault.name
    strike = strike_of(name, begun=cell.strikes_begun)
    retry = cell.attempt is Try.RETRY
    if fault.load:
        # A load is repeated where the process was lost that had the model.
        server.strikes = deque([strike_of("killed", begun=False)] if retry else [])
        if cell.engine is Engine.EMBEDDED:
            load_faults.append(name)
        else:
            server.load_strikes = deque([strike])
    elif name in _DOORS:
        if retry:
            server.strikes = deque([_lost_and(name)])
        else:
            await _DOORS[name](server)
    else:
        server.strikes = deque([strike_of("500", begun=False), strike] if retry else [strike])


async def _refuse(server: Server) -> None:
    server.stop()


async def _be_away(server: Server) -> None:
    server.stop_for(SHORT_OUTAGE)


async def _hang(server: Server) -> None:
    server.stop()
    server.hangs = True


_DOORS: Final = {"refused": _refuse, "away": _be_away, "hang": _hang}


def _lost_and(name: str) -> Strike:
    async def strike(at: Exchange) -> None:
        """The try is lost by a 500, and from then on no connection is taken."""
        await strike_of("500", begun=False)(at)
        await _DOORS[name](at.server)
        await trio.lowlevel.checkpoint()

    return strike


def _outcome(dialect: Dialect, reply: Reply, dispatcher: Dispatcher, *, streamed: bool) -> Outcome:
    assert reply.complete, "nobody is cut off without a word"
    job = dispatcher.find(reply.headers["x-llm-queue-job"])
    assert job is not None
    heard = dialect.heard(reply, streamed=streamed)
    assert (job.state == "succeeded") == heard.ended, "what was not answered in full does not look so"
    assert heard.ended == (heard.error is None)
    if reply.status == 429 or reply.status >= 500:
        assert reply.headers["x-should-retry"] == "false", "what is final is not asked again by an SDK"
    if not isinstance(job.code, str):
        return Outcome(reply.status, None, heard.text, job.attempts)
    kind = _KINDS[job.code]
    assert heard.error == dialect.error_name(
        kind, kind.status if reply.status == 200 else reply.status, job.error or ""
    )
    return Outcome(reply.status, job.code, heard.text, job.attempts)


async def _served(reply: Reply, dialect: Dialect) -> None:
    assert reply.status == 200, reply.body
    assert dialect.heard(reply, streamed=False) == Heard(WHOLE, ended=True, error=None)


async def _the_next_is_served(cell: Cell, server: Server, dispatcher: Dispatcher, port: int) -> None:
    """Once the upstream is there again, whoever asks is served; for a model that failed to load, a little later."""
    if server.hangs or cell.fault.name == "refused":
        server.hangs = False
        if cell.engine is not Engine.EMBEDDED:
            await server.start()
    if cell.fault.name == "disk" or (cell.fault.load and cell.engine is Engine.EMBEDDED):
        await trio.sleep(REFUSE_AFTER_FAILED_LOAD)
    # A probe looks at least once a second; one that hangs must first be given up.
    with trio.fail_after(PROBE_DELAYS[1] + (ASK_TIMEOUT if cell.fault.name == "hang" else 0.0) + 0.5):
        await dispatcher.watch.ready()
    if cell.fault.name == "others":
        await _served(await ask(port, CHAT, "beta", "the other", stream=False), CHAT)
        gone = await ask(port, CHAT, "alpha", "one that is gone", stream=False)
        assert gone.status == 404, "what is not there any more is not found"
        server.models.append("alpha")
    await _served(await ask(port, CHAT, "alpha", "the next", stream=False), CHAT)
    assert not server.working
    assert cell.blind or server.most_in_flight == 1, "never more than one in flight"
