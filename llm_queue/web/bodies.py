"""Request bodies that arrive compressed: gzip and deflate are decoded, within the limits of any other body."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import trio

from llm_queue.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

PIECE: Final = 256 * 2**10
"""Bytes that are decoded in one go, in about a millisecond. Others have their turn in between."""

FED: Final = 16 * 2**10
"""Bytes that zlib is given at once. It copies what it leaves of them, and a body may have a million members."""

_WINDOW: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_WINDOW: Final = -15


def known_encoding(header: str | None) -> str | None:
    """The coding that ``Content-Encoding`` names, or None for a plain body. Raises ``UnsupportedEncoding``."""
    codings = [name.strip().lower() for name in (header or "").split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _WINDOW:
        raise UnsupportedEncoding(
            f"The body's encoding {', '.join(codings)[:100]!r} is not read here. "
            "Send it as it is, or with `Content-Encoding: gzip` or `deflate`."
        )
    return codings[0]


async def decoded(body: bytes, encoding: str, limit: int, arrive: Callable[[int], None]) -> bytes:
    """The body that ``encoding`` was applied to. ``arrive`` is told of each piece's size in bytes, and may refuse it.

    Raises ``BodyTooLarge`` as soon as there are more than ``limit`` bytes, so that a small body cannot become a huge
    one, and ``BadRequest`` where it is not what it says, or is cut short. Cancelled, it leaves nothing behind.
    """
    pieces, packed, at = bytearray(), memoryview(body), 0
    while True:
        stream = zlib.decompressobj(_window(encoding, body[at : at + 2]))
        while not stream.eof:
            fed = packed[at : at + FED]
            try:
                piece = stream.decompress(fed, PIECE)
            except zlib.error:
                raise BadRequest(f"The body is not valid {encoding}.") from None
            at += len(fed) - len(stream.unconsumed_tail or stream.unused_data)
            if not (piece or fed or stream.eof):
                raise BadRequest(f"The body is {encoding} that is cut short.")
            arrive(len(piece))
            pieces += piece
            if len(pieces) > limit:
                raise BodyTooLarge(f"The decoded body is larger than {limit} bytes. Send less, or raise --max-body.")
            await trio.lowlevel.checkpoint()
        if at == len(body):
            return bytes(pieces)
        if encoding == "deflate":
            raise BadRequest("The body goes on after the end of its deflate stream.")


def _window(encoding: str, start: bytes) -> int:
    """The format as zlib numbers it. "deflate" is the zlib format, but some clients send the bare stream."""
    if encoding == "deflate" and not (len(start) > 1 and start[0] & 15 == 8 and int.from_bytes(start[:2]) % 31 == 0):
        return _RAW_WINDOW
    return _WINDOW[encoding]
