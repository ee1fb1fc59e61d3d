"""Forms of HTTP that servers have stumbled over: two lengths, odd chunks, upgrades, headers with odd values."""

from __future__ import annotations

import base64
import gzip
import random
import zlib
from dataclasses import dataclass
from typing import Final

from tests.fuzz.requests import RawRequest

PIECES: Final = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b": ", b"\r\n\r\n", b"\r\n ", b"\x80", b"\xff", b"%00", b"/../"),
    *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/9.9", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Expect: 100-continue\r\n", b"?x=1&x"),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Host: evil.example\r\n", b"a" * 70_000),
    *(
        b"X-A: b\r\n" * 150,
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"GET http://localhost/health HTTP/1.1\r\n",
        b"?\xe9",
    ),
)
"""What is put into requests."""

_BODY: Final = b'{"input":"x"}'
_SECOND: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: %s\r\n\r\n"

REFUSED: Final = frozenset((400,))
ENDLESS: Final[frozenset[int]] = frozenset()
"""It says that more follows than ever comes, so that nobody waits for its answer."""

ONCE: Final = frozenset((200, 400))
"""It may be read in the one way that there is, or be refused."""


@dataclass(frozen=True)
class Form:
    """One message: headers that say how long it is, and a body behind which a second request seems to begin.

    ``line`` is the end of each line of the head.
    """

    headers: tuple[bytes, ...]
    body: bytes
    statuses: frozenset[int] = REFUSED
    line: bytes = b"\r\n"

    def data(self, request_id: bytes) -> bytes:
        """As it goes over the wire."""
        head = (b"POST /v1/embeddings HTTP/1.1", b"Host: localhost", b"X-Request-Id: " + request_id, *self.headers)
        return self.line.join(head) + self.line * 2 + self.body.replace(b"%s", request_id)


def _chunks(size: bytes, end: bytes = b"\r\n") -> bytes:
    return size + end + _BODY + b"\r\n0\r\n\r\n" + _SECOND


_CHUNKED: Final = b"Transfer-Encoding: chunked"
_LENGTH: Final = b"Content-Length: %d" % len(_BODY)
_CLOSE: Final = b"Connection: close"

