"""Reading JSON from strangers: bounded before it is read, typed while it is read, and blamed by field.

A body is measured before it is decoded, so that no nesting, however deep, makes anything recurse. Integers in untyped
places (a tool's schema, for example) keep all their digits; what is typed says its own range.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, Final, TypeVar

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire.shapes import JsonObject

T = TypeVar("T")

_OBJECT: Final = msgspec.json.Decoder(JsonObject)

_BRACKETS: Final = b"[{]}"
_INSIGNIFICANT: Final = bytes(set(range(256)) - set(_BRACKETS) - set(b'",'))
_STEPS: Final = bytes.maketrans(_BRACKETS, b"\x01\x01\xff\xff")
_HALF_A_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_MISSING: Final = re.compile(r"Object missing required field `(.+)`")
_TYPES: Final = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_WORDS: Final = {
    "array": "an array",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "an object",
    "str": "a string",
}
_LONGEST_COMPLAINT: Final = 300

_BLOCK: Final = 2**16
"""Bytes looked at in one call into C: in a thread, each such call keeps all others from running."""


MAX_CONTAINERS: Final = 200_000
"""Arrays and objects in one text: far more than two thousand messages with their parts and tools have, and few enough
that building them holds nobody else up. Thirty megabytes of empty objects take seconds and a gigabyte.
"""


MAX_VALUES: Final = 200_000
"""Values in one text that follow another in their array or object. An object of a million takes half a second to build,
in one go.
"""


def measure(text: bytes) -> tuple[int, int, int]:
    """How deep the arrays and objects of a JSON text nest, how many there are, not counting those in strings, and how
    many values follow another.

    Linear in time, and in C, block by block: deleting escapes leaves quotes that only begin and end strings, so every
    second piece between quotes lies outside of them. For what is not JSON, some number.
    """
    deepest = level = start = containers = values = 0
    in_string = False
    while start < len(text):
        block = text[start : start + _BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:
            block = text[start : start + _BLOCK + 1]  # an escape is not cut in two
        start += len(block)
        skeleton = block.replace(rb"\\", b"").replace(rb"\"", b"").translate(_STEPS, _INSIGNIFICANT)
        pieces = skeleton.split(b'"')
        outside = b"".join(pieces[in_string::2])
        values += outside.count(b",")
        steps = outside.replace(b",", b"")
        containers += steps.count(1)
        levels = list(accumulate(memoryview(steps).cast("b"), initial=level))
        deepest, level = max(deepest, max(levels)), levels[-1]
        in_string ^= len(pieces) % 2 == 0
    return deepest, containers, values


def check_bounds(text: bytes, max_depth: int, *, within: str = "") -> None:
    """Refuse a JSON text, read or not, that nests deeper than ``max_depth``, or has more than :data:`MAX_CONTAINERS` or
    :data:`MAX_VALUES`.

    Raises :class:`~llm_queue.errors.BadRequest` that blames ``within``, the field that held the text.
    """
    place = within or "The request body"
    depth, containers, values = measure(text)
    if depth > max_depth:
        raise BadRequest(f"{place} is nested deeper than {max_depth} levels.", param=within or None)
    if containers > MAX_CONTAINERS:
        raise BadRequest(f"{place} has more than {MAX_CONTAINERS} arrays and objects.", param=within or None)
    if values > MAX_VALUES:
        raise BadRequest(f"{place} has more than {MAX_VALUES} values.", param=within or None)


def decode(text: bytes, decoder: msgspec.json.Decoder[T], max_depth: int, *, within: str = "") -> T:
    """The value that ``decoder`` reads from ``text``.

    Raises :class:`~llm_queue.errors.BadRequest` whose ``param`` is the offending field in OpenAI's notation
    (``messages[3].content``), as seen from ``within``, the field that held the text.
    """
    place = within or "The request body"
    try:
        text.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{place} is not UTF-8.", param=within or None) from None
    check_bounds(text, max_depth, within=within)
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise blame(error, within) from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: a number of more digits than Python reads
        detail = "it holds half of a surrogate pair" if _HALF_A_PAIR.search(text) else str(error)
        raise BadRequest(f"{place} is not valid JSON: {detail}.", param=within or None) from None


def part(raw: msgspec.Raw, decoder: msgspec.json.Decoder[T], place: str) -> T:
    """A part of a body that was decoded already, so that it is JSON within its bounds.

    Raises :class:`~llm_queue.errors.BadRequest` that blames a field of it, which stands at ``place``.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise blame(error, place) from None


def converted(value: JsonObject, shape: Any, place: str) -> Any:
    """An object of a body that was decoded already, as a ``shape``. Raises as :func:`part`."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise blame(error, place) from None


def object_in(text: str | bytes) -> JsonObject | None:
    """The object that a text of somebody's is in JSON; None if it is anything else, or nests too deeply to be read."""
    try:
        return _OBJECT.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def blame(error: msgspec.ValidationError, within: str = "") -> BadRequest:
    """The same complaint with the field it is about, both in the message and as ``param``."""
    complaint, _, path = str(error).rpartition(" - at `")
    if not complaint:
        complaint, path = path, ""
    field = within + path.rstrip("`").removeprefix("key in ").removeprefix("$")
    if missing := _MISSING.fullmatch(complaint):
        field, complaint = f"{field}.{missing[1]}", "this field is required"
    field = field.removeprefix(".")
    if len(complaint) > _LONGEST_COMPLAINT:
        complaint = complaint[:_LONGEST_COMPLAINT] + "…"
    complaint = _TYPES.sub(_in_json_words, complaint)
    return BadRequest(f"{field or 'The request body'}: {complaint}.", param=field or None)


def _in_json_words(types: re.Match[str]) -> str:
    return " or ".join(dict.fromkeys(_WORDS.get(name, name) for name in types[1].split(" | ")))
