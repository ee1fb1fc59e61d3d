"""What a GGUF file says of its model: the context that it was trained for, and the size of its KV cache.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian as all common files.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

MAX_TEXT: Final = 2**16
"""Bytes of a key or an architecture's name at most: the format's own limit for keys. Longer texts are skipped."""

MAX_LAYERS: Final = 2**16
"""Numbers that are read of an array with one per layer."""

CACHE_ELEMENT: Final = 2
"""Bytes of one number in the KV cache: llama.cpp's default is 16 bits."""

_STRING: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_INTEGERS: Final = (4, 5, 10, 11)

_FAULTS: Final = (struct.error, KeyError, ValueError, OverflowError, RecursionError, OSError)
"""What a damaged file comes to; the last for a place that no file has."""

_CONTEXT: Final = ".context_length"
_LAYERS: Final = ".block_count"
_WIDTH: Final = ".embedding_length"
_HEADS: Final = ".attention.head_count"
_CACHED_HEADS: Final = ".attention.head_count_kv"
_KEY: Final = ".attention.key_length"
_VALUE: Final = ".attention.value_length"
_WANTED: Final = (_CONTEXT, _LAYERS, _WIDTH, _HEADS, _CACHED_HEADS, _KEY, _VALUE)


@dataclass(frozen=True, slots=True)
class Header:
    """``trained`` is the context in tokens that the model was trained for, or None if the file does not say.

    ``cache_per_token`` is the size of the KV cache in bytes per token of context; 0 if the file does not say.
    """

    trained: int | None = None
    cache_per_token: int = 0


def read_header(path: Path) -> Header:
    """Read the metadata that stands before the vocabulary. A file that is no GGUF file says nothing.

    Raises :class:`OSError` if it cannot be opened.
    """
    found: dict[str, list[int]] = {}
    with path.open("rb") as file, suppress(*_FAULTS):
        _search(file, found)  # what stands before a fault counts
    return Header(max(found.get(_CONTEXT, [0])) or None, max(0, _cache_per_token(found)))


def _cache_per_token(found: dict[str, list[int]]) -> int:
    """Keys and values of all heads of all layers. An upper bound: some layers of some models keep less."""
    layers, heads = max(found.get(_LAYERS, [0])), max(found.get(_HEADS, [0]))
    width = max(found.get(_WIDTH, [0])) // heads if heads else 0
    cached = found.get(_CACHED_HEADS, [heads])
    of_all_layers = cached[0] * layers if len(cached) == 1 else sum(cached)
    key, value = max(found.get(_KEY, [width])), max(found.get(_VALUE, [width]))
    return of_all_layers * (key + value) * CACHE_ELEMENT


def _search(file: IO[bytes], found: dict[str, list[int]]) -> None:
    """Put the numbers of the wanted keys into ``found``, by their names without the architecture's."""
    magic, version, _, entries = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        return
    architecture = None
    before: dict[str, list[int]] = {}  # the architecture was named
    for _ in range(entries):
        key = _text(file)
        if key.startswith("tokenizer.") and _CONTEXT in found:
            return  # the vocabulary is long, and what describes the layers stands before it
        (kind,) = struct.unpack("<I", file.read(4))
        if key == "general.architecture" and kind == _STRING:
            architecture = _text(file)
            found |= {wanted: before[architecture + wanted] for wanted in _WANTED if architecture + wanted in before}
        elif key.endswith(_WANTED) and (numbers := _numbers(file, kind)):
            before[key] = numbers
            if architecture is not None and key.removeprefix(architecture) in _WANTED:
                found[key.removeprefix(architecture)] = numbers
        elif not key.endswith(_WANTED):
            _skip(file, kind, 1)


def _text(file: IO[bytes]) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_TEXT:
        raise OverflowError
    return file.read(length).decode()


def _numbers(file: IO[bytes], kind: int) -> list[int]:
    """The value of an entry: all numbers of an array, a list of one for a single number, else nothing."""
    count = 1
    if kind == _ARRAY:
        kind, count = struct.unpack("<IQ", file.read(12))
    if kind not in _INTEGERS or count > MAX_LAYERS:
        _skip(file, kind, count)
        return []
    form = f"<{count}{_NUMBERS[kind]}"
    return list(struct.unpack(form, file.read(struct.calcsize(form))))


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
