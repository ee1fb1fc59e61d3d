"""What a GGUF file says of its model: the context it was trained for.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian as all common files.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Final

MAX_TEXT: Final = 2**16
"""Bytes of a key or an architecture's name at most: the format's own limit for keys. Longer texts are skipped."""

_STRING: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def trained_context(path: Path) -> int | None:
    """The context in tokens that the model was trained for; None if the file does not say, or is no GGUF file.

    Reads the metadata until it is found, which is before the vocabulary. Raises :class:`OSError`.
    """
    with path.open("rb") as file:
        try:
            return _search(file)
        except (struct.error, KeyError, UnicodeDecodeError, OverflowError):
            return None


def _search(file: IO[bytes]) -> int | None:
    magic, version, _, entries = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        return None
    architecture = None
    contexts: dict[str, int] = {}
    for _ in range(entries):
        key = _text(file)
        (kind,) = struct.unpack("<I", file.read(4))
        if key == "general.architecture" and kind == _STRING:
            architecture = _text(file)
        elif key.endswith(".context_length") and kind in (4, 10):
            contexts[key.removesuffix(".context_length")] = _number(file, kind)
        else:
            _skip(file, kind, 1)
        if architecture in contexts:
            return contexts[architecture] or None
    return None


def _text(file: IO[bytes]) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_TEXT:
        raise OverflowError
    return file.read(length).decode()


def _number(file: IO[bytes], kind: int) -> int:
    form = "<" + _NUMBERS[kind]
    (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
    return int(value)


def _skip(file: IO[bytes], kind: int, count: int) -> None:
    if kind == _STRING:
        for _ in range(count):
            (length,) = struct.unpack("<Q", file.read(8))
            file.seek(length, 1)
    elif kind == _ARRAY:
        for _ in range(count):
            inner, length = struct.unpack("<IQ", file.read(12))
            _skip(file, inner, length)
    else:
        file.seek(count * struct.calcsize("<" + _NUMBERS[kind]), 1)
