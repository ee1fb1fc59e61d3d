"""The one connection: reuse, and that a request which ends early is seen closed."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from llm_queue.upstream.transport import CONNECT_TIMEOUT, SEEN_CLOSED_TIMEOUT, OneConnection

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Staple = trio.StapledStream[Any, Any]
Pair = Callable[[], tuple[Staple, Staple]]


class Peer:
    """The other end of every connection that a transport opens, in memory."""

    def __init__(self, pair: Pair = trio.testing.memory_stream_pair) -> None:
        self.connections = 0
        self.events: list[str] = []
        self._pair = pair
        self._opened, self._accepted = trio.open_memory_channel[Staple](10)

    async def connect(self, url: httpx.URL) -> trio.abc.Stream:
        self.connections += 1
        client, server = self._pair()
        await self._opened.send(server)
        return client

    async def accept(self) -> Staple:
        return await self._accepted.receive()

    async def read_request(self, stream: trio.abc.ReceiveStream) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n") and not data.endswith(b"{}"):
            more = await stream.receive_some()
            if not more:
                self.events.append("end of file")
                return data
            data += more
        self.events.append("request")
        return data

    async def see_hang_up(self, stream: Staple, close_after: float = 0.0) -> None:
        """Read to the caller's end of file, then close after a while."""
        while await stream.receive_some():
            pass
        self.events.append("end of file")
        await trio.sleep(close_after)
        self.events.append("closed")
        await stream.aclose()


def post() -> httpx.Request:
    return httpx.Request("POST", "http://upstream.test/api/chat", content=b"{}")


async def read(response: httpx.Response) -> bytes:
    return b"".join([data async for data in response.stream])  # type: ignore[union-attr]  # ours is an async one


async def answer(peer: Peer, *answers: bytes) -> None:
    stream = await peer.accept()
    for one in answers:
        await peer.read_request(stream)
        await stream.send_all(one)


async def test_the_second_request_takes_the_warm_connection(nursery: trio.Nursery) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)
    nursery.start_soon(answer, peer, WHOLE, WHOLE)
    for _ in range(2):
        assert await read(await transport.handle_async_request(post())) == b"hello"
    assert peer.connections == 1
    await transport.aclose()


async def test_header_and_body_leave_in_one_send(nursery: trio.Nursery) -> None:
    client, server = trio.testing.memory_stream_pair()
    sent: list[bytes] = []

    async def answer_at_the_first_send() -> None:
        sent.append(bytes(client.send_stream.get_data_nowait()))
        await server.send_all(WHOLE)

    async def connect(url: httpx.URL) -> trio.abc.Stream:
        client.send_stream.send_all_hook = answer_at_the_first_send
        return client

    await read(await OneConnection(connect).handle_async_request(post()))
    assert len(sent) == 1
    assert sent[0].startswith(b"POST /api/chat HTTP/1.1\r\nHost: upstream.test\r\n")
    assert sent[0].endswith(b"\r\nContent-Length: 2\r\n\r\n{}")


async def test_a_second_request_at_the_same_time_is_a_bug_of_the_caller(nursery: trio.Nursery) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)
    nursery.start_soon(answer, peer, WHOLE, WHOLE)
    response = await transport.handle_async_request(post())
    with pytest.raises(RuntimeError, match="one request at a time"):
        await transport.handle_async_request(post())
    assert await read(response) == b"hello"
    assert await read(await transport.handle_async_request(post())) == b"hello"


async def test_a_warm_connection_that_the_peer_closed_is_replaced_before_use() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    closed = trio.Event()

    async def serve_two_connections() -> None:
        for _ in range(2):
            stream = await listener.accept()
            assert (await stream.receive_some()).startswith(b"POST")
            await stream.send_all(WHOLE)
            await stream.aclose()
            closed.set()

    transport = OneConnection()
    url = f"http://localhost:{listener.socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery, listener:
        nursery.start_soon(serve_two_connections)
        for _ in range(2):
            response = await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
            assert await read(response) == b"hello"
            await closed.wait()
    await transport.aclose()


