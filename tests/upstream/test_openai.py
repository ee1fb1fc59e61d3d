"""Any OpenAI-compatible server as an upstream, against a small one that says what the test says over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    LoopDetected,
    PromptTooLong,
    QueueError,
    ReaderTooSlow,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.instance import Instance
from llm_queue.testing import ScriptedUpstream
from llm_queue.upstream.openai import OpenAIServer
from llm_queue.upstream.protocol import Model, Upstream
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message, Piece, TextRequest
from tests.harness import line

MODEL = Model(name="small", identity="small")
MODELS = b'{"object":"list","data":[{"id":"small","created":7},{"id":"vendor/large"}]}'
HELLO = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":null},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{"content":" hello "},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)
HALF = HELLO[: HELLO.index(b'data: {"choices":[{"delta":{},')]


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def answer(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Server:
    """Answers questions for models, and chats with ``says``; without its end, ``hangs`` until the caller leaves."""

    says: bytes = STREAM + chunked(HELLO) + b"0\r\n\r\n"
    models: bytes = field(default_factory=lambda: answer(MODELS))
    hangs: bool = False
    steer: Callable[[dict[str, Any]], None] = lambda chat: None
    heads: list[str] = field(default_factory=list)
    chats: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    close_seconds: float = 0.0

    async def handle(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        self.heads.append(head.decode())
        if head.startswith(b"GET"):
            await stream.send_all(self.models)
            return
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += await stream.receive_some()
        self.chats.append(json.loads(body))
        self.steer(self.chats[-1])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await stream.send_all(self.says)
            if self.hangs:
                while await stream.receive_some():
                    pass
                await trio.sleep(self.close_seconds)
        finally:
            self.in_flight -= 1
            # Like llama.cpp after a stream: closed without a word, although keep-alive was never refused.
            await stream.aclose()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def url(server: Server, nursery: trio.Nursery) -> str:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    nursery.start_soon(trio.serve_listeners, server.handle, [listener])
    return f"http://127.0.0.1:{listener.socket.getsockname()[1]}"


@pytest.fixture
async def upstream(url: str) -> AsyncIterator[OpenAIServer]:
    upstream = OpenAIServer(url + "/v1", "the key")
    yield upstream
    await upstream.aclose()


async def say(upstream: OpenAIServer, text: str = "hello") -> tuple[str, Completion]:
    pieces: list[Piece] = []
    completion = await upstream.run(MODEL, 0, ChatRequest("an alias", (Message("user", text),)), pieces.append)
    return "".join(piece.content for piece in pieces if isinstance(piece, Delta)), completion


async def until(condition: Callable[[], object]) -> None:
    """Let the other side take its steps, which real sockets carry over."""
    with trio.fail_after(5):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_the_text_comes_back_verbatim_with_its_counts(upstream: OpenAIServer, server: Server) -> None:
    assert await say(upstream) == (" hello ", Completion("stop", 4, 2, finish_text="stop"))
    assert server.chats[0]["model"] == "small"  # its own name, not the alias


async def test_every_request_has_the_key_and_a_connection_of_its_own(upstream: OpenAIServer, server: Server) -> None:
    for _ in range(5):
        await say(upstream)
        await upstream.probe()
    assert len(server.heads) == 10
    for head in server.heads:
        assert "authorization: bearer the key" in head.lower()
        assert "connection: close" in head.lower()


COUNTED = ChatRequest("an alias", (Message("user", "hello"),))


async def test_a_prompt_is_counted_by_those_that_can_write_it_out(upstream: OpenAIServer, server: Server) -> None:
    def steer(asked: dict[str, Any]) -> None:
        server.says = answer(b'{"prompt":"<s>hello"}' if "messages" in asked else b'{"tokens":[1,2,{"id":3}]}')

    server.steer = steer
    assert await upstream.count_tokens(MODEL, COUNTED) == 3
    asked, tokenized = server.chats
    assert (asked["model"], asked["messages"]) == ("small", [{"role": "user", "content": "hello"}])
    assert tokenized == {"model": "small", "content": "<s>hello", "add_special": True, "parse_special": True}
    assert [head.split()[1] for head in server.heads] == ["/apply-template", "/tokenize"]


async def test_a_picture_and_what_is_no_chat_are_not_counted(upstream: OpenAIServer, server: Server) -> None:
    assert await upstream.count_tokens(MODEL, ChatRequest("m", (Message("user", "see", ("aa",)),))) is None
    assert await upstream.count_tokens(MODEL, TextRequest("m", "hello")) is None
    assert server.heads == []


@pytest.mark.parametrize(("status", "asked_again"), [(404, False), (405, False), (400, True)])
async def test_a_server_that_cannot_count_is_not_asked_again(
    upstream: OpenAIServer, server: Server, status: int, asked_again: bool
) -> None:
    server.says = answer(b"{}", status)
    assert await upstream.count_tokens(MODEL, COUNTED) is None
    assert await upstream.count_tokens(MODEL, COUNTED) is None
    assert len(server.heads) == 1 + asked_again


async def test_a_count_that_is_none_is_an_error(upstream: OpenAIServer, server: Server) -> None:
    server.says = answer(b'{"content":5}')
    with pytest.raises(UpstreamBroke):
        await upstream.count_tokens(MODEL, COUNTED)


async def test_without_a_key_none_is_sent(url: str, server: Server) -> None:
    await OpenAIServer(url).probe()
    assert "authorization" not in server.heads[0].lower()


async def test_all_models_are_resident_and_nothing_is_loaded(upstream: OpenAIServer, server: Server) -> None:
    assert [(model.name, model.created, model.trained) for model in await upstream.models()] == [
        ("small", 7, None),
        ("vendor/large", 0, None),
    ]
    assert await upstream.resident() == {RunnerKey("small", 0), RunnerKey("vendor/large", 0)}
    assert await upstream.describe(MODEL) == MODEL
    await upstream.load(MODEL, 0)
    assert not server.chats


# --- errors -----------------------------------------------------------------------------------------------------------

TOO_LONG = b'{"error":{"code":400,"message":"request (3031 tokens) exceeds the available context size","type":"x"}}'
ERROR_EVENT = chunked(b'data: {"error":{"message":"compute error"}}\n\n')


@pytest.mark.parametrize(
    ("says", "error", "text"),
    [
        (answer(TOO_LONG, 400), PromptTooLong, r"^request \(3031 tokens\) exceeds"),
        (answer(b'{"error":{"message":"boom"}}', 500), UpstreamBroke, "^boom"),
        (answer(b'{"error":{"message":"Loading model"}}', 503), UpstreamBusy, "^Loading model"),
        (answer(b"", 404), UpstreamRefused, "status 404"),
        (answer(b'{"error":{"message":"Invalid API Key"}}', 401), UpstreamUnreachable, "Invalid API Key.*upstream-key"),
        (STREAM + ERROR_EVENT + b"0\r\n\r\n", UpstreamBroke, "^compute error"),
        (STREAM + chunked(HALF), UpstreamBroke, "broke off"),
        (STREAM + chunked(HALF) + b"0\r\n\r\n", UpstreamBroke, "broke off"),
        (STREAM + chunked(b"data: garbage\n\n") + b"0\r\n\r\n", UpstreamBroke, "not an answer"),
        (b"", UpstreamBroke, "broke off"),
    ],
)
async def test_what_goes_wrong_in_a_run_is_one_of_our_errors(
    says: bytes, error: type[QueueError], text: str, upstream: OpenAIServer, server: Server
) -> None:
    fine, server.says = server.says, says
    with pytest.raises(error, match=text):
        await say(upstream)
    server.says = fine
    assert (await say(upstream))[0] == " hello "


async def test_what_breaks_after_the_finish_reason_does_not_matter(upstream: OpenAIServer, server: Server) -> None:
    server.says = STREAM + chunked(HELLO[: HELLO.index(b'data: {"choices":[],"usage"')])
    assert await say(upstream) == (" hello ", Completion("stop", finish_text="stop"))


async def test_a_refusal_keeps_its_status(upstream: OpenAIServer, server: Server) -> None:
    server.says = answer(b'{"error":{"message":"no such thing"}}', 422)
    with pytest.raises(UpstreamRefused) as raised:
        await say(upstream)
    assert raised.value.http_status == 422


async def test_a_picture_that_the_model_cannot_take_is_a_refusal_whatever_the_status(
    upstream: OpenAIServer, server: Server
) -> None:
    """llama.cpp's server has 500 for it, and the same request would fail the same way."""
    server.says = answer(b'{"error":{"code":500,"message":"image input is not supported - hint: ..."}}', 500)
    with pytest.raises(UpstreamRefused, match="image input is not supported") as raised:
        await say(upstream)
    assert raised.value.http_status == 500


