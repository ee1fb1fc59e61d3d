"""How the embedded engine ends: it does not let go, takes too much memory, dies, or its parent does."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import trio

from llm_queue.errors import (
    EngineDied,
    EngineOutOfMemory,
    EngineStuck,
    ReaderTooSlow,
    UpstreamBroke,
    UpstreamError,
    UpstreamUnreachable,
)
from llm_queue.upstream import transport
from llm_queue.upstream.embedded import Embedded, memory, process
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import ChatRequest, Message, Piece
from tests.upstream.stand_in import STAND_IN, children, model, say, until

# --- an engine that does not let go -----------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time in which an engine must let go, shortened."""
    for module in (transport, process):
        monkeypatch.setattr(module, "SEEN_CLOSED_TIMEOUT", 0.2)
    return 0.2


async def give_up(engine: Embedded, alpha: Model, text: str) -> None:
    """Ask, and cancel when the first piece has come."""
    deltas: list[Piece] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_later, scope)
                await engine.run(alpha, 8192, ChatRequest("x", (Message("user", text),)), deltas.append)

        async def cancel_later(scope: trio.CancelScope) -> None:
            await until(lambda: deltas)
            scope.cancel()

        nursery.start_soon(ask)


@pytest.mark.parametrize("how", ["deaf", "busy", "stuck"])
async def test_an_engine_that_does_not_let_go_is_killed_and_started_again(
    how: str, soon: float, engine: Embedded
) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.RaisesGroup(EngineStuck):
        await give_up(engine, alpha, how)
    assert not children()  # nothing of the old work runs on
    assert await engine.resident() == frozenset()
    with pytest.raises(UpstreamUnreachable, match="did not stop"):  # what the log says of it
        await say(engine, alpha)
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha))[1].finish_reason == "stop"


async def test_an_engine_that_lets_go_is_kept(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    (before,) = children()
    await give_up(engine, alpha, "hang")
    assert children() == [before]


async def test_a_reader_that_is_too_slow_stays_the_reason_whatever_the_engine_does(
    soon: float, engine: Embedded
) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)

    def full(piece: Piece) -> None:
        raise ReaderTooSlow

    with pytest.raises(ReaderTooSlow):
        await engine.run(alpha, 8192, ChatRequest("x", (Message("user", "stuck"),)), full)
    assert not children()


async def test_a_request_that_takes_too_much_memory_ends_the_engine_and_names_the_setting(folder: Path) -> None:
    engine = Embedded(folder, memory=256 * 2**20, command=STAND_IN)
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.raises(EngineOutOfMemory, match=r"more than 256 MiB.*not tried again.*--engine-memory"):
        await say(engine, alpha, "grow")
    assert not children()
    with pytest.raises(UpstreamUnreachable, match="too much memory"):
        await say(engine, alpha)
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha))[1].finish_reason == "stop"
    await engine.aclose()


async def test_an_engine_that_the_system_kills_for_its_memory_is_blamed_on_the_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "OVERHEAD", 128 * 2**20)  # and nothing else, since none is for old prompts
    engine = Embedded(folder, memory=2**40, old_prompts=0, command=STAND_IN)
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    (child,) = children()

    async def system() -> None:
        while child.memory_info().rss < 256 * 2**20:  # noqa: ASYNC110 - another process takes it
            await trio.sleep(0.01)
        await trio.sleep(3 * process.MEMORY_CHECK)
        child.kill()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(system)
        with pytest.raises(EngineOutOfMemory, match="MiB of memory for this request"):
            await say(engine, alpha, "grow")
    await engine.aclose()


# --- death ------------------------------------------------------------------------------------------------------------


async def test_a_process_killed_while_it_answers_is_a_broken_answer_and_can_be_loaded_again(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    failures: list[UpstreamError] = []
    deltas: list[Piece] = []

    async def ask() -> None:
        try:
            await engine.run(alpha, 8192, ChatRequest("x", (Message("user", "hang"),)), deltas.append)
        except UpstreamError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: deltas)
        children()[0].kill()
    assert isinstance(failures[0], UpstreamBroke)
    assert await engine.resident() == frozenset()
    with pytest.raises(UpstreamUnreachable, match="started again"):
        await say(engine, alpha)
    await engine.probe()
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha))[1].finish_reason == "stop"


async def test_a_request_that_ends_the_engine_is_told_so_when_the_process_is_dead(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.raises(EngineDied, match="not tried again"):
        await say(engine, alpha, "die")
    assert await engine.resident() == frozenset()  # else the next would go to a process that takes it and dies


async def test_an_engine_that_answers_an_error_and_crashes_is_blamed_on_the_request(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.raises(EngineDied, match="not tried again") as raised:
        await say(engine, alpha, "fail, and crash: compute error")
    assert not isinstance(raised.value, EngineStuck)
    assert not children()


async def test_an_engine_that_answers_an_error_and_then_says_nothing_broke_its_answer(
    soon: float, engine: Embedded
) -> None:
    """It is killed, and told as what it said: there was an answer, well within the limit, and the next engine may."""
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.raises(UpstreamBroke, match="compute error"):
        await say(engine, alpha, "fail, and stick: compute error")
    assert not children()
    with pytest.raises(UpstreamUnreachable, match="has ended"):
        await say(engine, alpha)
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha))[1].finish_reason == "stop"


async def test_nothing_is_asked_of_a_process_that_serves_something_else(engine: Embedded) -> None:
    alpha = await model(engine)
    with pytest.raises(UpstreamUnreachable):
        await say(engine, alpha)
    await engine.load(alpha, 8192)
    with pytest.raises(UpstreamUnreachable):
        await say(engine, alpha, num_ctx=16384)


async def test_a_cancelled_run_leaves_the_process_to_the_next(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    (before,) = children()
    deltas: list[Piece] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run, alpha, 8192, ChatRequest("x", (Message("user", "hang"),)), deltas.append)
            await until(lambda: deltas)
            scope.cancel()
    assert (await say(engine, alpha))[0] == "Alpha at 8192, -1 tokens: hello"
    assert children() == [before]


PARENT = """
import psutil, sys, trio
from pathlib import Path
from llm_queue.upstream.embedded import Embedded, memory, process

async def main():
    engine = Embedded(Path(sys.argv[1]), command=sys.argv[2:])
    await engine.load((await engine.models())[0], 8192)
    print(psutil.Process().children()[0].pid, flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


async def test_a_parent_that_is_killed_leaves_no_process_behind(folder: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(folder), *STAND_IN]
    async with trio.open_nursery() as nursery:
        parent = await nursery.start(lambda task_status: _run(command, task_status))
        assert parent.stdout is not None
        child = psutil.Process(int(await parent.stdout.receive_some()))
        assert child.is_running()
        os.kill(parent.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def _run(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(command, stdout=-1)
    task_status.started(process)
    await process.wait()
    assert process.stdout is not None
    await process.stdout.aclose()
