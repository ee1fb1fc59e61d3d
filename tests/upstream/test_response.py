"""One response as it arrives: whatever the pieces are in which it comes, it is what h11 makes of it."""

from __future__ import annotations

from collections.abc import Iterable

import h11
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.upstream.response import MAX_HEAD, ArrivingResponse

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n"


def arrived(pieces: Iterable[bytes], method: str = "POST", *, end: bool = False) -> ArrivingResponse:
    response = ArrivingResponse(method)
    for piece in pieces:
        response.feed(piece)
    if end:
        response.end()
    return response


def by_h11(data: bytes) -> tuple[int, bytes, list[tuple[bytes, bytes]], bytes, bool]:
    """Status, reason, headers and body of a response that ends with its connection, and whether others may follow."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head, body, ended = None, b"", False
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif event is h11.NEED_DATA:
            ended = True
            connection.receive_data(b"")
    assert head is not None
    reusable = connection.their_state is h11.DONE and not ended
    return head.status_code, bytes(head.reason), [(n.title(), v) for n, v in head.headers], body, reusable


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """The bytes of one response, with interim ones before it, in any framing."""
    interim = CONTINUE * draw(st.integers(0, 2))
    version = draw(st.sampled_from([b"1.0", b"1.1"]))
    status = draw(st.sampled_from([200, 204, 404, 429, 500, 503]))
    reason = draw(st.sampled_from([b"OK", b"Not Found", b"Too many of them"]))
    body = draw(st.binary(max_size=200)) if status != 204 else b""
    headers = draw(st.sampled_from([b"", b"Connection: close\r\n", b"X-One: a\r\nX-Two: b: c\r\n"]))
    framing = draw(st.sampled_from(["length", "chunks", "end"])) if version == b"1.1" and status != 204 else "length"
    if framing == "length":
        headers += b"Content-Length: %d\r\n" % len(body) if status != 204 else b""
    elif framing == "chunks":
        headers += b"Transfer-Encoding: chunked\r\n"
        cuts = draw(st.lists(st.integers(0, len(body)), max_size=4).map(sorted))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
    return interim + b"HTTP/%b %d %b\r\n%b\r\n%b" % (version, status, reason, headers, body)


@given(responses(), st.lists(st.integers(0, 400), max_size=8).map(sorted))
def test_however_it_is_cut_it_is_what_h11_makes_of_it(data: bytes, cuts: list[int]) -> None:
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    response = arrived(piece for piece in pieces if piece)
    was_whole, last = response.whole, response.last
    response.end()
    status, reason, headers, body, reusable = by_h11(data)
    seen = [(name.title(), value) for name, value in response.headers]
    assert (response.status, response.reason, seen, response.take()) == (status, reason, headers, body)
    assert (was_whole and not last) == reusable
    assert response.take() == b""


@given(st.integers(0, len(WHOLE) - 1))
def test_one_that_is_cut_short_is_an_error(size: int) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="was closed"):
        arrived([WHOLE[:size]] if size else [], end=True)


def test_nothing_at_all_is_told_from_half_an_answer() -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without an answer"):
        arrived([], end=True)
    with pytest.raises(httpx.RemoteProtocolError, match="in the middle"):
        arrived([CONTINUE], end=True)


@pytest.mark.parametrize("more", [b"x", OK, WHOLE, b"\0\xff"])
def test_what_follows_a_whole_one_is_not_part_of_it_and_ends_the_connection(more: bytes) -> None:
    for pieces in ([WHOLE + more], [WHOLE, more]):
        response = arrived(pieces)
        assert (response.whole, response.last) == (True, True)
        assert (response.status, response.reason, response.headers) == (200, b"OK", [(b"Content-Length", b"5")])
        assert response.take() == b"hello"


def test_a_response_to_head_has_no_body() -> None:
    response = arrived([OK + b"Content-Length: 500\r\n\r\n"], "HEAD")
    assert (response.whole, response.last, response.take()) == (True, True, b"")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(WHOLE.replace(b"\r\n", b"\n"), id="bare line feeds"),
        pytest.param(CHUNKED + b"5  \r\nhello\r\n0\r\n\r\n", id="spaces behind the size of a chunk"),
        pytest.param(
            CHUNKED.replace(b"OK\r\n", b"OK\r\nContent-Length: 5\r\n") + b"5\r\nhello\r\n0\r\n\r\n", id="two framings"
        ),
    ],
)
def test_what_servers_get_wrong_harmlessly_is_read(said: bytes) -> None:
    response = arrived([said])
    assert (response.status, response.whole, response.take()) == (200, True, b"hello")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"+OK ready\r\n\r\n", id="another protocol"),
        pytest.param(CHUNKED + b"zz\r\n", id="a bad chunk size"),
        pytest.param(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", id="two lengths"),
        pytest.param(OK + b"A: b\r\n c: d\r\n\tno\0ne: x\r\n\r\n", id="a zero in a header"),
        pytest.param(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", id="another protocol follows"),
        pytest.param(OK + b"X: " + bytes(b"a" * MAX_HEAD), id="a head without end"),
        pytest.param(CONTINUE * (MAX_HEAD // len(CONTINUE) + 1), id="interim responses without end"),
    ],
)
def test_what_is_no_http_is_an_error(said: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        arrived([said[start : start + 1000] for start in range(0, len(said), 1000)])