async def test_interim_responses_are_skipped(nursery: trio.Nursery) -> None:
    peer = Peer()
    nursery.start_soon(answer, peer, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE)
    assert await read(await OneConnection(peer.connect).handle_async_request(post())) == b"hello"


async def test_an_answer_that_closes_the_connection_is_whole_and_needs_no_waiting(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)
    last = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    nursery.start_soon(answer, peer, last)
    started = trio.current_time()
    assert await read(await transport.handle_async_request(post())) == b"hello"
    assert trio.current_time() == started
    nursery.start_soon(answer, peer, WHOLE)
    assert await read(await transport.handle_async_request(post())) == b"hello"
    assert peer.connections == 2


async def test_it_carries_an_httpx_client(nursery: trio.Nursery) -> None:
    peer = Peer()
    nursery.start_soon(answer, peer, WHOLE, WHOLE)
    async with httpx.AsyncClient(transport=OneConnection(peer.connect), trust_env=False) as client:
        for _ in range(2):
            response = await client.post("http://upstream.test/", content=b"{}")
            assert (response.status_code, response.text, response.http_version) == (200, "hello", "HTTP/1.1")


# --- seen closed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"3\r\nabc\r\n"])
async def test_a_cancelled_request_is_over_only_when_the_peer_has_closed(
    sent: bytes, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)

    async def first_hangs_second_answers() -> None:
        stream = await peer.accept()
        await peer.read_request(stream)
        await stream.send_all(sent or b"")
        await peer.see_hang_up(stream, close_after=0.5)
        await answer(peer, WHOLE)

    nursery.start_soon(first_hangs_second_answers)
    started = trio.current_time()
    with trio.move_on_after(10) as scope:
        await read(await transport.handle_async_request(post()))
    assert scope.cancelled_caught
    assert trio.current_time() - started == pytest.approx(10.5)
    assert transport.closed_after == pytest.approx(0.5)
    assert await read(await transport.handle_async_request(post())) == b"hello"
    assert transport.closed_after == 0
    assert peer.events == ["request", "end of file", "closed", "request"]


async def test_a_request_cancelled_while_it_is_sent_is_seen_closed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer(trio.testing.lockstep_stream_pair)
    transport = OneConnection(peer.connect)

    async def read_late() -> None:
        stream = await peer.accept()
        await trio.sleep(11)
        await peer.see_hang_up(stream)

    nursery.start_soon(read_late)
    with trio.move_on_after(10):
        await transport.handle_async_request(post())
    assert peer.events == ["end of file", "closed"]
    assert trio.current_time() == pytest.approx(11)


async def test_a_request_cancelled_while_it_connects_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async def never(url: httpx.URL) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    transport = OneConnection(never)
    for _ in range(2):  # and does not count as one that runs
        with trio.move_on_after(1) as scope:
            await transport.handle_async_request(post())
        assert scope.cancelled_caught


async def test_a_response_closed_early_is_seen_closed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)

    async def talk() -> None:
        stream = await peer.accept()
        await peer.read_request(stream)
        await stream.send_all(CHUNKED + b"3\r\nabc\r\n")
        await peer.see_hang_up(stream, close_after=0.5)

    nursery.start_soon(talk)
    response = await transport.handle_async_request(post())
    await response.aclose()
    assert peer.events == ["request", "end of file", "closed"]
    await response.aclose()  # and again does nothing


