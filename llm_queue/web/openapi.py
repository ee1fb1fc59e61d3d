"""The service described for programs: an OpenAPI document, made of the routes and of the types that bodies are read as.

What a route takes is in the types of :mod:`llm_queue.wire.callers`. What it answers is said by media type; the shape of
an error is read off errors, as each dialect writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, Final

import msgspec
from quart import Quart
from werkzeug.routing import Rule

from llm_queue import errors
from llm_queue.dispatch.status import JobReport, Status
from llm_queue.web.commands import DrainState, JobState, LaneBody, PauseBody, PauseState
from llm_queue.wire.callers.anthropic_shapes import MessagesBody
from llm_queue.wire.callers.dialect import JSON, Dialect, Operation
from llm_queue.wire.callers.ollama import LINES
from llm_queue.wire.callers.ollama_shapes import ShowBody
from llm_queue.wire.callers.openai_shapes import ChatBody
from llm_queue.wire.callers.responses_shapes import ResponsesBody
from llm_queue.wire.callers.routes import ROUTES, dialect_of
from llm_queue.wire.shapes import JsonObject

TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"
_REFERENCE: Final = "#/components/schemas/{name}"


class Ready(msgspec.Struct):
    """Whether the service can serve, and if not, why."""

    ready: bool
    reason: str | msgspec.UnsetType = msgspec.UNSET


BODIES: Final[dict[str, type]] = {
    "/v1/messages/count_tokens": MessagesBody,
    "/v1/responses/input_tokens": ResponsesBody,
    "/v1/chat/completions/input_tokens": ChatBody,
    "/chat/completions/input_tokens": ChatBody,
    "/api/show": ShowBody,
    "/queue/jobs/{job_id}/lane": LaneBody,
    "/queue/pause": PauseBody,
}
"""What those routes read that take a body and have no place in the line."""

MAY_BE_EMPTY: Final = frozenset(("/queue/pause",))
"""Routes that read a body and need none."""

ANSWERS: Final[dict[str, tuple[str, type]]] = {
    "/": (TEXT, str),
    "/ui": ("text/html", str),
    "/ui/{name}": ("*/*", str),
    "/health": (TEXT, str),
    "/metrics": (TEXT, str),
    "/api/pull": (LINES, str),
    "/ready": (JSON, Ready),
    "/queue": (JSON, Status),
    "/queue/events": (EVENTS, str),
    "/queue/jobs/{job_id}": (JSON, JobReport),
    "/queue/jobs/{job_id}/cancel": (JSON, JobState),
    "/queue/jobs/{job_id}/lane": (JSON, JobReport),
    "/queue/pause": (JSON, PauseState),
    "/queue/resume": (JSON, PauseState),
    "/queue/drain": (JSON, DrainState),
}
"""What is known of the answers of other routes. Where nothing is, they are JSON objects."""

QUERIES: Final[dict[str, tuple[str, ...]]] = {
    "/queue": ("limit",),
    "/v1/models": ("limit", "after_id", "before_id"),
    "/models": ("limit", "after_id", "before_id"),
}
"""The parameters of queries, by route. Those of the models are for clients of Anthropic."""

_OPERATIONS: Final[dict[str, Operation[Any]]] = {route.path: route.operation for route in ROUTES}

_LINE_HEADERS: Final[dict[str, JsonObject]] = {
    "X-LLM-Queue-Lane": {"type": "string", "description": "interactive, normal or background."},
    "X-LLM-Queue-Max-Wait": {"type": "number", "minimum": 0, "description": "The longest wait in line, in seconds."},
    "X-LLM-Queue-Num-Ctx": {"type": "integer", "minimum": 1, "description": "The context size, in tokens."},
    "X-LLM-Queue-Client": {"type": "string", "description": "Who asks, in the program's own words."},
    "X-LLM-Queue-Session": {"type": "string", "description": "The conversation, in the program's own words."},
    "X-LLM-Queue-Supersede": {"type": "string", "description": "Drop the client's older request of the same key."},
}
_KEYS: Final[JsonObject] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def openapi_document(app: Quart) -> bytes:
    """The document of all routes that ``app`` has, as JSON text: OpenAPI 3.1."""
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
    bodies = {path: body for rule in rules if (body := _body_of(path := address_of(rule))) is not None}
    types = dict.fromkeys((*bodies.values(), *(answer for _, answer in ANSWERS.values())))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    for component in components.values():
        if "description" in component:
            component["description"] = " ".join(component["description"].split())
    schema_of = dict(zip(types, schemas, strict=True))
    dialects = {dialect.name: dialect for rule in rules for dialect in _dialects(address_of(rule))}
    components |= {_error_name(dialect): error_schema(dialect) for dialect in dialects.values()}
    paths: dict[str, JsonObject] = {}
    for rule in rules:
        path = address_of(rule)
        item = paths.setdefault(path, {})
        for method in methods_of(rule):
            described: JsonObject = {
                "operationId": f"{method.lower()} {path}",
                "summary": _summary(app, rule),
                "responses": _responses(path, schema_of),
            }
            if parameters := [*_parameters(rule, path, method)]:
                described["parameters"] = parameters
            if path in bodies and method == "POST":
                content = {JSON: {"schema": schema_of[bodies[path]]}}
                described["requestBody"] = {"required": path not in MAY_BE_EMPTY, "content": content}
            item[method.lower()] = described
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "llm-queue",
                "version": version("llm-queue"),
                "description": "One line in front of a model. HEAD works where GET does; OPTIONS is answered anywhere.",
            },
            "security": [{}, *({name: []} for name in _KEYS)],
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": _KEYS},
        }
    )


def address_of(rule: Rule) -> str:
    """The path of a route as OpenAPI writes it. What stands for a path may have slashes."""
    return re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)


def methods_of(rule: Rule) -> list[str]:
    """The methods of a route that have something of their own."""
    return sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})


def error_schema(dialect: Dialect) -> JsonObject:
    """The shape of this dialect's errors, as they come with all that can go wrong here."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.QueueError)]
    if dialect.error_type.partition(";")[0] != JSON:
        return {"type": "string"}
    given = [(param, request_id) for param in (None, "field") for request_id in ("", "id")]
    bodies = [dialect.error_body(kind(param=param), request_id) for kind in kinds for param, request_id in given]
    return _schema_of([json.loads(body) for body in bodies])