SMUGGLED: Final = (
    # both lengths
    Form((b"Content-Length: 4", _CHUNKED), b"0\r\n\r\n" + _SECOND),
    Form((_CHUNKED, b"Content-Length: 4"), b"0\r\n\r\n" + _SECOND),
    Form((_CHUNKED, _LENGTH), _chunks(b"d")),
    # a transfer coding that only some take for chunks
    Form((_CHUNKED, _CHUNKED), _chunks(b"d"), frozenset((400, 501))),
    Form((_CHUNKED, b"Transfer-Encoding: x"), _chunks(b"d"), frozenset((400, 501))),
    Form((b"Transfer-Encoding: xchunked",), _chunks(b"d"), frozenset((400, 501))),
    Form((b"Transfer-Encoding: chunked, identity",), _chunks(b"d"), frozenset((400, 501))),
    Form((b"Transfer-Encoding: identity, chunked",), _chunks(b"d"), frozenset((400, 501))),
    Form((b"Transfer-Encoding : chunked",), _chunks(b"d")),
    Form((b"Transfer-Encoding:\x0bchunked",), _chunks(b"d"), frozenset((400, 501))),
    Form((b"Transfer-Encoding: \xefchunked",), _chunks(b"d"), frozenset((400, 501))),
    Form((b'Transfer-Encoding: "chunked"',), _chunks(b"d"), frozenset((400, 501))),
    Form((b" Transfer-Encoding: chunked", _LENGTH, _CLOSE), _BODY, ONCE),
    # a length that is none
    Form((_LENGTH, b"Content-Length: 0"), _BODY + _SECOND),
    Form((b"Content-Length: 0", _LENGTH), _BODY + _SECOND),
    Form((_LENGTH, _LENGTH, _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"Content-Length: 13, 13", _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"Content-Length: 13, 0",), _BODY + _SECOND),
    Form((b"Content-Length: +13",), _BODY + _SECOND),
    Form((b"Content-Length: -13",), _BODY + _SECOND),
    Form((b"Content-Length: 0x0d",), _BODY + _SECOND),
    Form((b"Content-Length: 1_3",), _BODY + _SECOND),
    Form((b"Content-Length: 13 0",), _BODY + _SECOND),
    Form((b"Content-Length: \xb2",), _BODY + _SECOND),
    Form((b"Content-Length: ",), _BODY + _SECOND),
    Form((b"Content-Length : 13",), _BODY + _SECOND),
    Form((b"Content-Length: " + b"9" * 30,), _BODY + _SECOND, frozenset((400, 413))),
    Form((b"Content-Length: " + b"9" * 5000,), _BODY + _SECOND, frozenset((400, 413))),
    # chunks whose size is none
    Form((_CHUNKED,), _chunks(b"g")),
    Form((_CHUNKED,), _chunks(b"")),
    Form((_CHUNKED,), _chunks(b"-d")),
    Form((_CHUNKED,), _chunks(b"+d")),
    Form((_CHUNKED,), _chunks(b"0xd")),
    Form((_CHUNKED,), _chunks(b" d")),
    Form((_CHUNKED,), _chunks(b"d_0")),
    Form((_CHUNKED,), _chunks(b"f" * 17), ENDLESS),
    Form((_CHUNKED,), _chunks(b"f" * 21)),
    Form((_CHUNKED,), _chunks(b"c")),
    Form((_CHUNKED, _CLOSE), _chunks(b"d;a=b"), ONCE),
    Form((_CHUNKED, _CLOSE), _chunks(b'd;a="b\nc"'), ONCE),
    Form((_CHUNKED, _CLOSE), _chunks(b"d "), ONCE),
    Form((_CHUNKED, _CLOSE), _chunks(b"d", b"\n"), ONCE),
    Form((_CHUNKED, _CLOSE), _chunks(b"0" * 15 + b"d"), ONCE),
    Form((_CHUNKED, _CLOSE), b"d\r\n%b\r\n0\r\nContent-Length: 5\r\n\r\n" % _BODY + _SECOND, ONCE),
    # lines
    Form((_LENGTH, _CLOSE), _BODY + _SECOND, ONCE, line=b"\n"),
    Form((_LENGTH, _CLOSE), _BODY + _SECOND, ONCE, line=b"\r\r\n"),
    Form((b"X-Folded: a\r\n Content-Length: 0", _LENGTH, _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"X-Folded: a\r\n\tTransfer-Encoding: chunked", _LENGTH, _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"X-Nul: a\0b", _LENGTH, _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"X-Cr: a\rContent-Length: 0", _LENGTH, _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"X-Lf: a\nX-B: c", _LENGTH, _CLOSE), _BODY + _SECOND, ONCE),
    Form((b"No colon", _LENGTH), _BODY + _SECOND),
    Form((b": empty", _LENGTH), _BODY + _SECOND),
    Form((b"Host: localhost", _LENGTH), _BODY + _SECOND, frozenset((400, 403))),
)
"""Each has one answer, whatever follows it."""


# --- upgrades ---------------------------------------------------------------------------------------------------------

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS: Final = b"\0\0\0\4\0\0\0\0\0"
_WEBSOCKET: Final = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Request-Id: %s\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_H2C: Final = (
    b"%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nX-Request-Id: %s\r\n"
    b"HTTP2-Settings: %s\r\n\r\n"
)


def upgrade(turn: int, request_id: bytes, draw: random.Random) -> bytes:
    """An attempt to speak something else, and what follows it in that language."""
    path = draw.choice((b"/", b"/queue", b"/v1/chat/completions", b"/ws"))
    match turn % 6:
        case 0:
            return _WEBSOCKET % (path, request_id) + _frames(draw)
        case 1:
            return _PREFACE + _SETTINGS + _h2_frames(draw)
        case 2:
            settings = draw.choice((b"AAMAAABkAAQAAP__", b"", b"!!", base64.urlsafe_b64encode(draw.randbytes(30))))
            return _H2C % (b"GET " + path, request_id, settings) + _PREFACE + _SETTINGS + _h2_frames(draw)
        case 3:
            return _H2C % (b"POST /v1/embeddings", request_id, b"AAMAAABkAAQAAP__") + _h2_frames(draw)
        case 4:
            return b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + draw.randbytes(40)
        case _:
            return draw.choice(
                (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"")
            ) + draw.randbytes(draw.choice((0, 1, 50, 70_000)))


