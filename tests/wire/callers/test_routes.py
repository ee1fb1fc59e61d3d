"""Which address speaks which dialect."""

from __future__ import annotations

import json

import pytest

from llm_queue.errors import NotFound, QueueError
from llm_queue.wire.callers import routes
from llm_queue.wire.callers.dialect import Dialect, RequestLimits, Served
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.routes import ROUTES, dialect_of
from llm_queue.wire.shapes import Completion, Delta, fold

LIMITS = RequestLimits(max_depth=64, max_messages=10, num_ctx_ceiling=65536)


def test_each_address_has_one_operation_of_the_dialect_that_is_spoken_there() -> None:
    paths = [route.path for route in ROUTES]
    assert len(set(paths)) == len(paths)
    assert all(route.operation.dialect is dialect_of(route.path) for route in ROUTES)


def test_whatever_has_no_dialect_of_its_own_is_spoken_to_as_openai_does() -> None:
    for path in ("/", "/v1/nothing", "/queue", ""):
        assert dialect_of(path) is OPENAI
    assert json.loads(OPENAI.error_body(NotFound(), "req_1"))["error"]["code"] == "not_found"


def test_a_path_belongs_to_a_dialect_also_where_there_is_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    def error_body(error: QueueError, request_id: str) -> bytes:
        return f"{request_id}: {error.code}".encode()

    other = Dialect("other", error_body)
    monkeypatch.setattr(routes, "PREFIXES", (("/other/", other),))
    assert dialect_of("/other/nothing") is other
    assert dialect_of("/others") is OPENAI


def test_an_operation_reads_a_request_and_writes_its_answer() -> None:
    for route in (route for route in ROUTES if route.operation.dialect is OPENAI):
        parsed = route.operation.parse(b'{"messages":[{"role":"user","content":"hi"}]}', LIMITS)
        encoder = route.operation.encoder(parsed.reply, Served("m", 0))
        body = json.loads(encoder.whole(fold([Delta("yes")], Completion("stop"))))
        assert body["choices"][0]["message"]["content"] == "yes"
