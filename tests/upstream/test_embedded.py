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
from llm_queue.errors import (
    EngineDied,
    EngineOutOfMemory,
    EngineStuck,
    LoadFailed,
    ModelNotFound,
    ReaderTooSlow,
    UpstreamBroke,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.upstream import transport
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.embedded import Embedded, memory, process
from llm_queue.upstream.embedded.gguf import read_header
from llm_queue.upstream.embedded.memory import BOUND, OVERHEAD, Budget
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message

STAND_IN = (sys.executable, "-P", str(Path(__file__).with_name("engine_child.py")))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("beta", "Alpha", "dies", "garbled", "huge", "mute", "no-libgomp", "silent"):
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
    deltas: list[Delta] = []
    completion = await engine.run(model, num_ctx, ChatRequest("x", (Message("user", text),)), deltas.append)
    return "".join(delta.content for delta in deltas), completion


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
    assert names == ["Alpha", "beta", "dies", "garbled", "huge", "mute", "no-libgomp", "parts", "silent"]
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
    assert read_header(file).trained == trained


LLAMA = (
    ARCHITECTURE,
    CONTEXT,
    entry("llama.block_count", 4, struct.pack("<I", 30)),
    entry("llama.embedding_length", 4, struct.pack("<I", 576)),
    entry("llama.attention.head_count", 4, struct.pack("<I", 9)),
)
THREE_KV_HEADS = entry("llama.attention.head_count_kv", 4, struct.pack("<I", 3))
KV_HEADS_BY_LAYER = entry("llama.attention.head_count_kv", 9, struct.pack("<IQ3i", 5, 3, 4, 0, 2))
LENGTHS = (
    entry("llama.attention.key_length", 4, struct.pack("<I", 128)),
    entry("llama.attention.value_length", 10, struct.pack("<Q", 64)),
)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (gguf(*LLAMA, THREE_KV_HEADS), 2 * 30 * 3 * (64 + 64)),
        (gguf(*LLAMA), 2 * 30 * 9 * (64 + 64)),
        (gguf(*LLAMA, *LENGTHS, THREE_KV_HEADS), 2 * 30 * 3 * (128 + 64)),
        (gguf(*LLAMA, *LENGTHS, KV_HEADS_BY_LAYER), 2 * (4 + 0 + 2) * (128 + 64)),
        (gguf(*reversed(LLAMA), THREE_KV_HEADS), 2 * 30 * 3 * (64 + 64)),
        (gguf(ARCHITECTURE, CONTEXT), 0),
        (gguf(*LLAMA, entry("llama.attention.head_count_kv", 4, struct.pack("<I", 0))), 0),
        (gguf(*LLAMA, entry("llama.attention.head_count_kv", 9, struct.pack("<IQ", 8, 1) + text("x"))), 69120),
        (gguf(*LLAMA, THREE_KV_HEADS, entry("tokenizer.ggml.model", 8, text("gpt2")), *LENGTHS), 23040),
        (b"", 0),
    ],
)
def test_the_size_of_the_cache_follows_from_the_file(content: bytes, size: int, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert read_header(file).cache_per_token == size


def test_a_process_may_take_what_its_model_needs_and_a_bound(tmp_path: Path) -> None:
    content = gguf(*LLAMA, THREE_KV_HEADS)
    for name in ("one", "parts-00001-of-00002", "parts-00002-of-00002", "parts-00001-of-00003"):
        (tmp_path / f"{name}.gguf").write_bytes(content)
    rest = OVERHEAD + 4096 * 2 * 30 * 3 * (64 + 64)
    one = Budget.of(tmp_path / "one.gguf", 4096, None)
    assert one == Budget(2 * len(content) + rest, 2 * len(content) + rest + BOUND)
    assert Budget.of(tmp_path / "parts-00001-of-00002.gguf", 4096, None).needed == 4 * len(content) + rest
    assert Budget.of(tmp_path / "one.gguf", 4096, 2**30) == Budget(one.needed, 2**30)


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
        assert (await say(engine, wanted, "hi", num_ctx))[0] == f"{wanted.name} at {num_ctx}, -1 tokens: hi"
        (child,) = children()
        pids.append(child.pid)
    assert len(set(pids)) == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dies", "could not load dies with num_ctx 8192: E llama: failed to load model from dies.gguf"),
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


async def test_an_answer_has_the_limit_of_the_engine_unless_the_request_has_its_own(folder: Path) -> None:
    engine = Embedded(folder, answer_tokens=512, command=STAND_IN)
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha))[0] == "Alpha at 8192, 512 tokens: hello"  # what the process makes of it: e2e
    await engine.aclose()


