"""The scripted upstream does what its script says, and sees what a line does wrong."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    LoadFailed,
    ReaderTooSlow,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.testing import Break, Busy, Garble, Hang, LoadRecord, Refuse, RunRecord, Say, ScriptedUpstream, Stall
from llm_queue.testing.prompt_cache import PromptCache
from llm_queue.testing.scripted import prompt_of, scripted_model
from llm_queue.testing.scripts import Script
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message, Piece

A, B = scripted_model("a"), scripted_model("b", trained=4096)
ASK = ChatRequest("a", (Message("user", "hello"),))


@pytest.fixture
def upstream() -> ScriptedUpstream:
    return ScriptedUpstream(known=[A, B], load_seconds=2.0)


async def run(upstream: Upstream, model: Model = A, num_ctx: int = 8192) -> tuple[list[str], Completion]:
    said: list[Piece] = []
    completion = await upstream.run(model, num_ctx, ASK, said.append)
    return [piece.content for piece in said if isinstance(piece, Delta)], completion


async def test_it_says_the_text_in_its_time(upstream: ScriptedUpstream, autojump_clock: trio.testing.MockClock) -> None:
    upstream.resident_keys = [RunnerKey(A.identity, 8192)]
    upstream.then(Say("one two three", tokens=3, seconds_per_token=1, first_after=5, finish_reason="length"))
    said, completion = await run(upstream)
    assert "".join(said) == "one two three"
    assert completion == Completion("length", 1, 3, 0.0)
    assert trio.current_time() == pytest.approx(8)
    assert "".join((await run(upstream))[0]) == "hello"  # then the default


@pytest.mark.parametrize(
    ("text", "tokens", "pieces"),
    [("ab", 4, 4), ("a b c", None, 3), ("", None, 0), ("", 2, 2), (" \n", None, 1), ("abcdef", 1, 1)],
)
def test_pieces_are_as_many_as_wanted_and_join_to_the_text(text: str, tokens: int | None, pieces: int) -> None:
    assert len(Say(text, tokens=tokens).pieces()) == pieces
    assert "".join(Say(text, tokens=tokens).pieces()) == text


@pytest.mark.parametrize(
    ("script", "error", "emitted"),
    [
        (Refuse(404, "no"), UpstreamRefused, 0),
        (Break(3, "died"), UpstreamBroke, 3),
        (Garble(), UpstreamBroke, 0),
        (Busy(), UpstreamBusy, 0),
    ],
)
async def test_it_fails_as_the_script_says(
    script: Script, error: type[UpstreamError], emitted: int, upstream: ScriptedUpstream, autojump_clock: object
) -> None:
    upstream.then(script)
    with pytest.raises(error):
        await run(upstream)
    assert [(record.outcome, record.emitted) for record in upstream.runs] == [(error.code, emitted)]


@pytest.mark.parametrize(("script", "emitted"), [(Hang(), 0), (Stall(2), 2)])
async def test_a_run_that_is_given_up_is_in_flight_until_it_is_seen_closed(
    script: Script, emitted: int, upstream: ScriptedUpstream, autojump_clock: trio.testing.MockClock
) -> None:
    upstream.resident_keys = [RunnerKey(A.identity, 8192)]
    upstream.close_seconds = 0.5
    upstream.then(script)
    with trio.move_on_after(10):
        await run(upstream)
    assert trio.current_time() == pytest.approx(10.5)
    (record,) = upstream.runs
    assert (record.outcome, record.emitted) == ("cancelled", emitted)
    assert record.end == pytest.approx(10.5)


async def test_an_exception_of_the_reader_is_a_cancellation(upstream: ScriptedUpstream, autojump_clock: object) -> None:
    def refuse(piece: Piece) -> None:
        raise ReaderTooSlow

    with pytest.raises(ReaderTooSlow):
        await upstream.run(A, 8192, ASK, refuse)
    assert upstream.runs[0].outcome == "cancelled"


async def test_overlapping_calls_are_seen(upstream: ScriptedUpstream, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream.load, A, 8192)
        nursery.start_soon(run, upstream)
    assert upstream.max_in_flight == 2
    ((one, other),) = upstream.overlaps
    assert {type(one), type(other)} == {LoadRecord, RunRecord}
    assert len(upstream.requests) == 2


async def test_a_key_that_is_not_resident_costs_a_load_and_evicts_the_least_recently_used(
    upstream: ScriptedUpstream, autojump_clock: trio.testing.MockClock
) -> None:
    upstream.max_loaded = 2
    c = scripted_model("c")
    upstream.known.append(c)
    await upstream.load(A, 8192)
    await upstream.load(B, 8192)  # clamped to what it was trained for
    assert upstream.resident_keys == [RunnerKey(A.identity, 8192), RunnerKey(B.identity, 4096)]
    assert (await run(upstream, A))[1].load_seconds == 0.0
    assert (await run(upstream, c))[1].load_seconds == pytest.approx(2)
    assert upstream.resident_keys == [RunnerKey(A.identity, 8192), RunnerKey(c.identity, 8192)]
    assert [(load.key.model, load.implicit) for load in upstream.loads] == [
        (A.identity, False),
        (B.identity, False),
        (c.identity, True),
    ]
    assert (await run(upstream, A, 16384))[1].load_seconds == pytest.approx(2)  # the same model in another size
    assert await upstream.resident() == {RunnerKey(c.identity, 8192), RunnerKey(A.identity, 16384)}


@pytest.mark.parametrize("script", [Refuse(500, "no memory"), Break(text="no memory")])
async def test_a_load_that_fails_leaves_the_room_empty(
    script: Script, upstream: ScriptedUpstream, autojump_clock: object
) -> None:
    upstream.then_load(Say(), script)
    await upstream.load(A, 8192)
    with pytest.raises(LoadFailed, match="no memory"):
        await upstream.load(B, 4096)
    assert upstream.resident_keys == []


async def test_a_load_can_hang(upstream: ScriptedUpstream, autojump_clock: object) -> None:
    upstream.then_load(Hang())
    with trio.move_on_after(300) as scope:
        await upstream.load(A, 8192)
    assert scope.cancelled_caught
    assert [load.outcome for load in upstream.loads] == ["cancelled"]


async def test_when_it_goes_down_what_runs_breaks_and_nothing_is_reachable_or_resident(
    upstream: ScriptedUpstream, autojump_clock: object
) -> None:
    upstream.then(Hang())

    async def go_down() -> None:
        await trio.sleep(10)
        upstream.down = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_down)
        with pytest.raises(UpstreamBroke):
            await run(upstream)
    for call in (upstream.models, upstream.resident, upstream.probe):
        with pytest.raises(UpstreamUnreachable):
            await call()
    with pytest.raises(UpstreamUnreachable):
        await upstream.load(A, 8192)
    upstream.down = False
    assert await upstream.resident() == frozenset()
    assert len(upstream.requests) == 1


async def test_a_function_may_decide_by_the_request(upstream: ScriptedUpstream, autojump_clock: object) -> None:
    upstream.by_request = lambda request: Say(prompt_of(request) + "!")
    assert "".join((await run(upstream))[0]) == "hello!"


def test_it_is_an_upstream(upstream: ScriptedUpstream) -> None:
    engine: Upstream = upstream
    assert engine.name == "Scripted"


async def test_prompts_are_kept_while_their_model_is_loaded(
    upstream: ScriptedUpstream, autojump_clock: trio.testing.MockClock
) -> None:
    upstream.kept_prompts, upstream.seconds_per_prompt_token = 2, 0.5
    told = []
    for model, said in ((A, "a b c"), (A, "x y"), (A, "a b c d"), (B, "a b c d"), (A, "a b c d")):
        began = trio.current_time()
        completion = await upstream.run(model, 2048, ChatRequest("", (Message("system", said),)), lambda piece: None)
        told.append((completion.prompt_tokens, completion.cached_tokens, completion.prompt_seconds))
        passed = trio.current_time() - began - (completion.load_seconds or 0.0)
        assert passed == pytest.approx(completion.prompt_seconds)
    assert told == [(3, 0, 1.5), (2, 0, 1.0), (4, 3, 0.5), (4, 0, 2.0), (4, 0, 2.0)]


def test_the_prompt_used_last_is_kept_and_one_that_goes_on_takes_no_room() -> None:
    cache = PromptCache(2)
    assert [cache.take(said.split()) for said in ("a b c", "x y z", "a b c d", "p q r", "x y z")] == [0, 0, 3, 0, 0]
    assert [cache.take(said.split()) for said in ("p q r", "p", "")] == [2, 0, 0]
    cache.clear()
    assert cache.take(["p", "q"]) == 0
    assert [cache.take(said.split()) for said in ("a b c d e f", "a x y z", "a b c d e f")] == [0, 1, 5]
    nothing = PromptCache(0)
    assert [nothing.take(["a", "b"]) for _ in range(2)] == [0, 0]
