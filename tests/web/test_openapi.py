"""The document that describes the service says what the service does."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_queue import errors
from llm_queue.settings import Settings
from llm_queue.web.app import create_app, create_quart
from llm_queue.web.openapi import ANSWERS, BODIES, QUERIES, address_of, error_schema, methods_of, openapi_document
from llm_queue.wire.callers.anthropic import ANTHROPIC
from llm_queue.wire.callers.dialect import Dialect
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.routes import ROUTES
from tests.web.conftest import FakeLine

APP = create_quart(Settings(model="small"), FakeLine())
DOCUMENT: dict[str, Any] = json.loads(openapi_document(APP))
REFERENCE = "#/components/schemas/"


def content_of(path: str, method: str, status: str) -> dict[str, Any]:
    content: dict[str, Any] = DOCUMENT["paths"][path][method]["responses"][status]["content"]
    return content


def references(value: Any) -> set[str]:
    """Every schema that is named in it."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(one) for one in value.values()))
    return set().union(*(references(one) for one in value)) if isinstance(value, list) else set()


def test_every_route_and_method_stands_in_it_and_no_other() -> None:
    served = {(address_of(rule), method.lower()) for rule in APP.url_map.iter_rules() for method in methods_of(rule)}
    assert len(served) > 20
    assert {(path, method) for path, item in DOCUMENT["paths"].items() for method in item} == served


def test_every_route_says_what_it_is_for() -> None:
    for path, item in DOCUMENT["paths"].items():
        for method, described in item.items():
            assert described["summary"], f"{method} {path}: give its view a docstring"


def test_what_is_said_of_single_routes_is_said_of_routes_that_are_there() -> None:
    assert {*BODIES, *ANSWERS, *QUERIES} <= set(DOCUMENT["paths"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_operation_says_which_body_it_reads(route: Any) -> None:
    assert issubclass(route.operation.body, msgspec.Struct), "give its Operation a body"
    schema = DOCUMENT["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = DOCUMENT["components"]["schemas"][schema["$ref"].removeprefix(REFERENCE)]
    assert set(body["properties"]) == {one.encode_name for one in msgspec.structs.fields(route.operation.body)}


def test_every_schema_that_is_named_is_there_and_every_other_is_named() -> None:
    assert references(DOCUMENT) == {REFERENCE + name for name in DOCUMENT["components"]["schemas"]}


def test_two_types_of_one_name_stay_two() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert len([name for name in schemas if name.endswith(".Turn")]) == 3


def test_the_parameters_of_a_path_are_those_in_its_braces() -> None:
    for path, item in DOCUMENT["paths"].items():
        for described in item.values():
            names = {one["name"] for one in described.get("parameters", ()) if one["in"] == "path"}
            assert names == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_a_stream_is_only_where_one_can_be_asked_for() -> None:
    assert set(content_of("/v1/chat/completions", "post", "200")) == {"application/json", "text/event-stream"}
    assert set(content_of("/v1/embeddings", "post", "200")) == {"application/json"}


def test_what_two_dialects_share_has_the_errors_of_both() -> None:
    shared = content_of("/v1/models", "get", "4XX")["application/json"]["schema"]
    assert len(shared["anyOf"]) == 2
    own = content_of("/v1/messages", "post", "4XX")["application/json"]["schema"]
    assert own == {"$ref": REFERENCE + "ErrorOf.anthropic"}


def test_a_dialect_s_errors_have_the_shape_that_it_gives_them() -> None:
    error = error_schema(OPENAI)["properties"]["error"]
    assert error["required"] == ["message", "type", "param", "code"]
    assert error["properties"]["param"] == {"type": ["null", "string"]}
    assert error_schema(ANTHROPIC)["properties"]["request_id"] == {"type": ["null", "string"]}


def test_errors_that_are_no_json_are_text() -> None:
    plain = Dialect("plain", lambda error, _: error.message.encode(), "text/plain")
    assert error_schema(plain) == {"type": "string"}


def test_a_field_that_only_some_errors_have_is_not_required() -> None:
    def body(error: errors.QueueError, _: str) -> bytes:
        return json.dumps({"error": "x", "wait": 1} if error.retryable else {"error": "x"}).encode()

    schema = error_schema(Dialect("some", body))
    assert schema["required"] == ["error"]
    assert schema["properties"]["wait"] == {"type": "integer"}


def test_not_ready_is_no_error() -> None:
    assert content_of("/ready", "get", "503") == content_of("/ready", "get", "200")


async def test_it_is_served_and_made_once() -> None:
    app = create_quart(Settings(model="small"), FakeLine())
    client = app.test_client()
    first = await client.get("/openapi.json")
    assert first.status_code == 200
    assert first.content_type == "application/json"
    assert json.loads(await first.get_data()) == DOCUMENT
    app.view_functions["health"].__doc__ = "Something else."
    assert await (await client.get("/openapi.json")).get_data() == await first.get_data()


@pytest.mark.parametrize(("headers", "status"), [([(b"host", b"evil.example")], 403), ([(b"host", b"localhost")], 401)])
async def test_it_is_behind_the_gate(headers: list[tuple[bytes, bytes]], status: int) -> None:
    app = create_app(Settings(model="small", api_keys=("secret",)), FakeLine())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/openapi.json", "query_string": b"", "headers": headers}
    await app(scope, None, send)
    assert sent[0]["status"] == status
