"""The prompts that the embedded engine keeps over a change of process, with a stand-in for what runs in it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import EventDict

from llm_queue.errors import LoadFailed
from llm_queue.upstream import transport
from llm_queue.upstream.embedded import Embedded, kept
from llm_queue.upstream.embedded.kept import KeptPrompts
from llm_queue.upstream.embedded.private import PrivateFolder
from llm_queue.upstream.embedded.process import EngineProcess
from llm_queue.upstream.embedded.server import LlamaServer, SlotWritten
from llm_queue.wire.shapes import ChatRequest, LoadRequest, Message, Piece
from tests.upstream.gguf_file import ARCHITECTURE, entry, gguf
from tests.upstream.stand_in import STAND_IN, children, model, say, until

AMPLE = 2**20


class Swapping:
    """An engine that keeps prompts in a folder in ``place``, and how its models are used."""

    def __init__(self, models: Path, place: Path, size: int = AMPLE) -> None:
        self.place = place
        self.engine = Embedded(models, prompts=KeptPrompts(size, PrivateFolder(place)), command=STAND_IN)

    async def load(self, name: str, num_ctx: int = 8192) -> None:
        await self.engine.load(await model(self.engine, name), num_ctx)

    async def ask(self, text: str, name: str, num_ctx: int = 8192) -> str:
        return (await say(self.engine, await model(self.engine, name), text, num_ctx))[0]

    async def use(self, name: str, text: str, num_ctx: int = 8192) -> None:
        """Load a model and have a prompt computed."""
        await self.load(name, num_ctx)
        await self.ask(text, name, num_ctx)

    async def recall(self, name: str, num_ctx: int = 8192) -> str:
        """Load a model, and what is in its slot then; ``" (0)"`` is nothing."""
        await self.load(name, num_ctx)
        return await self.ask("remember", name, num_ctx)

    @property
    def folder(self) -> Path:
        (folder,) = self.place.iterdir()
        return folder

    def files(self) -> list[Path]:
        return sorted(file for file in self.folder.iterdir() if file.name != "lock")


@pytest.fixture
async def swapping(folder: Path, tmp_path: Path) -> AsyncIterator[Swapping]:
    swapping = Swapping(folder, tmp_path / "place")
    yield swapping
    await swapping.engine.aclose()
    assert not children()
    assert not swapping.place.exists() or not list(swapping.place.iterdir())


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as events:
        yield events


COLD = " (0)"


# --- over a swap ------------------------------------------------------------------------------------------------------


async def test_a_prompt_is_there_again_after_a_swap_and_back(swapping: Swapping, logged: list[EventDict]) -> None:
    await swapping.use("Alpha", "one two three")
    await swapping.use("beta", "four")
    assert await swapping.recall("Alpha") == "one two three (1)"
    assert await swapping.recall("beta") == "four (1)"
    assert not logged


async def test_a_prompt_is_there_again_at_another_context_size(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two three")
    assert await swapping.recall("Alpha", 16384) == "one two three (1)"


async def test_a_prompt_that_does_not_fit_the_context_waits_for_one_that_it_fits(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two three")
    assert await swapping.recall("Alpha", 2) == COLD
    assert await swapping.recall("Alpha") == "one two three (1)"


async def test_a_process_that_computed_nothing_leaves_what_was_kept(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two three")
    for name in ("beta", "Alpha", "beta"):
        await swapping.load(name)
    assert len(swapping.files()) == 1
    assert await swapping.recall("Alpha") == "one two three (1)"  # and was not written again


async def test_each_model_has_its_last_prompt_alone(swapping: Swapping) -> None:
    for text in ("one", "two"):
        await swapping.use("Alpha", text)
        await swapping.use("beta", text)
    await swapping.load("Alpha")
    assert len(swapping.files()) == 2
    assert await swapping.ask("remember", "Alpha") == "two (1)"


async def test_a_prompt_is_there_again_after_its_model_was_unloaded(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two")
    await swapping.engine.run(await model(swapping.engine), 8192, LoadRequest("x", unload=True), lambda piece: None)
    assert not children()
    assert [file.name for file in swapping.files()] == ["0.prompt"]
    assert await swapping.recall("Alpha") == "one two (1)"


async def test_a_model_whose_file_was_replaced_starts_cold(swapping: Swapping, folder: Path) -> None:
    await swapping.use("Alpha", "one two")
    await swapping.load("beta")
    (folder / "Alpha.gguf").write_bytes(b"other")
    assert await swapping.recall("Alpha") == COLD
    assert not swapping.files()


async def test_a_file_replaced_while_its_process_starts_gets_no_prompt_of_the_old_one(
    swapping: Swapping, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await swapping.use("Alpha", "one two")
    await swapping.load("beta")
    start = kept.KeptPrompts.find

    async def find(prompts: KeptPrompts, weights: kept.Weights, num_ctx: int) -> kept.Kept | None:
        found = await start(prompts, weights, num_ctx)
        (folder / "Alpha.gguf").write_bytes(b"other")
        return found

    monkeypatch.setattr(kept.KeptPrompts, "find", find)
    alpha = await model(swapping.engine)
    await swapping.engine.load(alpha, 8192)
    assert (await say(swapping.engine, alpha, "remember"))[0] == COLD


async def test_without_the_setting_the_process_gets_no_folder_and_nothing_is_kept(engine: Embedded) -> None:
    for name, text in (("Alpha", "one two"), ("beta", "three")):
        await engine.load(await model(engine, name), 8192)
        await say(engine, await model(engine, name), text)
    assert len(children()[0].cmdline()) == len(STAND_IN) + 5
    await engine.load(await model(engine), 8192)
    assert (await say(engine, await model(engine), "remember"))[0] == COLD


# --- the files --------------------------------------------------------------------------------------------------------


async def test_nobody_else_may_enter_the_folder(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two")
    assert stat.S_IMODE(swapping.folder.stat().st_mode) == 0o700


async def test_what_is_kept_is_bounded_and_the_oldest_goes_first(folder: Path, tmp_path: Path) -> None:
    room_for_two = 160
    for name in ("gamma", "delta"):
        (folder / f"{name}.gguf").write_bytes(b"")
    swapping = Swapping(folder, tmp_path / "place", room_for_two)
    for name in ("Alpha", "beta", "gamma"):
        await swapping.use(name, f"one two three {name}")
    await swapping.load("delta")
    assert len(swapping.files()) == 2
    assert sum(file.stat().st_size for file in swapping.files()) <= room_for_two
    assert await swapping.recall("gamma") == "one two three gamma (1)"
    assert await swapping.recall("beta") == "one two three beta (1)"
    assert await swapping.recall("Alpha") == COLD
    await swapping.engine.aclose()


async def test_a_file_that_turned_out_too_large_is_deleted_and_the_next_one_is_not_written(
    folder: Path, tmp_path: Path, logged: list[EventDict]
) -> None:
    swapping = Swapping(folder, tmp_path / "place", 100)
    await swapping.use("Alpha", "long " * 20)
    await swapping.use("beta", "short")
    assert not swapping.files()
    assert not logged  # its size was not known before
    await swapping.use("Alpha", "long " * 21)
    await swapping.load("beta")
    assert [file.name for file in swapping.files()] == ["0.prompt"]  # beta's
    assert [event["reason"] for event in logged] == ["it is larger than --keep-prompts allows"]
    await swapping.engine.aclose()


async def test_what_is_known_to_be_too_large_is_not_written_and_what_was_kept_before_stays(
    folder: Path, tmp_path: Path
) -> None:
    layers = entry("llama.block_count", 4, (10).to_bytes(4, "little"))
    heads = entry("llama.attention.head_count", 4, (1).to_bytes(4, "little"))
    width = entry("llama.embedding_length", 4, (1).to_bytes(4, "little"))
    (folder / "Alpha.gguf").write_bytes(gguf(ARCHITECTURE, layers, heads, width))  # 40 bytes a token
    swapping = Swapping(folder, tmp_path / "place", 120)
    await swapping.use("Alpha", "one two")
    await swapping.use("beta", "short")
    await swapping.use("Alpha", "one two three four five six seven eight nine ten eleven")
    await swapping.load("beta")
    assert await swapping.recall("Alpha") == "one two (1)"
    await swapping.engine.aclose()


@pytest.mark.parametrize("text", ["unwritable", "boastful"])
async def test_what_was_not_written_whole_is_not_kept(text: str, swapping: Swapping) -> None:
    await swapping.use("Alpha", text)
    await swapping.load("beta")
    assert not swapping.files()
    assert await swapping.recall("Alpha") == COLD


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 5)


def flip(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"two", b"six"))


def remove(file: Path) -> None:
    file.unlink()


def swap_for_another(file: Path) -> None:
    file.with_name("1.prompt").replace(file)


def link(file: Path) -> None:
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


@pytest.mark.parametrize("tamper", [cut, flip, remove, swap_for_another, link])
async def test_a_file_that_is_not_as_it_was_written_is_never_read(
    tamper: Callable[[Path], None], swapping: Swapping, logged: list[EventDict]
) -> None:
    await swapping.use("Alpha", "one two")
    await swapping.use("beta", "ten six")
    await swapping.load("beta", 4096)
    first = swapping.folder / "0.prompt"
    tamper(first)
    assert await swapping.recall("Alpha") == COLD
    assert [event["reason"] for event in logged] == ["its file is gone or was changed"]
    if tamper is link:
        first.with_name("moved").unlink()
        first.unlink(missing_ok=True)


# --- when it goes wrong -----------------------------------------------------------------------------------------------


async def test_a_process_that_dies_of_a_prompt_is_started_again_without_it(
    swapping: Swapping, logged: list[EventDict]
) -> None:
    await swapping.use("Alpha", "poison")
    await swapping.load("beta")
    assert await swapping.recall("Alpha") == COLD
    assert not swapping.files()
    assert [event["reason"] for event in logged] == ["the engine failed at it, and is started again"]


async def test_a_prompt_that_the_engine_refuses_is_computed_anew_in_the_same_process(
    swapping: Swapping, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    starts = []
    start = EngineProcess.start

    async def counted(command: Sequence[str], **options: Any) -> EngineProcess:
        starts.append(command)
        return await start(command, **options)

    monkeypatch.setattr(EngineProcess, "start", counted)
    await swapping.use("Alpha", "unwelcome")
    await swapping.load("beta")
    assert await swapping.recall("Alpha") == COLD
    assert len(starts) == 3
    assert not swapping.files()
    assert not logged


async def test_a_restore_that_takes_too_long_is_given_up_with_its_process(
    swapping: Swapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "RESTORE_TIMEOUT", 0.1)
    monkeypatch.setattr(transport, "SEEN_CLOSED_TIMEOUT", 0.1)
    await swapping.use("Alpha", "slow to restore")
    await swapping.load("beta")
    assert await swapping.recall("Alpha") == COLD
    assert not swapping.files()


async def test_a_save_that_takes_too_long_is_given_up_and_not_tried_again(
    swapping: Swapping, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(kept, "SAVE_TIMEOUT", 0.1)
    monkeypatch.setattr(transport, "SEEN_CLOSED_TIMEOUT", 0.1)
    await swapping.use("Alpha", "slow to save")
    await swapping.load("beta")
    monkeypatch.setattr(kept, "SAVE_TIMEOUT", 600)
    assert await swapping.recall("Alpha") == COLD
    await swapping.use("Alpha", "slow to save, and longer")
    await swapping.load("beta")  # at once
    await swapping.use("Alpha", "shorter")
    await swapping.load("beta")
    assert await swapping.recall("Alpha") == "shorter (1)"
    assert [event["reason"] for event in logged] == ["to write it takes too long"]


async def test_a_slot_that_is_at_work_is_not_saved(swapping: Swapping, monkeypatch: pytest.MonkeyPatch) -> None:
    async def let_go(process: EngineProcess) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    monkeypatch.setattr(EngineProcess, "let_go", let_go)  # else it would be killed
    await swapping.load("Alpha")
    alpha = await model(swapping.engine)
    pieces: list[Piece] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            swapping.engine.run, alpha, 8192, ChatRequest("x", (Message("user", "busy"),)), pieces.append
        )
        await until(lambda: pieces)
        nursery.cancel_scope.cancel()
    await swapping.load("beta")
    assert not swapping.files()


async def test_an_engine_that_was_killed_is_started_again_with_what_was_kept_before(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two")
    await swapping.load("Alpha")
    children()[0].kill()
    await until(lambda: not children())
    assert await swapping.recall("Alpha") == "one two (1)"


async def test_without_a_place_for_files_everything_goes_on_and_the_log_says_so_once(
    folder: Path, tmp_path: Path, logged: list[EventDict]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    swapping = Swapping(folder, tmp_path / "file")
    for name in ("Alpha", "beta"):
        await swapping.use(name, "one two")
    assert await swapping.recall("Alpha") == COLD
    assert [event["reason"] for event in logged] == ["there is no place for it"]
    await swapping.engine.aclose()


async def test_a_folder_that_was_taken_away_is_made_anew(swapping: Swapping, logged: list[EventDict]) -> None:
    await swapping.use("Alpha", "one two")
    shutil.rmtree(swapping.folder)
    await swapping.use("beta", "three")
    assert await swapping.recall("Alpha") == COLD
    assert await swapping.recall("beta") == "three (1)"
    assert [event["reason"] for event in logged] == ["it cannot be written: is there room?"]


async def test_a_cancelled_load_leaves_neither_a_process_nor_a_half_written_file(
    swapping: Swapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "SEEN_CLOSED_TIMEOUT", 0.1)
    await swapping.use("Alpha", "slow to save")
    beta = await model(swapping.engine, "beta")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swapping.engine.load, beta, 8192)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert not children()
    await swapping.load("beta")
    assert not swapping.files()


async def test_a_load_that_fails_says_so_as_ever_and_keeps_the_prompt(swapping: Swapping) -> None:
    await swapping.use("Alpha", "one two")
    with pytest.raises(LoadFailed, match=r"failed to load model from dies\.gguf"):
        await swapping.load("dies")
    assert await swapping.recall("Alpha") == "one two (1)"


# --- the bound --------------------------------------------------------------------------------------------------------


class Writer(LlamaServer):
    """A server whose slot has as many bytes as tokens."""

    def __init__(self, folder: PrivateFolder) -> None:
        super().__init__("http://127.0.0.1:0", name="")
        self.tokens = 0
        self.before = 0
        self._folder = folder

    async def tokens_in_slot(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.tokens

    def total(self) -> int:
        return sum(file.stat().st_size for file in self._folder.path.iterdir())

    async def save_slot(self, file: str) -> SlotWritten:
        await trio.lowlevel.checkpoint()
        self.before = self.total()
        (self._folder.path / file).write_bytes(bytes(self.tokens))
        return SlotWritten(self.tokens, self.tokens)


@given(size=st.integers(1, 300), saves=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 200)), max_size=12))
def test_however_prompts_come_they_stay_within_the_bound_and_the_latest_that_fit_are_there(
    size: int, saves: list[tuple[int, int]]
) -> None:
    async def play(scratch: Path) -> None:
        folder = PrivateFolder(scratch / "place")
        prompts, server = KeptPrompts(size, folder), Writer(folder)
        latest: dict[Path, int] = {}
        measured: set[Path] = set()
        for number, tokens in saves:
            model = scratch / str(number)
            if model not in measured:
                model.touch()  # anew, its weights would be others
            await prompts.folder()
            server.tokens, server.before = tokens, 0
            known = model in measured
            measured.add(model)
            await prompts.save(server, await trio.to_thread.run_sync(kept.Weights.of, model))
            assert not known or not server.before or server.before + tokens <= size  # also while it is written
            await prompts.settle()
            if tokens <= size:
                latest.pop(model, None)
                latest[model] = tokens
                while sum(latest.values()) > size:
                    latest.pop(next(iter(latest)))
            assert server.total() <= size
        for model, tokens in latest.items():
            found = await prompts.find(await trio.to_thread.run_sync(kept.Weights.of, model), 8192)
            assert found is not None
            assert found.saved.tokens == tokens
        await prompts.aclose()
        assert not list((scratch / "place").iterdir()) if saves else True

    with tempfile.TemporaryDirectory() as scratch:
        trio.run(play, Path(scratch))
