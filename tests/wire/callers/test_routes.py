"""Which address speaks which dialect."""

from __future__ import annotations

import json

import pytest

from llm_queue.errors import NotFound, QueueError
from llm_queue.wire.callers import routes
from llm_queue.wire.callers.anthropic import ANTHROPIC
from llm_queue.wire.callers.dialect import Dialect, RequestLimits, Served
from llm_queue.wire.callers.openai import OPENAI
from llm_queue.wire.callers.routes import ROUTES, dialect_of
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, EmbedRequest, TextRequest, Vectors, fold

END = Completion("stop")
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


def test_anthropics_header_decides_where_dialects_share_an_address() -> None:
    assert dialect_of("/v1/messages") is dialect_of("/v1/messages/nothing?beta=true") is ANTHROPIC
    assert dialect_of("/v1/models", "2023-06-01") is dialect_of("/v1/models/m", b"2023-06-01") is ANTHROPIC
    assert dialect_of("/v1/chat/completions", "2023-06-01") is dialect_of("/v1/models") is OPENAI


def test_an_operation_reads_a_request_and_writes_its_answer() -> None:
    read = set()
    for route in ROUTES:
        fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "max_tokens": 9}
        asks = "/completions" in route.path or route.path in ("/api/generate", "/api/embeddings")
        body = json.dumps(fields | ({"prompt": "hi"} if asks else {})).encode()
        parsed = route.operation.parse(body, LIMITS)
        encoder = route.operation.encoder(parsed.reply, Served("m", 0))
        answer = fold([Vectors(((0.5,),))] if isinstance(parsed.request, EmbedRequest) else [Delta("yes")], END)
        assert any(said in encoder.whole(answer) for said in (b'"yes"', b"0.5"))
        read.add(type(parsed.request))
    assert read == {ChatRequest, TextRequest, EmbedRequest}
