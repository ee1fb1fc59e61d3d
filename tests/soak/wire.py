"""HTTP/1.1 as a caller speaks it that may do anything at any byte: raw sockets, and one request at a time on each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

PATIENCE = 600.0
"""Seconds after which an answer never comes. A client whose job hung for a second waits until each of the others has
had as much (bound 6), which in the lane of the background, with one pick in nine, has taken three minutes."""


class Closed(Exception):
    """The service closed the connection before its answer had ended."""


@dataclass
class Heard:
    """What has come of an answer so far. ``ended`` is true if its end came, as HTTP says."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    raw_head: bytes = b""
    ended: bool = False


class Line:
    """A connection to the service, opened anew whenever it must be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.fresh = True

    async def open(self) -> None:
        """Connect, unless it is connected."""
        if self._writer is None or self._reader is None or self._reader.at_eof() or self._writer.is_closing():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
            self.fresh = True

    async def send(self, data: bytes) -> None:
        """Send some bytes. Raises :class:`Closed`."""
        assert self._writer is not None
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (ConnectionError, OSError) as error:
            raise Closed(str(error)) from error

    def half_close(self) -> None:
        """Say that nothing more will come: to the service, that is a caller who has left."""
        assert self._writer is not None
        if self._writer.can_write_eof():
            self._writer.write_eof()

    def close(self, *, reset: bool = False) -> None:
        """Hang up, by a reset or with an end of file."""
        if self._writer is not None:
            if reset:
                self._writer.transport.abort()
            else:
                self._writer.close()
        self._reader = self._writer = None

    async def hear(self, heard: Heard, *, slow: float = 0.0, pieces: int | None = None) -> None:
        """Read the answer to its end, or until ``pieces`` of its body have come; wait ``slow`` seconds between two.

        Raises :class:`Closed` if it has no end, and ``TimeoutError`` if it never comes.
        """
        async with asyncio.timeout(PATIENCE):
            try:
                await self._hear(heard, slow, pieces)
            except (ConnectionError, asyncio.IncompleteReadError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
                raise Closed(f"{type(error).__name__} after {len(heard.body)} bytes of the body") from error
        if heard.ended:
            self.fresh = False
            if heard.headers.get("connection", "").lower() == "close":
                self.close()

    async def _hear(self, heard: Heard, slow: float, pieces: int | None) -> None:
        assert self._reader is not None
        heard.raw_head = head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        heard.status = int(first.split()[1])
        heard.headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        if pieces == 0:
            return
        if "content-length" in heard.headers:
            heard.body += await self._reader.readexactly(int(heard.headers["content-length"]))
            heard.ended = True
            return
        assert heard.headers.get("transfer-encoding") == "chunked", heard.headers
        count = 0
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            heard.body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            count += 1
            if pieces is not None and count >= pieces:
                return
            if slow:
                await asyncio.sleep(slow)
        await self._reader.readexactly(2)
        heard.ended = True
