"""Ollama as an upstream, against the fake one over real sockets."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import NoReturn

import msgspec
import pytest
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    ConnectionLost,
    LoadFailed,
    PromptTooLong,
    ReaderTooSlow,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.testing.fake_ollama import FakeOllama, serve
from llm_queue.testing.fake_ollama.behaviour import Behaviour
from llm_queue.testing.fake_ollama.runners import digest_of
from llm_queue.upstream.ollama import Ollama
from llm_queue.upstream.protocol import Model, Size, Upstream
from llm_queue.wire.shapes import (
    ALIVE,
    ChatRequest,
    Completion,
    Delta,
    EmbedRequest,
    LoadRequest,
    Message,
    Piece,
    Request,
    TextRequest,
    ToolCall,
    ToolChoice,
    Vectors,
)

MODEL = Model(name="fake:latest", identity=digest_of("fake"))


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama(Behaviour(load_seconds=0.0, token_seconds=0.0, trained=16384))


@pytest.fixture
async def ollama(fake: FakeOllama, nursery: trio.Nursery) -> AsyncIterator[Ollama]:
    ollama = Ollama(await nursery.start(serve, fake), keep_alive="20m")
    yield ollama
    await ollama.aclose()


async def say(ollama: Ollama, text: str, model: Model = MODEL) -> tuple[str, Completion]:
    pieces: list[Piece] = []
    request = ChatRequest("an alias", (Message("user", text),))
    completion = await ollama.run(model, 8192, request, pieces.append)
    return "".join(piece.content for piece in pieces if isinstance(piece, Delta)), completion


@pytest.mark.parametrize(("kept", "found"), [(None, [None, None]), (0, [0, 0]), (1, [0, 3])])
async def test_what_was_found_of_a_prompt_is_told_where_it_is_known(
    nursery: trio.Nursery, kept: int | None, found: list[int | None]
) -> None:
    fake = FakeOllama(Behaviour(load_seconds=0.0, token_seconds=0.0, trained=16384, kept_prompts=kept))
    ollama = Ollama(await nursery.start(serve, fake), keep_alive="20m")
    ends = [(await say(ollama, text))[1] for text in ("one two three", "one two three four")]
    assert [(end.prompt_tokens, end.cached_tokens) for end in ends] == [(3, found[0]), (4, found[1])]
    assert [end.prompt_seconds for end in ends] == [0.0, 0.0]  # what is 0 is left out on the wire
    await ollama.aclose()


async def until(condition: object) -> None:
    """Let the other side take its steps, which real sockets carry over."""
    assert callable(condition)
    with trio.fail_after(5):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_the_text_comes_back_verbatim_and_its_end_is_the_true_one(ollama: Ollama, fake: FakeOllama) -> None:
    text, completion = await say(ollama, "!say  two  spaces,\n\n`é` and 🙂 \n")
    assert text == " two  spaces,\n\n`é` and 🙂 \n"
    assert (completion.finish_reason, completion.completion_tokens) == ("stop", 5)
    assert [work.model for work in fake.requests] == ["fake:latest"]  # its own name, not the alias


async def test_what_is_known_of_models_comes_from_tags_show_and_ps(ollama: Ollama) -> None:
    (model,) = await ollama.models()
    assert (model.name, model.identity, model.trained) == ("fake:latest", digest_of("fake"), None)
    assert model.created == 1767225600
    model = await ollama.describe(model)
    assert (model.trained, "completion" in model.capabilities) == (16384, True)
    assert await ollama.resident() == frozenset()
    assert ollama.sizes == {}
    await ollama.load(model, 8192)
    assert await ollama.resident() == {RunnerKey(model.identity, 8192)}
    assert ollama.sizes == {model.identity: Size(bytes=1, vram=1)}
    await ollama.probe()


async def test_a_model_that_cannot_think_is_not_asked_to_if_that_is_left_open(ollama: Ollama, fake: FakeOllama) -> None:
    asked = ChatRequest("fake", (Message("user", "!say well"),), think="high", think_if_able=True)
    pieces: list[Piece] = []
    await ollama.run(MODEL, 8192, asked, pieces.append)
    assert [piece for piece in pieces if isinstance(piece, Delta) and piece.thinking] == []
    able = msgspec.structs.replace(MODEL, capabilities=frozenset({"thinking"}))
    await ollama.run(able, 8192, asked, pieces.append)
    assert [piece for piece in pieces if isinstance(piece, Delta) and piece.thinking]


LOOK = {"type": "function", "function": {"name": "look", "parameters": {"properties": {}, "required": []}}}


async def test_a_model_without_tools_can_be_made_to_call_one_and_may_think_before(
    ollama: Ollama, fake: FakeOllama
) -> None:
    fake.behaviour.capabilities = ["completion", "thinking"]
    messages = (Message("user", "!slow 0 look"),)
    asked = ChatRequest("fake", messages, tools=(LOOK,), tool_choice=ToolChoice("required"), think=True)
    pieces: list[Piece] = []
    completion = await ollama.run(MODEL, 8192, asked, pieces.append)
    assert completion.finish_reason == "tool_calls"
    thought, *signs, called = pieces
    assert thought == Delta(thinking="Let me think.")
    assert all(sign is ALIVE for sign in signs)
    assert signs
    assert called == Delta(tool_calls=(ToolCall("look", "{}"),))


async def test_a_call_that_was_cut_has_the_beginning_of_its_arguments(ollama: Ollama) -> None:
    words = {"type": "function", "function": {"name": "say", "parameters": {"enum": [{"words": ["a", "b"]}]}}}
    pieces: list[Piece] = []
    asked = ChatRequest("fake", (Message("user", "go"),), tools=(words,), tool_choice=ToolChoice("required"))
    completion = await ollama.run(MODEL, 8192, msgspec.structs.replace(asked, max_tokens=5), pieces.append)
    assert completion.finish_reason == "length"
    [call] = [call for piece in pieces if isinstance(piece, Delta) for call in piece.tool_calls]
    assert '{"words": ["a", "b"]}'.startswith(call.arguments)
    assert len(call.arguments) > 5


async def test_ollama_counts_no_tokens(ollama: Ollama, fake: FakeOllama) -> None:
    assert await ollama.count_tokens(MODEL, ChatRequest("fake", (Message("user", "hi"),))) is None
    assert not fake.connections


async def test_a_load_has_the_keep_alive_and_work_has_none(ollama: Ollama, fake: FakeOllama) -> None:
    await ollama.load(MODEL, 8192)
    await say(ollama, "hello")
    assert [(work.num_ctx, work.keep_alive) for work in fake.requests] == [(8192, 1200), (8192, None)]
    assert len(fake.loads) == 1


async def test_a_model_that_only_embeds_is_loaded_by_an_embed(ollama: Ollama, fake: FakeOllama) -> None:
    await ollama.load(Model(name="fake", identity="x", capabilities=frozenset({"embedding"})), 8192)
    assert [work.path for work in fake.requests] == ["/api/embed"]


async def test_requests_share_one_connection_and_questions_have_another(ollama: Ollama, fake: FakeOllama) -> None:
    for _ in range(3):
        await say(ollama, "hello")
        await ollama.probe()
    assert fake.connections == 2


async def test_the_host_header_is_the_address_of_ollama(ollama: Ollama, fake: FakeOllama) -> None:
    await ollama.probe()
    assert list(fake.hosts) == [ollama.url.removeprefix("http://")]


async def test_a_question_is_answered_while_a_request_runs(
    ollama: Ollama, fake: FakeOllama, nursery: trio.Nursery
) -> None:
    nursery.start_soon(say, ollama, "!hang")
    await until(lambda: fake.in_flight)
    assert await ollama.resident() == {RunnerKey(MODEL.identity, 8192)}
    nursery.cancel_scope.cancel()


# --- models that run elsewhere ------------------------------------------------------------------------------------

CLOUD = Model(name="large:cloud", identity="large:cloud", remote=True)


async def ask(ollama: Ollama, text: str, model: Model = CLOUD) -> Completion:
    return await ollama.run(model, 0, ChatRequest("an alias", (Message("user", text),)), lambda piece: None)


async def test_what_runs_elsewhere_is_listed_so_and_not_asked_about(fake: FakeOllama, nursery: trio.Nursery) -> None:
    fake.behaviour.remote = ["mine"]
    ollama = Ollama(await nursery.start(serve, fake))
    here, mine = await ollama.models()
    assert (here.remote, mine.remote) == (False, True)
    assert await ollama.describe(mine) == mine
    assert fake.questions["/api/show"] == 0
    assert ollama.unlisted(" large:cloud ") == CLOUD
    assert ollama.unlisted("large") is None
    await ollama.aclose()


async def test_what_runs_elsewhere_runs_beside_all_else_and_loads_nothing(
    ollama: Ollama, fake: FakeOllama, nursery: trio.Nursery
) -> None:
    nursery.start_soon(say, ollama, "!hang")
    await until(lambda: fake.in_flight)
    for _ in range(2):
        nursery.start_soon(ask, ollama, "!hang")
    await until(lambda: len(fake.requests) == 3)
    assert (await ask(ollama, "!tokens 3")).completion_tokens == 3
    assert len(fake.loads) == 1
    assert [work.num_ctx for work in fake.requests] == [8192, *[fake.behaviour.default_num_ctx] * 3]
    nursery.cancel_scope.cancel()


async def test_what_runs_elsewhere_is_ended_there_when_its_caller_leaves(
    ollama: Ollama, fake: FakeOllama, nursery: trio.Nursery
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(ask, ollama, "!stall 2")
            await until(lambda: fake.requests)
            scope.cancel()
    assert [work.outcome for work in fake.requests] == ["aborted"]


@pytest.mark.parametrize(
    ("prompt", "signin_url", "status", "text"),
    [
        ("hello", "https://ollama.example/connect?key=k", 401, "unauthorized (sign in at https://ollama.example/conn"),
        ("!refuse 403 ollama cloud is disabled: remote model", None, 403, "ollama cloud is disabled: remote model"),
        ("!refuse 429 weekly limit reached", None, 429, "weekly limit reached"),
    ],
)
async def test_what_another_host_refuses_is_a_refusal_with_its_text(
    prompt: str, signin_url: str | None, status: int, text: str, ollama: Ollama, fake: FakeOllama
) -> None:
    fake.behaviour.signin_url = signin_url
    with pytest.raises(UpstreamRefused) as raised:
        await ask(ollama, prompt)
    assert raised.value.http_status == status
    assert raised.value.message.startswith(text)


async def test_a_keep_alive_of_zero_unloads_nothing_elsewhere(fake: FakeOllama, nursery: trio.Nursery) -> None:
    ollama = Ollama(await nursery.start(serve, fake), keep_alive="0", truncate=False)
    assert not (await ask(ollama, "!tokens 1")).unloaded
    assert [work.keep_alive for work in fake.requests] == [None]
    await ollama.aclose()


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "error", "text"),
    [
        ("!refuse 400 too much", UpstreamRefused, "too much"),
        ("!busy", UpstreamBusy, "server busy, please try again.  maximum pending requests exceeded"),
        ("!error500 out of memory", UpstreamBroke, "out of memory"),
        ("!break 2", UpstreamBroke, "an error was encountered while running the model: unexpected EOF"),
        ("!break 0", UpstreamBroke, "an error was encountered while running the model: unexpected EOF"),
        ("!short 2", UpstreamBroke, "broke off"),
        ("!cut 2", ConnectionLost, "broke off"),
        ("!garble", UpstreamBroke, "not an answer"),
    ],
)
async def test_what_goes_wrong_in_a_run_is_one_of_our_errors(
    prompt: str, error: type[UpstreamError], text: str, ollama: Ollama
) -> None:
    with pytest.raises(error, match=text) as raised:
        await say(ollama, prompt)
    assert type(raised.value) is error
    assert (await say(ollama, "!say fine"))[0] == "fine"  # and the next one is not touched by it


async def test_a_prompt_that_is_too_long_is_cut_or_refused_as_the_caller_says_and_else_as_we_are_set(
    fake: FakeOllama, nursery: trio.Nursery
) -> None:
    url = await nursery.start(serve, fake)
    request = ChatRequest("fake", (Message("user", "x " * 9000),))
    for said, truncate, refused in [
        (None, None, False),
        (False, None, True),
        (None, False, True),
        (True, False, False),
    ]:
        ollama = Ollama(url, truncate=truncate)
        asked = msgspec.structs.replace(request, truncate=said)
        if refused:
            with pytest.raises(PromptTooLong, match="9000 tokens") as raised:
                await ollama.run(MODEL, 8192, asked, lambda piece: None)
            assert (raised.value.tokens, raised.value.maximum) == (9000, 8192)
        else:
            assert (await ollama.run(MODEL, 8192, asked, lambda piece: None)).truncated
        await ollama.aclose()


async def test_an_unknown_model_is_refused_with_ollamas_own_status_and_text(ollama: Ollama) -> None:
    with pytest.raises(UpstreamRefused, match="model 'nope' not found") as raised:
        await say(ollama, "hello", Model(name="nope", identity="x"))
    assert raised.value.http_status == 404


@pytest.mark.parametrize("model", ["fake", "nope"])
async def test_a_load_that_fails_says_why(model: str, ollama: Ollama, fake: FakeOllama) -> None:
    fake.behaviour.load_error = "model requires more memory"
    with pytest.raises(LoadFailed, match=r"more memory|not found"):
        await ollama.load(Model(name=model, identity="x"), 8192)


async def test_nobody_there_is_unreachable_for_every_call() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    ollama = Ollama(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    await listener.aclose()
    for call in (ollama.models, ollama.resident, ollama.probe):
        with pytest.raises(UpstreamUnreachable, match="ollama serve"):
            await call()
    with pytest.raises(UpstreamUnreachable):
        await ollama.load(MODEL, 8192)
    with pytest.raises(UpstreamUnreachable):
        await say(ollama, "hello")


async def test_a_load_whose_connection_breaks_says_nothing_of_the_model(nursery: trio.Nursery) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    nursery.start_soon(trio.serve_listeners, hang_up, [listener])
    ollama = Ollama(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    with pytest.raises(ConnectionLost):
        await ollama.load(MODEL, 8192)
    with pytest.raises(ConnectionLost):
        await say(ollama, "hello")


async def test_what_breaks_after_the_true_end_does_not_matter(nursery: trio.Nursery) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    line = b'{"message":{"content":"all"},"done":true,"done_reason":"stop"}\n'

    async def cut(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(line), line))

    nursery.start_soon(trio.serve_listeners, cut, [listener])
    ollama = Ollama(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    text, completion = await say(ollama, "hello")
    assert (text, completion.finish_reason) == ("all", "stop")


# --- cancellation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["!hang", "!stall 2"])
async def test_a_cancelled_run_is_over_at_ollama_before_the_next_begins(
    prompt: str, ollama: Ollama, fake: FakeOllama, nursery: trio.Nursery
) -> None:
    fake.behaviour.close_seconds = 0.01
    for _ in range(5):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(say, ollama, prompt)
                await until(lambda: fake.in_flight)
                scope.cancel()
        assert fake.in_flight == 0
        assert (await say(ollama, "!say fine"))[0] == "fine"
    assert fake.max_in_flight == 1
    assert [work.outcome for work in fake.requests] == ["aborted", "done"] * 5


async def test_a_cancelled_load_is_aborted(ollama: Ollama, fake: FakeOllama) -> None:
    fake.behaviour.load_seconds = 60
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(ollama.load, MODEL, 8192)
            await until(lambda: fake.loads)
            scope.cancel()
    assert [load.outcome for load in fake.loads] == ["aborted"]
    assert await ollama.resident() == frozenset()


async def test_an_exception_of_the_reader_ends_the_run_as_a_cancellation_does(ollama: Ollama, fake: FakeOllama) -> None:
    def refuse(piece: Piece) -> NoReturn:
        raise ReaderTooSlow

    with pytest.raises(ReaderTooSlow):
        await ollama.run(MODEL, 8192, ChatRequest("fake", (Message("user", "!stall 1"),)), refuse)
    assert [work.outcome for work in fake.requests] == ["aborted"]
    assert fake.in_flight == 0


async def test_a_cancelled_question_does_not_disturb_the_next(ollama: Ollama) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await ollama.probe()
    assert scope.cancelled_caught
    await ollama.probe()


def test_it_is_an_upstream() -> None:
    upstream: Upstream = Ollama("http://localhost:11434/")
    assert (upstream.name, upstream.url) == ("Ollama", "http://localhost:11434")


async def test_a_model_that_is_to_be_kept_for_no_time_goes_after_each_answer_and_not_before(
    fake: FakeOllama, nursery: trio.Nursery
) -> None:
    ollama = Ollama(await nursery.start(serve, fake), keep_alive="0s")
    await ollama.load(MODEL, 8192)
    assert await ollama.resident() == {RunnerKey(MODEL.identity, 8192)}
    assert (await say(ollama, "!say hello"))[1].unloaded
    assert await ollama.resident() == frozenset()
    assert len(fake.loads) == 1
    await ollama.aclose()


async def test_a_model_that_is_kept_is_not_said_to_be_gone(ollama: Ollama) -> None:
    await ollama.load(MODEL, 8192)
    assert not (await say(ollama, "!say hello"))[1].unloaded


async def test_a_user_and_a_password_are_sent_to_what_stands_in_front_of_ollama(nursery: trio.Nursery) -> None:
    heads: list[bytes] = []

    async def proxy(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"version":"0.33.3"}'[:-1])

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, proxy, listeners)
    ollama = Ollama(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", authorization="Basic bWU6cEBzcw==")
    await ollama.probe()
    assert b"authorization: basic bwu6cebzcw==" in heads[0].lower()
    await ollama.aclose()


async def test_what_a_model_cannot_do_is_a_refusal_and_not_tried_again(ollama: Ollama) -> None:
    with pytest.raises(UpstreamRefused, match="does not support embeddings") as raised:
        await ollama.run(MODEL, 8192, EmbedRequest("fake", ("hello",)), lambda _: None)
    assert raised.value.http_status == 400


async def run(ollama: Ollama, request: Request) -> tuple[list[Piece], Completion]:
    pieces: list[Piece] = []
    return pieces, await ollama.run(MODEL, 8192, request, pieces.append)


async def test_a_model_stays_for_the_longest_time_that_anybody_asked_for(ollama: Ollama, fake: FakeOllama) -> None:
    await ollama.load(MODEL, 8192)
    for seconds in (60.0, 7200.0, 3600.0, 7200.0, math.inf, None):
        await run(ollama, ChatRequest("fake", (Message("user", "hello"),), keep_alive=seconds))
    await ollama.load(MODEL, 8192)
    assert [work.keep_alive for work in fake.requests] == [1200, None, 7200, None, None, -1, None, -1]


async def test_a_load_that_is_asked_for_sets_it_as_well_and_an_unload_forgets_it(
    ollama: Ollama, fake: FakeOllama
) -> None:
    assert (await run(ollama, LoadRequest("fake", 7200.0)))[1].finish_reason == "load"
    _, completion = await run(ollama, LoadRequest("fake", unload=True))
    assert (completion.finish_reason, completion.unloaded) == ("unload", True)
    assert await ollama.resident() == frozenset()
    await ollama.load(MODEL, 8192)
    assert [work.keep_alive for work in fake.requests] == [7200, 0, 1200]


async def test_a_load_that_is_asked_for_and_fails_says_why(ollama: Ollama, fake: FakeOllama) -> None:
    fake.behaviour.load_error = "no room for it"
    with pytest.raises(LoadFailed, match="no room for it"):
        await run(ollama, LoadRequest("fake"))


async def test_embeddings_of_both_kinds(ollama: Ollama, fake: FakeOllama) -> None:
    fake.behaviour.capabilities = ["embedding"]
    (vectors,), _ = await run(ollama, EmbedRequest("fake", ("abc", "a"), keep_alive=7200.0))
    assert isinstance(vectors, Vectors)
    assert [math.hypot(*vector) for vector in vectors.vectors] == pytest.approx([1, 1])
    assert (await run(ollama, EmbedRequest("fake", ("abc",), normalized=False)))[0] == [Vectors(((3.0, 1.0),))]
    assert [(work.path, work.keep_alive) for work in fake.requests] == [("/api/embed", 7200), ("/api/embeddings", None)]


@pytest.mark.parametrize("normalized", [True, False])
async def test_a_model_that_only_chats_is_never_asked_twice_to_embed(ollama: Ollama, normalized: bool) -> None:
    with pytest.raises(UpstreamRefused, match="does not support embeddings"):
        await run(ollama, EmbedRequest("fake", ("a",), normalized=normalized))


async def test_a_text_is_answered_with_its_context(ollama: Ollama) -> None:
    pieces, completion = await run(ollama, TextRequest("fake", "!say so it went on"))
    assert "".join(piece.content for piece in pieces if isinstance(piece, Delta)) == "so it went on"
    assert completion.context == (1, 2, 3)