async def test_a_server_that_loads_is_not_there_yet(upstream: OpenAIServer, server: Server) -> None:
    server.models = answer(b'{"error":{"message":"Loading model"}}', 503)
    with pytest.raises(UpstreamError, match="Loading model"):
        await upstream.probe()


async def test_nobody_there_is_unreachable_for_every_call() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    upstream = OpenAIServer(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    await listener.aclose()
    for call in (upstream.models, upstream.resident, upstream.probe):
        with pytest.raises(UpstreamUnreachable, match="--upstream-url"):
            await call()
    with pytest.raises(UpstreamUnreachable):
        await say(upstream)


# --- cancellation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [b"", STREAM + chunked(HALF)])
async def test_a_cancelled_run_is_over_at_the_server_before_the_next_begins(
    says: bytes, upstream: OpenAIServer, server: Server
) -> None:
    server.says, server.hangs, server.close_seconds = says, True, 0.01
    for _ in range(5):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(say, upstream)
                await until(lambda: server.in_flight)
                scope.cancel()
        assert server.in_flight == 0
    assert (len(server.chats), server.most_in_flight) == (5, 1)


async def test_an_exception_of_the_reader_ends_the_run_as_a_cancellation_does(
    upstream: OpenAIServer, server: Server
) -> None:
    server.says, server.hangs = STREAM + chunked(HALF), True

    def refuse(piece: Piece) -> NoReturn:
        raise ReaderTooSlow

    with pytest.raises(ReaderTooSlow):
        await upstream.run(MODEL, 0, ChatRequest("small", (Message("user", "hi"),)), refuse)
    assert server.in_flight == 0


async def test_a_question_is_answered_while_a_request_runs(
    upstream: OpenAIServer, server: Server, nursery: trio.Nursery
) -> None:
    server.says, server.hangs = b"", True
    nursery.start_soon(say, upstream)
    await until(lambda: server.in_flight)
    await upstream.probe()
    nursery.cancel_scope.cancel()


# --- in the line ------------------------------------------------------------------------------------------------------


async def test_where_there_is_no_context_to_choose_every_wish_is_one_runner_key() -> None:
    upstream = ScriptedUpstream(known=[MODEL], chooses_context=False)
    async with line(upstream) as harness:
        for num_ctx in (None, 1024, 65536):
            await harness.ask(num_ctx=num_ctx, model=MODEL)
        assert [run.key.num_ctx for run in upstream.runs] == [0, 0, 0]
        assert len(upstream.loads) == 1


def test_it_is_an_upstream() -> None:
    upstream: Upstream = OpenAIServer("http://localhost:1234/v1/")
    assert (upstream.url, upstream.chooses_context) == ("http://localhost:1234", False)


async def test_a_text_that_relies_on_the_models_template_is_asked_as_a_chat(
    upstream: OpenAIServer, server: Server
) -> None:
    request = TextRequest("an alias", "once", system="be brief", templated=True)
    assert upstream.check(request) == ()
    completion = await upstream.run(MODEL, 0, request, lambda _: None)
    assert completion.finish_reason == "stop"
    assert server.heads[0].startswith("POST /v1/chat/completions")
    assert [message["content"] for message in server.chats[0]["messages"]] == ["be brief", "once"]


async def test_who_asks_is_named_to_the_upstream_in_each_request(url: str, server: Server) -> None:
    us = Instance()
    upstream = OpenAIServer(url, instance=us)
    await upstream.probe()
    await say(upstream)
    await upstream.aclose()
    assert [f"\r\nx-llm-queue-instance: {us.name}\r\n" in head.lower() + "\r\n" for head in server.heads] == [
        True,
        True,
    ]
    assert not us.behind


async def test_an_engine_of_ours_is_told_nothing(upstream: OpenAIServer, server: Server) -> None:
    await upstream.probe()
    assert "x-llm-queue-instance" not in server.heads[0].lower()


async def test_an_answer_with_508_is_a_loop(url: str, server: Server) -> None:
    upstream = OpenAIServer(url, instance=Instance())
    server.models = server.says = answer(b"{}", 508)
    for ask in (upstream.probe, upstream.models, lambda: say(upstream)):
        with pytest.raises(LoopDetected, match=r"leads back to this llm-queue itself.*--upstream-url"):
            await ask()
    await upstream.aclose()


async def test_an_upstream_that_is_another_llm_queue_shows_itself(url: str, server: Server) -> None:
    us = Instance()
    upstream = OpenAIServer(url, instance=us)
    server.models = server.models.replace(b"\r\n\r\n", b"\r\nVia: 1.1 llm-queue\r\n\r\n", 1)
    await upstream.probe()
    await upstream.aclose()
    assert us.behind
