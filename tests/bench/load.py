"""Many callers in one process: raw HTTP/1.1, so that the load costs little beside what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Final

from tests.bench.ways import Way

PATIENCE: Final = 600.0
"""Seconds after which an answer never comes."""


TOKEN: Final = b'x "'
"""The end of a token of the benchmark's engine, in every dialect."""

PATHS: Final = {
    "OpenAI's chat": "/v1/chat/completions",
    "OpenAI's Responses": "/v1/responses",
    "Anthropic's": "/v1/messages",
    "Ollama's": "/api/chat",
}


def request_in(dialect: str, *, stream: bool = False) -> bytes:
    """One question to the line in one of its dialects."""
    body: dict[str, object] = {"model": "fake", "stream": stream, "max_tokens": 100_000}
    if dialect == "OpenAI's Responses":
        body["input"] = "x"
    else:
        body["messages"] = [{"role": "user", "content": "x"}]
    return _post(PATHS[dialect], body)


def request(way: Way, *, stream: bool = False, priority: bool = False, close: bool = False) -> bytes:
    """One question, as bytes for the wire, in the dialect of this way."""
    body: dict[str, object] = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    headers = "connection: close\r\n" if close else ""
    if way.native:
        path = "/api/chat"
        body["options"] = {"num_ctx": 8192}
        headers += "x-priority: 1\r\n" if priority else ""
    else:
        path = "/v1/chat/completions"
        if priority:
            body["priority"] = True
    return _post(path, body, headers)


def _post(path: str, body: dict[str, object], headers: str = "") -> bytes:
    data = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}"
        f"content-length: {len(data)}\r\n\r\n{data}"
    ).encode()


@dataclass
class Caller:
    """A connection of a caller."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, way: Way) -> Caller:
        """Connect to the way's address."""
        host, _, port = way.url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, data: bytes) -> bytes:
        """Send a request and return the whole answer. Raises ``AssertionError`` unless its status is 200."""
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> bytes:
        """The answer to what was sent."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head + await self.reader.read(500)
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            pieces = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                pieces.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return b"".join(pieces)
        length = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
        return await self.reader.readexactly(length)

    async def first(self, data: bytes) -> float:
        """Send a request for a stream; the seconds until its first token was there. The rest is read, too."""
        begun = time.monotonic()
        self.writer.write(data)
        await self.reader.readuntil(TOKEN)
        took = time.monotonic() - begun
        await self.reader.readuntil(b"0\r\n\r\n")
        return took

    def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


async def one_after_the_other(way: Way, data: bytes, times: int, *, anew: bool) -> list[float]:
    """Ask ``times`` times; with ``anew``, on a new connection each time. The seconds that each took."""
    took = []
    caller = None if anew else await Caller.connect(way)
    for _ in range(times):
        begun = time.monotonic()
        one = caller or await Caller.connect(way)
        await one.ask(data)
        took.append(time.monotonic() - begun)
        if caller is None:
            one.close()
    if caller is not None:
        caller.close()
    return took
