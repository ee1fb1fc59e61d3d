"""Cutting an upstream's bytes into lines and events, within bounds, and reading the JSON in them.

The network cuts anywhere: within a line, within a character. Some servers cut as carelessly themselves, and send the
two halves of an emoji in two pieces of the answer, each of them half a surrogate pair or half a UTF-8 sequence. Such a
piece is no valid JSON; it is read all the same, and :class:`Halves` joins what belongs together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from llm_queue.errors import UpstreamBroke

MAX_LINE: Final = 8 * 2**20
"""Bytes that one line or event of an answer may have: as many as Ollama's own client allows (api/client.go)."""

LONGEST_ERROR: Final = 4000
"""Characters of an upstream's error that are passed on."""

T = TypeVar("T")

_BOM: Final = b"\xef\xbb\xbf"


class Lines:
    """Cuts bytes into lines, which end in a line feed, with or without a carriage return before it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in ``data``. Iterate to the end before more is fed, or give the whole up.

        Raises :class:`~llm_queue.errors.UpstreamBroke` for a line of more than :data:`MAX_LINE` bytes.
        """
        *ended, rest = data.split(b"\n")
        for piece in ended:
            line = bytes(self._rest) + piece if self._rest else piece
            self._rest.clear()
            check_length(len(line), "line")
            yield line.removesuffix(b"\r")
        self._rest += rest
        check_length(len(self._rest), "line")

    def rest(self) -> bytes:
        """What came after the last line feed."""
        return bytes(self._rest)


class Events:
    """Cuts bytes into server-sent events, and returns what is in their ``data`` fields.

    A field ``error`` counts as data: llama.cpp before 2025 sent its errors so. Comments and other fields are skipped.
    """

    def __init__(self) -> None:
        self._lines = Lines()
        self._event: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The events that end in ``data``, but for those without any. Iterate to the end before more is fed.

        Raises :class:`~llm_queue.errors.UpstreamBroke` for an event of more than :data:`MAX_LINE` bytes.
        """
        for line in self._lines.feed(data):
            if not line:
                if event := self.rest():
                    yield event
                self._event.clear()
                self._size = 0
                continue
            field, _, value = line.removeprefix(_BOM).partition(b":")
            if field in (b"data", b"error"):
                self._size += len(value)
                check_length(self._size, "event")
                value = value.removeprefix(b" ")
                self._event.append(value if field == b"data" else b'{"error":' + value + b"}")

    def rest(self) -> bytes:
        """The event that has begun and was not ended by an empty line."""
        return b"\n".join(self._event).strip()


def check_length(size: int, what: str) -> None:
    """Raises :class:`~llm_queue.errors.UpstreamBroke` for a line or an event of more than :data:`MAX_LINE` bytes."""
    if size > MAX_LINE:
        raise UpstreamBroke(f"The upstream sent {what}s of more than {MAX_LINE} bytes.")


def decode(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """What ``decoder`` reads. Raises :class:`~llm_queue.errors.UpstreamBroke` for anything else."""
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):  # ValueError: not UTF-8
        # Not what it says: that may be somebody's text, and errors are logged.
        raise UpstreamBroke("The upstream sent something that is not an answer.") from None


def decode_halves(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The same where characters may be cut in half; :class:`Halves` makes them whole again in the texts that are read.

    Raises :class:`~llm_queue.errors.UpstreamBroke` for anything else.
    """
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return decode(_mark_halves(text), decoder)


# --- characters in two halves -----------------------------------------------------------------------------------------
#
# JSON that has half a character in it is read with a mark in its place: a noncharacter, which no text has, and then the
# half as a character of the private use area. After that, a half is a lone surrogate in a str, as Python itself has it
# for undecodable bytes ("surrogateescape").

_MARK: Final = "\ufdd0"
_MARKED: Final = re.compile(_MARK + "([\ue000-\ue7ff])")
_SHIFT: Final = 0xE000 - 0xD800
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_LONE: Final = re.compile("[\ud800-\udfff]")
_BYTES: Final = re.compile("[\udc80-\udcff]+")
_UNFINISHED: Final = re.compile("(?:[\ud800-\udbff]|[\udcc2-\udcf4][\udc80-\udcbf]{0,2})\\Z")


class Halves:
    """Joins the halves of characters over the pieces of one text. A text without any costs a look for the mark."""

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str) -> str:
        """The text with every character whole; the half at its end, if there is one, comes with the next piece."""
        if not self._held and _MARK not in text:
            return text
        text = self._held + _MARKED.sub(lambda half: chr(ord(half[1]) - _SHIFT), text)
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # joins pairs
        text = _BYTES.sub(_whole_bytes, text)
        half = _UNFINISHED.search(text)
        self._held = half[0] if half else ""
        return _LONE.sub("\ufffd", text.removesuffix(self._held))

    def end(self) -> str:
        """What stands for a half whose other half never came: the sign for "no character", or nothing."""
        held, self._held = self._held, ""
        return "\ufffd" if held else ""


def _mark_halves(text: bytes) -> bytes:
    """The same JSON with a mark for each half of a character, be it an escape or bytes."""
    escaped = text.decode(errors="surrogateescape")
    marked = _ESCAPE.sub(lambda found: _marked(int(found[1], 16)) if found[1] else found[0], escaped)
    return _LONE.sub(lambda found: _marked(ord(found[0])), marked).encode()


def _marked(half: int) -> str:
    return _MARK + chr(half + _SHIFT)


def _whole_bytes(run: re.Match[str]) -> str:
    return run[0].encode(errors="surrogateescape").decode(errors="surrogateescape")
