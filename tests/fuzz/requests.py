"""Requests as bytes, and answers out of bytes. Neither is what a client library would let through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

Headers = list[tuple[bytes, bytes]]

HEAD_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})(?: [^\r\n]*)?\r\n")


@dataclass
class RawRequest:
    """A request. ``chunks`` are sizes: with them the body is sent in chunks, without it has a content-length."""

    method: bytes = b"GET"
    target: bytes = b"/health"
    headers: Headers = field(default_factory=list)
    body: bytes | None = None
    chunks: Sequence[int] = ()
    version: bytes = b"HTTP/1.1"
    host: bytes | None = b"localhost"
    end: bytes = b"\r\n"

    def to_bytes(self) -> bytes:
        """As it goes over the wire."""
        headers = [(b"Host", self.host)] if self.host is not None else []
        headers += self.headers
        body = self.body or b""
        if self.body is not None and self.chunks:
            headers.append((b"Transfer-Encoding", b"chunked"))
            body = chunked(self.body, self.chunks)
        elif self.body is not None:
            headers.append((b"Content-Length", b"%d" % len(body)))
        lines = [
            b" ".join((self.method, self.target, self.version)),
            *(name + b": " + value for name, value in headers),
        ]
        return self.end.join(lines) + self.end * 2 + body


def chunked(body: bytes, sizes: Sequence[int], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """The body in chunks of these sizes, one after the other, again and again."""
    pieces, at, turn = b"", 0, 0
    while at < len(body):
        piece = body[at : at + sizes[turn % len(sizes)]]
        pieces += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
        at, turn = at + len(piece), turn + 1
    return pieces + b"0\r\n" + trailer + b"\r\n"


@dataclass(frozen=True)
class RawAnswer:
    """A whole answer. Names of headers are lower-case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class NoAnswer(ValueError):
    """These bytes are no HTTP answer."""


def statuses_in(data: bytes) -> list[int]:
    """The status of every answer that begins in ``data``, wherever its body ends."""
    return [int(status) for status in _STATUS.findall(data)]


def answers_in(data: bytes, methods: Sequence[bytes], *, ended: bool) -> list[RawAnswer]:
    """The whole answers at the beginning of ``data``, to requests of these methods; interim ones are left out.

    ``ended`` says that no byte follows. Raises :class:`NoAnswer`, also for bytes behind the last of them.
    """
    found: list[RawAnswer] = []
    while data:
        head, there, rest = data.partition(HEAD_END)
        if not there:
            if ended or not (data.startswith(b"HTTP/1.1 ") or b"HTTP/1.1 ".startswith(data[:9])):
                raise NoAnswer(f"no head: {data[:80]!r}")
            return found
        line, *lines = head.split(b"\r\n")
        match = _STATUS.fullmatch(line + b"\r\n")
        if match is None:
            raise NoAnswer(f"no status line: {line[:80]!r}")
        status = int(match[1])
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(b":") for one in lines)}
        if status < 200:
            data = rest
            continue
        if len(found) >= len(methods):
            raise NoAnswer(f"one answer more than there are requests: {line[:80]!r}")
        body = _body(rest, headers, has_none=methods[len(found)] == b"HEAD" or status in (204, 304), ended=ended)
        if body is None:
            if ended:
                raise NoAnswer(f"cut short: {rest[-80:]!r}")
            return found
        found.append(RawAnswer(status, headers, body[0]))
        data = rest[body[1] :]
    return found


def _body(rest: bytes, headers: dict[bytes, bytes], *, has_none: bool, ended: bool) -> tuple[bytes, int] | None:
    """The body at the beginning of ``rest`` and the number of bytes that it took, or None if more must come."""
    if has_none:
        return b"", 0
    if headers.get(b"transfer-encoding") == b"chunked":
        return _unchunked(rest)
    if b"content-length" in headers:
        size = int(headers[b"content-length"])
        return (rest[:size], size) if len(rest) >= size else None
    return (rest, len(rest)) if ended else None


def _unchunked(rest: bytes) -> tuple[bytes, int] | None:
    body, at = b"", 0
    while True:
        line = rest.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(rest[at:line], 16)
        at = line + 2 + size + 2
        if len(rest) < at:
            return None
        body += rest[line + 2 : line + 2 + size]
        if not size:
            return body, at