def _frames(draw: random.Random) -> bytes:
    """Masked frames of a WebSocket, or what looks like them."""
    return b"".join(
        bytes([draw.randrange(256), 0x80 | draw.randrange(126)]) + draw.randbytes(draw.randrange(40)) for _ in range(3)
    )


def _h2_frames(draw: random.Random) -> bytes:
    """Frames of HTTP/2, with odd types, flags and lengths."""
    frames = b""
    for _ in range(draw.randrange(6)):
        payload = draw.randbytes(draw.randrange(60))
        length = draw.choice((len(payload), len(payload), 0, 2**24 - 1))
        frames += length.to_bytes(3, "big") + bytes([draw.randrange(11), draw.randrange(256)])
        frames += draw.choice((0, 1, 2, 2**31 - 1)).to_bytes(4, "big") + payload
    return frames


# --- headers ----------------------------------------------------------------------------------------------------------

_VALUES: Final = (
    *(
        b"",
        b" ",
        b"0",
        b"-1",
        b"1",
        b"1e999",
        b"nan",
        b"inf",
        b"0x10",
        b"9" * 400,
        b"9" * 5000,
        b"true",
        b"null",
        b"\xff",
    ),
    *(b"interactive", b"background", b"localhost", b"http://evil.example", b"a" * 5000, b"\xe9", b"a,b;q=1", b"%ff"),
    *(b"Bearer ", b"Bearer x", b"Basic !!", b"gzip", b"br", b"gzip, gzip", b"deflate", b"[::1]:99999999", b"[", b"*"),
)
_NAMES: Final = (
    *(b"Host", b"Origin", b"Authorization", b"x-api-key", b"anthropic-version", b"X-Request-Id", b"User-Agent"),
    *(b"X-LLM-Queue-Lane", b"X-LLM-Queue-Max-Wait", b"X-LLM-Queue-Num-Ctx", b"X-LLM-Queue-Client"),
    *(
        b"X-LLM-Queue-Session",
        b"X-LLM-Queue-Instance",
        b"X-OpenWebUI-User-Id",
        b"session-id",
        b"thread-id",
        b"X-Claude-Code-Agent-Id",
        b"Content-Type",
        b"Accept",
    ),
    *(b"Content-Encoding", b"Cookie", b"If-None-Match", b"Range", b"Forwarded", b"X-Forwarded-For", b"Via", b"TE"),
    *(b"Access-Control-Request-Method", b"Access-Control-Request-Headers", b"Connection", b"Keep-Alive", b"Upgrade"),
)
_BOMB: Final = gzip.compress(bytes(9 * 2**20), 1, mtime=0)
_QUERIES: Final = (
    b"?",
    b"?x=1",
    b"?limit=5",
    b"?limit=-1",
    b"?limit=" + b"9" * 5000,
    b"?limit=%ff",
    b"?=&&=",
    b"#x",
    b"?a=%",
)


def add_odd_headers(request: RawRequest, draw: random.Random) -> None:
    """Give a sound request a few headers with odd values, another method, a query, or a body that is compressed."""
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        name, value = draw.choice(_NAMES), draw.choice(_VALUES)
        if name == b"Host":
            request.host = None
        if name in (b"Connection", b"X-Request-Id"):
            request.headers = [one for one in request.headers if one[0] != name]
        request.headers.append((name, value))
    match draw.randrange(8):
        case 0:
            request.method = draw.choice(
                (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"get", b"X-Y")
            )
        case 1 | 2:
            request.target += draw.choice(_QUERIES).partition(b"#")[0]
        case 3:
            request.target = draw.choice(
                (b"//", b"/%00", b"/%2e%2e/queue", b"/\x7f", request.target + b"/", b"/queue/jobs/%ff")
            )
        case 4 | 5 if request.body is not None:
            packed = gzip.compress(request.body, 1, mtime=0) if draw.random() < 0.7 else zlib.compress(request.body)
            packed = draw.choice(
                (packed, packed[:-3], packed + packed, packed + b"x", gzip.compress(bytes(9 * 2**20), 1, mtime=0))
            )
            request.headers.append((b"Content-Encoding", draw.choice((b"gzip", b"deflate", b"x-gzip"))))
            request.body = packed
            request.chunks = ()
        case _:
            pass
