"""JSON that nobody means: values out of types, trees with something wrong in them, and how they are written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect


@dataclass(frozen=True)
class Token:
    """Bytes that stand in a JSON text as they are, whether they are JSON or not."""

    data: bytes


def _deep(opening: bytes, closing: bytes, levels: int, inside: bytes = b"") -> bytes:
    return opening * levels + inside + closing * levels


ODD: Final = (
    *(
        b"null",
        b"true",
        b"false",
        b"0",
        b"-0",
        b"-1",
        b"1",
        b"0.5",
        b"1e999",
        b"-1e999",
        b"1e-999",
        b"NaN",
        b"Infinity",
    ),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616"),
    *(b"1.7976931348623157e308", b"9" * 400, b"9" * 5000, b"0." + b"1" * 5000, b"01", b"+1", b".5", b"1.", b"0x10"),
    *(b'""', b'" "', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\x00"', b'"\xff\xfe"'),
    *(b'"\\x"', b'"a', b"'a'", b'"' + "é".encode() * 300 + b'"', b'"' + b"a" * 20_000 + b'"', b'"a\\nb\\rc"'),
    *(b"[]", b"{}", b"[null]", b"[[]]", b'{"":null}', b'{"a":1,"a":2}', b"[1,]", b"{,}", b"[", b"{", b"]", b""),
    *(_deep(b"[", b"]", 30), _deep(b"[", b"]", 70), _deep(b"[", b"]", 5000), _deep(b"[", b"", 100_000)),
    *(_deep(b'{"a":', b"}", 30, b"1"), _deep(b'{"a":', b"}", 3000, b"1"), b"[" + b"{}," * 3000 + b"{}]"),
    *(b'"auto"', b'"none"', b'"data:image/png;base64,AAAA"', b'"data:,"', b'"http://127.0.0.1:1/x.png"', b'"fake"'),
)
"""Values that somebody's parser has stumbled over."""


def odd(draw: random.Random) -> Token:
    """One of them."""
    return Token(draw.choice(ODD))


# --- values of a type -------------------------------------------------------------------------------------------------


def value_of(kind: inspect.Type, draw: random.Random, depth: int = 4) -> Any:
    """A value that the type allows, on the whole."""
    maker = _MAKERS.get(type(kind))
    if depth <= 0 or maker is None:
        return draw.choice((None, 1, "x", True, [], {}))
    return maker(kind, draw, depth)


@cache
def fields_of(body: type) -> dict[str, inspect.Type]:
    """The fields of a struct as JSON has them, with their types."""
    described = inspect.type_info(body)
    return {one.encode_name: one.type for one in described.fields} if isinstance(described, inspect.StructType) else {}


def _struct(kind: Any, draw: random.Random, depth: int) -> Any:
    made = {
        one.encode_name: value_of(one.type, draw, depth - 1)
        for one in kind.fields
        if one.required or draw.random() < 0.3
    }
    return made | ({kind.tag_field: kind.tag} if kind.tag_field else {})


def _integer(kind: Any, draw: random.Random, depth: int) -> Any:
    low, high = kind.ge if kind.ge is not None else -(2**63), kind.le if kind.le is not None else 2**63 - 1
    return draw.choice([one for one in (0, 1, 2, 7, 512, low, high) if low <= one <= high])


_MAKERS: Final[dict[type, Callable[[Any, random.Random, int], Any]]] = {
    inspect.NoneType: lambda kind, draw, depth: None,
    inspect.BoolType: lambda kind, draw, depth: draw.random() < 0.5,
    inspect.IntType: _integer,
    inspect.FloatType: lambda kind, draw, depth: draw.choice((0, 0.5, 1, 1e-9, 1e300)),
    inspect.StrType: lambda kind, draw, depth: draw.choice(("", "x", "fake", "!tokens 1", "é\u2028", "a b")),
    inspect.LiteralType: lambda kind, draw, depth: draw.choice(kind.values),
    inspect.UnionType: lambda kind, draw, depth: value_of(draw.choice(kind.types), draw, depth),
    inspect.ListType: lambda kind, draw, depth: [
        value_of(kind.item_type, draw, depth - 1) for _ in range(draw.randrange(3))
    ],
    inspect.DictType: lambda kind, draw, depth: {
        f"k{index}": value_of(kind.value_type, draw, depth - 1) for index in range(draw.randrange(3))
    },
    inspect.StructType: _struct,
}


# --- something wrong in a tree ----------------------------------------------------------------------------------------

Place = tuple[Any, Any]
"""A dict or a list, and the key or the index of a value in it."""


def mutate(tree: Any, draw: random.Random, times: int) -> Any:
    """The same tree with up to ``times`` things wrong in it."""
    tree = json.loads(json.dumps(tree))
    for _ in range(times):
        places = list(_places(tree))
        if not places:
            return odd(draw)
        held, key = draw.choice(places)
        value = held[key]
        match draw.randrange(8):
            case 0 | 1 | 2:
                held[key] = odd(draw)
            case 3 if isinstance(held, dict):
                del held[key]
            case 4 if isinstance(held, dict):
                held[draw.choice(("", key + "\0", key.upper(), "x" * 300, "__proto__"))] = value
            case 5:
                held[key] = [value] if draw.random() < 0.5 else {"type": value}
            case 6 if isinstance(held, list):
                held.extend([value] * draw.choice((1, 2, 50)))
            case _:
                other, at = draw.choice(places)
                held[key] = json.loads(json.dumps(other[at], default=lambda _: None))
    return tree


def _places(tree: Any) -> list[Place]:
    found: list[Place] = []
    waiting = [tree]
    while waiting and len(found) < 2000:
        held = waiting.pop()
        if isinstance(held, dict | list):
            for key in held if isinstance(held, dict) else range(len(held)):
                found.append((held, key))
                waiting.append(held[key])
    return found


def write(tree: Any, draw: random.Random | None = None) -> bytes:
    """The tree as JSON text. With ``draw``, some keys are there twice, and there is white space in odd places."""
    space = draw.choice((b"", b"", b" ", b"\r\n\t")) if draw is not None else b""

    def text(value: Any) -> bytes:
        if isinstance(value, Token):
            return value.data
        if isinstance(value, dict):
            pairs = [(key, inner) for key, inner in value.items()]
            if draw is not None and pairs and draw.random() < 0.05:
                pairs.append((draw.choice(pairs)[0], odd(draw)))
            return b"{" + b",".join(space + text(key) + b":" + space + text(inner) for key, inner in pairs) + b"}"
        if isinstance(value, list):
            return b"[" + b",".join(space + text(inner) for inner in value) + b"]"
        return msgspec.json.encode(value)

    return text(tree)


def mutate_bytes(data: bytes, draw: random.Random, times: int, dictionary: tuple[bytes, ...] = ()) -> bytes:
    """The same bytes with up to ``times`` of them changed, lost, doubled or added."""
    changed = bytearray(data)
    for _ in range(times):
        at = draw.randrange(len(changed) + 1)
        span = draw.choice((1, 1, 2, 4, 16, 64))
        match draw.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at : at + 1] = bytes([draw.choice((0, 9, 10, 13, 32, 34, 58, 92, 127, 128, 255))])
            case 2:
                del changed[at : at + span]
            case 3:
                changed[at:at] = changed[at : at + span]
            case 4 if dictionary:
                changed[at:at] = draw.choice(dictionary)
            case _:
                del changed[at:]
                if draw.random() < 0.7:  # a truncation is much; more often it goes on with something else
                    changed += data[draw.randrange(len(data) + 1) :]
    return bytes(changed)