@pytest.mark.parametrize("talks_on", [False, True])
async def test_a_peer_that_never_closes_is_waited_for_two_seconds(
    talks_on: bool, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)

    async def never_close() -> None:
        stream = await peer.accept()
        while talks_on:
            await trio.sleep(0.1)
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        await trio.sleep_forever()

    nursery.start_soon(never_close)
    with trio.move_on_after(1):
        await transport.handle_async_request(post())
    assert trio.current_time() == pytest.approx(1 + SEEN_CLOSED_TIMEOUT)
    assert transport.closed_after == math.inf  # it was not seen: whoever owns the peer may want to end it
    nursery.cancel_scope.cancel()


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", id="half a head"),
        pytest.param(b"+OK ready\r\n\r\n", id="another protocol"),
        pytest.param(WHOLE[:-1], id="a body cut short"),
        pytest.param(CHUNKED + b"3\r\nab", id="a chunk cut short"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n", id="no last chunk"),
        pytest.param(CHUNKED + b"zz\r\n", id="a bad chunk size"),
    ],
)
async def test_a_broken_answer_is_a_protocol_error(said: bytes, nursery: trio.Nursery) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)

    async def break_off() -> None:
        stream = await peer.accept()
        await peer.read_request(stream)
        if said:
            await stream.send_all(said)
        await stream.aclose()
        await answer(peer, WHOLE)

    nursery.start_soon(break_off)
    with pytest.raises(httpx.RemoteProtocolError):
        await read(await transport.handle_async_request(post()))
    assert await read(await transport.handle_async_request(post())) == b"hello"


@pytest.mark.parametrize("value", [b"a\r\nX-Other: b", b"a\nb", b"a\0b", b"\x1b[31m"])
async def test_a_header_that_would_be_more_than_one_is_not_sent(
    value: bytes, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)
    nursery.start_soon(answer, peer)
    request = httpx.Request("GET", "http://upstream.test/", headers=[(b"Host", b"x"), (b"X-Said", value)])
    with pytest.raises(httpx.LocalProtocolError), trio.fail_after(SEEN_CLOSED_TIMEOUT + 1):
        await transport.handle_async_request(request)
    assert peer.events == []


async def test_a_connection_that_the_request_ends_is_not_used_again(nursery: trio.Nursery) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)
    for _ in range(2):
        nursery.start_soon(answer, peer, WHOLE)
        request = httpx.Request("GET", "http://upstream.test/", headers={"Connection": "close"})
        assert await read(await transport.handle_async_request(request)) == b"hello"
    assert peer.connections == 2


async def test_bytes_after_the_answer_end_the_connection(nursery: trio.Nursery) -> None:
    peer = Peer()
    transport = OneConnection(peer.connect)
    nursery.start_soon(answer, peer, WHOLE + b"HTTP/1.1 200 OK\r\n")
    assert await read(await transport.handle_async_request(post())) == b"hello"
    nursery.start_soon(answer, peer, WHOLE)
    assert await read(await transport.handle_async_request(post())) == b"hello"
    assert peer.connections == 2


async def test_nobody_listening_is_a_connect_error() -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(httpx.ConnectError):
            await OneConnection().handle_async_request(httpx.Request("GET", url))


async def test_a_host_that_does_not_react_is_a_connect_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async def never(url: httpx.URL) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(httpx.ConnectTimeout):
        await OneConnection(never).handle_async_request(post())
    assert trio.current_time() == pytest.approx(CONNECT_TIMEOUT)


async def test_a_reset_connection_is_a_network_error() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def reset() -> None:
        stream = await listener.accept()
        await stream.receive_some()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery, listener:
        nursery.start_soon(reset)
        with pytest.raises(httpx.ReadError):
            await OneConnection().handle_async_request(httpx.Request("GET", url))


async def test_a_refused_connection_says_so_in_plain_words() -> None:
    with socket.socket() as placeholder:  # bound and not listening
        placeholder.bind(("127.0.0.1", 0))
        url = f"http://localhost:{placeholder.getsockname()[1]}/"
        with pytest.raises(httpx.ConnectError) as caught:
            await OneConnection().handle_async_request(httpx.Request("GET", url))
    assert "is it running?" in str(caught.value)
    assert "sub-exception" not in str(caught.value)