def _schema_of(samples: list[Any]) -> JsonObject:
    """The type that all of these values have; of an object's fields, those that each has are required."""
    if all(isinstance(sample, dict) for sample in samples):
        names = dict.fromkeys(name for sample in samples for name in sample)
        return {
            "type": "object",
            "properties": {name: _schema_of([one[name] for one in samples if name in one]) for name in names},
            "required": [name for name in names if all(name in one for one in samples)],
        }
    kinds = {"null" if sample is None else _NAMES.get(type(sample), "object") for sample in samples}
    return {"type": sorted(kinds) if len(kinds) > 1 else kinds.pop()}


_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}


def _error_name(dialect: Dialect) -> str:
    return f"ErrorOf.{dialect.name}"


def _dialects(path: str) -> list[Dialect]:
    """Those in which something can be answered at ``path``: what two share is told apart by a header."""
    return list({one.name: one for one in (dialect_of(path), dialect_of(path, "any"))}.values())


def _body_of(path: str) -> type | None:
    return _OPERATIONS[path].body if path in _OPERATIONS else BODIES.get(path)


def _summary(app: Quart, rule: Rule) -> str:
    operation = _OPERATIONS.get(rule.rule)
    if operation is not None:
        return f"An answer of the model, in {operation.dialect.name}'s dialect."
    text = app.view_functions[rule.endpoint].__doc__ or ""
    return " ".join(text.partition("\n\n")[0].split())


def _parameters(rule: Rule, path: str, method: str) -> Iterator[JsonObject]:
    for name in sorted(rule.arguments):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for name in QUERIES.get(path, ()) if method == "GET" else ():
        yield {"name": name, "in": "query", "schema": {"type": "integer" if name == "limit" else "string"}}
    for name, schema in _LINE_HEADERS.items() if path in _OPERATIONS else ():
        yield {"name": name, "in": "header", "schema": schema}


def _responses(path: str, schema_of: dict[type, JsonObject]) -> JsonObject:
    dialects = _dialects(path)
    broken = _contents((one.error_type, {"$ref": _REFERENCE.format(name=_error_name(one))}) for one in dialects)
    responses = {"4XX": {"description": "Refused.", "content": broken}}
    responses["5XX"] = {"description": "It could not be done.", "content": broken}
    operation = _OPERATIONS.get(path)
    if operation is not None:
        answers: list[tuple[str, JsonObject]] = [(operation.whole_type, {"type": "object"})]
        if "stream" in getattr(operation.body, "__struct_fields__", ()):
            answers.append((operation.stream_type, {"type": "string"}))
    else:
        media_type, answer = ANSWERS.get(path, (JSON, None))
        answers = [(media_type, {"type": "object"} if answer is None else schema_of[answer])]
    responses["200"] = {"description": "The answer.", "content": _contents(answers)}
    if path == "/ready":
        responses["503"] = {"description": "Not now.", "content": _contents(answers)}
    return responses


def _contents(answers: Iterable[tuple[str, JsonObject]]) -> JsonObject:
    """Media types with their schemas; two of one type are told apart by their shapes alone."""
    by_type: dict[str, list[JsonObject]] = {}
    for media_type, schema in answers:
        by_type.setdefault(media_type.partition(";")[0], []).append(schema)
    return {
        kind: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}} for kind, schemas in by_type.items()
    }
