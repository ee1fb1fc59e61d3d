"""The embedded engine's process: started, asked, killed and started again, with a stand-in for what runs in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    LoadFailed,
    ModelNotFound,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.embedded import Embedded
from llm_queue.upstream.embedded.process import without_folders
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import ChatRequest, Message
from tests.upstream.gguf_file import ARCHITECTURE, CONTEXT, gguf
from tests.upstream.stand_in import STAND_IN, children, model, say, until


async def test_the_process_counts_a_prompt_for_the_model_that_it_serves(engine: Embedded) -> None:
    asked = ChatRequest("x", (Message("user", "one two"), Message("assistant", "three")))
    alpha, beta = await model(engine), await model(engine, "beta")
    assert await engine.count_tokens(alpha, asked) is None  # nothing is loaded yet
    await engine.load(alpha, 8192)
    assert await engine.count_tokens(alpha, asked) == 3
    assert await engine.count_tokens(beta, asked) is None


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


async def test_old_prompts_are_kept_in_as_much_memory_as_the_setting_says(folder: Path) -> None:
    engine = Embedded(folder, old_prompts=75 * 2**20, command=STAND_IN)
    alpha = await model(engine)
    await engine.load(alpha, 8192)
    assert (await say(engine, alpha, "old prompts"))[0].endswith(": 75 MiB")
    await engine.aclose()


async def test_a_load_that_takes_too_much_memory_is_ended_and_names_the_setting(folder: Path) -> None:
    engine = Embedded(folder, memory=256 * 2**20, command=STAND_IN)
    with pytest.raises(LoadFailed, match="more than 256 MiB of memory: --engine-memory"):
        await engine.load(await model(engine, "huge"), 8192)
    assert not children()


@given(
    folders=st.lists(st.text("abc .-_é()", min_size=1, max_size=8), min_size=1, max_size=4),
    other=st.lists(st.text("abc.-_é", min_size=1, max_size=8), min_size=1, max_size=4),
)
def test_a_path_is_cut_to_the_name_of_its_file(folders: list[str], other: list[str]) -> None:
    folder, lib, quoted = "/" + "/".join(folders), "/" + "/".join(other), "/" + "/".join(folders[::-1])
    said = without_folders(f"E {folder}/m.gguf: no\nE in {lib}/x.so (at '{quoted}/y.so'), see http://a/b", folder)
    assert said == "E m.gguf: no\nE in x.so (at 'y.so'), see http://a/b"


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


def test_it_is_an_upstream(folder: Path) -> None:
    upstream: Upstream = Embedded(folder)
    assert (upstream.name, upstream.url, upstream.chooses_context) == ("llama.cpp", folder.name, True)
