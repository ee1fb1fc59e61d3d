"""The embedded engine's process: started, asked, killed and started again, with a stand-in for what runs in it."""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import LoadFailed, UpstreamBroke, UpstreamError, UpstreamUnreachable
from llm_queue.upstream.embedded import Embedded
from llm_queue.upstream.embedded.gguf import trained_context
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message, Piece

STAND_IN = (sys.executable, "-P", str(Path(__file__).with_name("engine_child.py")))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("beta", "Alpha", "dies", "garbled", "mute", "no-libgomp", "silent"):
        (tmp_path / f"{name}.gguf").write_bytes(b"")
    return tmp_path


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[Embedded]:
    engine = Embedded(folder, command=STAND_IN)
    yield engine
    await engine.aclose()
    assert not children()


async def model(engine: Embedded, name: str = "Alpha") -> Model:
    return next(model for model in await engine.models() if model.name == name)


async def say(engine: Embedded, model: Model, text: str = "hello", num_ctx: int = 8192) -> tuple[str, Completion]:
    pieces: list[Piece] = []
    completion = await engine.run(model, num_ctx, ChatRequest("x", (Message("user", text),)), pieces.append)
    return "".join(piece.content for piece in pieces if isinstance(piece, Delta)), completion


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


# --- models -----------------------------------------------------------------------------------------------------------


async def test_each_file_is_a_model_by_its_name(engine: Embedded, folder: Path) -> None:
    (folder / "mmproj-Alpha.gguf").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    (folder / "parts-00001-of-00002.gguf").write_bytes(b"")
    (folder / "parts-00002-of-00002.gguf").write_bytes(b"")
    names = [model.name for model in await engine.models()]
    assert names == ["Alpha", "beta", "dies", "garbled", "mute", "no-libgomp", "parts", "silent"]
    assert engine.default_model == "Alpha"


async def test_a_single_file_is_one_model_whatever_lies_beside_it(folder: Path) -> None:
    engine = Embedded(folder / "beta.gguf", command=STAND_IN)
    assert [model.name for model in await engine.models()] == ["beta"]
    assert engine.default_model == "beta"


async def test_a_file_that_was_replaced_is_another_model_of_the_same_name(engine: Embedded, folder: Path) -> None:
    before = await model(engine)
    (folder / "Alpha.gguf").write_bytes(b"other")
    after = await model(engine)
    assert after.name == before.name
    assert after.identity != before.identity


def gguf(*entries: bytes, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, 0, len(entries)) + b"".join(entries)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = entry("general.architecture", 8, text("llama"))
CONTEXT = entry("llama.context_length", 4, struct.pack("<I", 2048))
OTHERS = (
    entry("general.name", 8, text("x" * 100_000)),
    entry("a.flag", 7, b"\x01"),
    entry("a.number", 12, struct.pack("<d", 1.5)),
    entry("a.tokens", 9, struct.pack("<IQ", 8, 2) + text("one") + text("two")),
    entry("a.nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 5, 3) + bytes(12)),
)


@pytest.mark.parametrize(
    ("content", "trained"),
    [
        (gguf(ARCHITECTURE, CONTEXT), 2048),
        (gguf(*OTHERS, CONTEXT, ARCHITECTURE, version=2), 2048),
        (gguf(ARCHITECTURE, *OTHERS, entry("llama.context_length", 10, struct.pack("<Q", 131072))), 131072),
        (gguf(ARCHITECTURE, *OTHERS), None),
        (gguf(ARCHITECTURE, entry("clip.context_length", 4, bytes(4))), None),
        (gguf(ARCHITECTURE, CONTEXT, version=1), None),
        (gguf(ARCHITECTURE, CONTEXT)[:-1], None),
        (gguf(entry("x", 99, b"")), None),
        (gguf(struct.pack("<Q", 2**60)), None),
        (b"", None),
        (b"GGML" + bytes(100), None),
    ],
)
def test_the_trained_context_stands_in_the_file(content: bytes, trained: int | None, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert trained_context(file) == trained


async def test_a_model_is_described_by_its_file(engine: Embedded, folder: Path) -> None:
    (folder / "Alpha.gguf").write_bytes(gguf(ARCHITECTURE, CONTEXT))
    assert (await engine.describe(await model(engine))).trained == 2048
    assert (await engine.describe(Model("gone", "gone"))).trained is None


# --- loads ------------------------------------------------------------------------------------------------------------


async def test_a_load_is_a_process_and_another_load_is_another(engine: Embedded) -> None:
    alpha, beta = await model(engine), await model(engine, "beta")
    assert await engine.resident() == frozenset()
    pids = []
    for wanted, num_ctx in [(alpha, 8192), (alpha, 16384), (beta, 8192)]:
        await engine.load(wanted, num_ctx)
        assert await engine.resident() == {RunnerKey(wanted.identity, num_ctx)}
        assert (await say(engine, wanted, "hi", num_ctx))[0] == f"{wanted.name} at {num_ctx}: hi"
        (child,) = children()
        pids.append(child.pid)
    assert len(set(pids)) == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dies", "could not load dies with num_ctx 8192: E llama: failed to load model"),
        ("no-libgomp", "apt install libgomp1"),
        ("silent", "code 3"),
        ("garbled", "something else"),
    ],
)
async def test_a_load_that_fails_says_why_and_leaves_nothing(name: str, said: str, engine: Embedded) -> None:
    await engine.load(await model(engine), 8192)
    with pytest.raises(LoadFailed, match=said):
        await engine.load(await model(engine, name), 8192)
    assert await engine.resident() == frozenset()
    assert not children()
    await engine.load(await model(engine), 8192)


async def test_a_model_whose_file_is_not_known_fails_to_load(engine: Embedded) -> None:
    with pytest.raises(LoadFailed, match="gone"):
        await engine.load(Model("gone", "gone"), 8192)


async def test_a_program_that_is_not_there_fails_to_load(folder: Path) -> None:
    engine = Embedded(folder, command=[str(folder / "no-such-program")])
    with pytest.raises(LoadFailed, match="could not be started"):
        await engine.load(await model(engine), 8192)


async def test_a_cancelled_load_leaves_no_process(engine: Embedded) -> None:
    mute = await model(engine, "mute")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.load, mute, 8192)
            await until(children)
            scope.cancel()
    assert scope.cancelled_caught
    assert not children()
    assert await engine.resident() == frozenset()


# --- death ------------------------------------------------------------------------------------------------------------


async def test_a_process_killed_while_it_answers_is_a_broken_answer_and_can_be_loaded_again(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    failures: list[UpstreamError] = []
    pieces: list[Piece] = []

    async def ask() -> None:
        try:
            await engine.run(alpha, 8192, ChatRequest("x", (Message("user", "hang"),)), pieces.append)
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


async def test_a_broken_answer_is_told_only_when_the_dying_process_is_dead(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.raises(UpstreamBroke):
        await say(engine, alpha, "die")
    assert await engine.resident() == frozenset()  # else the retry would go to a process that takes it and dies


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
    pieces: list[Piece] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run, alpha, 8192, ChatRequest("x", (Message("user", "hang"),)), pieces.append)
            await until(lambda: deltas)
            scope.cancel()
    assert (await say(engine, alpha))[0] == "Alpha at 8192: hello"
    assert children() == [before]


PARENT = """
import psutil, sys, trio
from pathlib import Path
from llm_queue.upstream.embedded import Embedded

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


def test_it_is_an_upstream(folder: Path) -> None:
    upstream: Upstream = Embedded(folder)
    assert (upstream.name, upstream.url, upstream.chooses_context) == ("llama.cpp", str(folder), True)