async def test_a_load_that_takes_too_much_memory_is_ended_and_names_the_setting(folder: Path) -> None:
    engine = Embedded(folder, memory=256 * 2**20, command=STAND_IN)
    with pytest.raises(LoadFailed, match="more than 256 MiB of memory: --engine-memory"):
        await engine.load(await model(engine, "huge"), 8192)
    assert not children()


@pytest.mark.parametrize("name", ["dies", "no-libgomp", "silent", "garbled", "gone", "missing program"])
async def test_no_caller_is_told_where_the_file_is(name: str, folder: Path) -> None:
    command = [str(folder / "no-such-program")] if name == "missing program" else STAND_IN
    engine = Embedded(folder, command=command)
    if name in ("gone", "missing program"):
        (folder / f"{name}.gguf").write_bytes(b"")
    wanted = await model(engine, name)
    if name == "gone":
        (folder / "gone.gguf").unlink()
    with pytest.raises(LoadFailed) as raised:
        await engine.load(wanted, 8192)
    with pytest.raises(UpstreamUnreachable) as later:
        await say(engine, wanted)
    with pytest.raises(ModelNotFound) as unknown:
        await Catalog(engine).resolve("nope")
    told = [error.value.message for error in (raised, later, unknown)] + [engine.url, engine.more_models]
    assert not [one for one in told if "/" in one or "\\" in one]
    assert name in told[0]


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


# --- requests that it cannot take -------------------------------------------------------------------------------------


async def test_a_picture_is_refused_and_blamed_on_the_request(engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    request = ChatRequest("x", (Message("user", "what is this?", images=("iVBORw0KGgo=",)),))
    with pytest.raises(UpstreamRefused, match="Alpha does not support images") as raised:
        await engine.run(alpha, 8192, request, lambda delta: None)
    assert raised.value.http_status == 400


@pytest.mark.parametrize(
    "text",
    [
        "fail: image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "Failed to parse tools: Missing tool type: {}",
        "Failed to parse messages: Missing 'role' in message: {}",
        "Context size has been exceeded. (fail)",
        "fail: Conversation roles must alternate user/assistant/user/assistant/...",
    ],
)
async def test_a_status_500_about_the_request_is_a_400(text: str, engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    with pytest.raises(UpstreamRefused) as raised:
        await say(engine, alpha, text.replace("Failed", "fail, Failed"))
    assert raised.value.http_status == 400
    assert text[:20].replace("Failed", "fail, Failed")[:20] in raised.value.message


@pytest.mark.parametrize(
    "text", ["Compute error.", "Unexpected empty grammar stack after accepting piece", "std::bad_alloc"]
)
async def test_a_status_500_about_the_engine_is_a_broken_answer(text: str, engine: Embedded) -> None:
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    (before,) = children()
    with pytest.raises(UpstreamBroke):
        await say(engine, alpha, f"fail: {text}")
    assert children() == [before]  # it said that it works on nothing


# --- an engine that does not let go -----------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time in which an engine must let go, shortened."""
    for module in (transport, process):
        monkeypatch.setattr(module, "SEEN_CLOSED_TIMEOUT", 0.2)
    return 0.2


async def give_up(engine: Embedded, alpha: Model, text: str) -> None:
    """Ask, and cancel when the first piece has come."""
    deltas: list[Delta] = []
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
    with pytest.raises(UpstreamUnreachable, match="started again"):
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

    def full(delta: Delta) -> None:
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
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha))[1].finish_reason == "stop"
    await engine.aclose()


async def test_an_engine_that_the_system_kills_for_its_memory_is_blamed_on_the_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "OVERHEAD", 128 * 2**20)
    engine = Embedded(folder, memory=2**40, command=STAND_IN)
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
    deltas: list[Delta] = []

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
    deltas: list[Delta] = []
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


def test_it_is_an_upstream(folder: Path) -> None:
    upstream: Upstream = Embedded(folder)
    assert (upstream.name, upstream.url, upstream.chooses_context) == ("llama.cpp", folder.name, True)
