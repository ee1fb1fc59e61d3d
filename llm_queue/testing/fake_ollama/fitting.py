"""Small answers that fit a JSON schema: what the fake Ollama says where a format is asked for."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from llm_queue.testing.fake_ollama.exchange import JsonObject

_FORMATS: Final = {
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "date-time": "2026-01-01T00:00:00Z",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_NUMBER: Final = 42
_DEEPEST: Final = 64
_LONGEST: Final = 1000
_MOST: Final = 20
_TOKEN: Final = re.compile(r'[{}\[\]:,"] ?|[^{}\[\]:,"]+')


def fitting_tokens(schema: JsonObject) -> list[str]:
    """A value that fits the schema, as JSON in pieces. For a schema that cannot be read it is plain text, because a
    real Ollama then goes on without one, too.
    """
    try:
        return _TOKEN.findall(json.dumps(fitting(schema, schema)))
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return ["no ", "such ", "schema"]


def fitting(schema: Any, root: JsonObject, depth: int = 0) -> Any:
    """A small value that fits a schema: what must be there, and the first of what there is to choose from.

    Raises ``LookupError`` for a reference that leads nowhere, or to no end.
    """
    if depth > _DEEPEST:
        raise LookupError("a value that fits would have no end")
    if schema is True or schema == {}:
        return {}
    if "$ref" in schema:
        return fitting(_target(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return fitting(schema[choice][0], root, depth + 1)
    if "allOf" in schema:
        whole: JsonObject = {}
        for part in [{key: value for key, value in schema.items() if key != "allOf"}, *schema["allOf"]]:
            whole |= fitting(part | {"type": "object"}, root, depth + 1)
        return whole
    kind = schema.get("type", "object")
    return _of_kind(kind if isinstance(kind, str) else kind[0], schema, root, depth)


def _of_kind(kind: str, schema: JsonObject, root: JsonObject, depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties", {})
            required = [name for name in properties if name in schema.get("required", ())]
            return {name: fitting(properties[name], root, depth + 1) for name in required}
        case "array":
            item = schema.get("items", {"type": "null"})
            return [fitting(item, root, depth + 1) for _ in range(min(schema.get("minItems", 0), _MOST))]
        case "string":
            return _FORMATS.get(schema.get("format", ""), "x" * min(schema.get("minLength", 0), _LONGEST))
        case "integer" | "number":
            number = min(schema.get("maximum", _NUMBER), _NUMBER)
            return max(schema.get("minimum", number), number)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            raise LookupError(f"there is no type {kind!r}")


def _target(reference: str, root: JsonObject) -> Any:
    """What a reference names, the way llama.cpp reads it: nothing but ``#/…``."""
    start, *steps = reference.split("/")
    if start != "#" or not steps:
        raise LookupError(f"{reference!r} cannot be followed")
    target: Any = root
    for step in steps:
        target = target[int(step)] if isinstance(target, list) else target[step]
    return target
