"""An Ollama's own API beside the line, against the fake one over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from llm_queue.errors import ConnectionLost, UpstreamUnreachable
from llm_queue.testing.fake_ollama import Behaviour, FakeOllama, serve
from llm_queue.upstream.native import IDLE, OllamaApi
from llm_queue.upstream.ollama import Ollama


@pytest.fixture
def fake() -> FakeOllama:
    return FakeOllama(Behaviour(load_seconds=0.0))


@pytest.fixture
async def native(fake: FakeOllama, nursery: trio.Nursery) -> AsyncIterator[OllamaApi]:
    ollama = Ollama(await nursery.start(serve, fake))
    yield ollama.native
    await ollama.aclose()


class Reader:
    """What came back."""

    def __init__(self) -> None:
        self.status = 0
        self.media_type = ""
        self.body = b""
        self.came = trio.Event()

    async def begin(self, status: int, media_type: str) -> None:
        await trio.lowlevel.checkpoint()
        self.status, self.media_type = status, media_type

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.body += data
        self.came.set()


async def pieces(*texts: bytes) -> AsyncIterator[bytes]:
    for text in texts:
        await trio.lowlevel.checkpoint()
        yield text


async def test_a_question_is_answered_with_whatever_status(native: OllamaApi) -> None:
    answer = await native.ask("GET", "/api/version")
    assert (answer.status, answer.media_type) == (200, "application/json; charset=utf-8")
    assert b"version" in answer.body
    answer = await native.ask("POST", "/api/show", b'{"model":"nope"}', program="curl/8")
    assert (answer.status, answer.body) == (404, b'{"error": "model \'nope:latest\' not found"}')


async def test_headers_of_callers_may_have_any_character_of_latin_1(native: OllamaApi) -> None:
    assert (await native.ask("GET", "/api/version", program="caf\xe9/1 \xff")).status == 200
    reader = Reader()
    headers = {"content-length": "0", "content-type": "text/\xe9"}
    await native.relay("HEAD", "/api/blobs/sha256:ab", headers, pieces(), reader.begin, reader.write)
    assert reader.status == 404


async def test_a_pull_arrives_line_by_line(native: OllamaApi, fake: FakeOllama) -> None:
    reader, body = Reader(), b'{"model":"new"}'
    headers = {"content-length": str(len(body)), "content-type": "application/json"}
    await native.relay("POST", "/api/pull", headers, pieces(body[:5], body[5:]), reader.begin, reader.write)
    assert (reader.status, reader.media_type) == (200, "application/x-ndjson")
    assert reader.body == b'{"status":"pulling manifest"}\n{"status":"success"}\n'
    assert fake.changes == ["pull new"]


async def test_a_body_without_a_length_and_a_request_without_a_body(native: OllamaApi, fake: FakeOllama) -> None:
    reader = Reader()
    chunked = {"transfer-encoding": "chunked"}
    await native.relay("POST", "/api/blobs/sha256:ab", chunked, pieces(b"x" * 300_000), reader.begin, reader.write)
    assert reader.status == 201
    await native.relay("HEAD", "/api/blobs/sha256:ab", {}, pieces(), reader.begin, reader.write)
    assert reader.status == 404
    assert fake.changes[0] == "blobs/sha256:ab 300000"


async def test_a_pull_that_is_given_up_ends_at_ollama_too(native: OllamaApi, fake: FakeOllama) -> None:
    reader, body = Reader(), b'{"model":"endless"}'
    headers = {"content-length": str(len(body))}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(native.relay, "POST", "/api/pull", headers, pieces(body), reader.begin, reader.write)
        with trio.fail_after(5):
            await reader.came.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        while fake.changes != ["pull endless", "gave up endless"]:
            await trio.lowlevel.checkpoint()


async def test_what_is_not_there_is_unreachable() -> None:
    native = Ollama("http://127.0.0.1:9").native
    reader = Reader()
    with pytest.raises(UpstreamUnreachable, match="cannot be reached"):
        await native.relay("POST", "/api/pull", {}, pieces(), reader.begin, reader.write)
    with pytest.raises(UpstreamUnreachable):
        await native.ask("GET", "/api/version")


Peer = Callable[[trio.testing.MemoryReceiveStream], None]


def scripted(said: bytes, *, ends: bool) -> OllamaApi:
    """An Ollama that says these bytes to whatever is asked, and then ends or falls silent."""

    async def connect(_: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(said)
        if ends:
            await theirs.send_eof()
        return ours

    return Ollama("http://scripted.test", authorization="Basic x", connect=connect).native


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b"nonsense\r\n\r\n"])
async def test_an_answer_that_breaks_off_is_lost(said: bytes) -> None:
    reader = Reader()
    with pytest.raises(ConnectionLost, match="broke off"):
        await scripted(said, ends=True).relay("POST", "/api/pull", {}, pieces(), reader.begin, reader.write)


async def test_silence_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    reader = Reader()
    native = scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ends=False)
    with pytest.raises(ConnectionLost, match="said nothing for 600 s"):
        await native.relay("POST", "/api/pull", {}, pieces(), reader.begin, reader.write)
    assert trio.current_time() >= IDLE
    assert (reader.body, reader.media_type) == (b"half", "application/json")


async def test_a_question_that_is_not_answered_has_a_limit(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(UpstreamUnreachable, match="does not answer"):
        await scripted(b"", ends=False).ask("GET", "/api/version")
