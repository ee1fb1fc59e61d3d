"""OpenAI's embeddings: what is asked for, and vectors in both forms."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest, QueueError, UpstreamBroke, UpstreamRefused
from llm_queue.wire.callers.dialect import Parsed, Progress, RequestLimits, Served
from llm_queue.wire.callers.openai_embeddings import EmbeddingEncoder, EmbeddingReply, parse_embedding
from llm_queue.wire.shapes import Answer, Completion, Delta, EmbedRequest, Vectors, fold
from llm_queue.wire.wishes import Wishes

LIMITS = RequestLimits(max_depth=64, max_messages=3, num_ctx_ceiling=65536)
END = Completion("stop", prompt_tokens=5)


def parse(**fields: Any) -> Parsed[EmbeddingReply]:
    return parse_embedding(json.dumps({"input": "a"} | fields).encode(), LIMITS)


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


def answer(*vectors: tuple[float, ...]) -> Answer:
    return fold([Vectors(vectors)], END)


def body(reply: EmbeddingReply, answer: Answer) -> Any:
    return json.loads(EmbeddingEncoder(reply, Served("m", 7)).whole(answer))


@pytest.mark.parametrize(
    ("said", "inputs"), [("a", ("a",)), ("", ("",)), (["a"], ("a",)), (["b", "", "ü"], ("b", "", "ü"))]
)
def test_one_text_or_a_list_of_them(said: Any, inputs: tuple[str, ...]) -> None:
    parsed = parse(model="m", input=said, user="somebody")
    assert parsed.request == EmbedRequest("m", inputs)
    assert parsed.reply == EmbeddingReply(len(inputs))
    assert not parsed.stream


def test_the_form_and_the_length_of_the_vectors() -> None:
    parsed = parse(encoding_format="base64", dimensions=64)
    assert parsed.request == EmbedRequest("", ("a",), dimensions=64)
    assert parsed.reply == EmbeddingReply(1, base64=True, dimensions=64)
    assert parse(encoding_format="float").reply == parse(encoding_format=None).reply == EmbeddingReply(1)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": None}, "input", "Expected"),
        ({"input": 3}, "input", "Expected"),
        ({"input": []}, "input", "the list is empty"),
        ({"input": [1, 2]}, "input", "token ids"),
        ({"input": [[1], [2]]}, "input", "token ids"),
        ({"input": ["a", 2]}, "input", "token ids"),
        ({"input": ["a", None]}, "input[1]", "Expected a string"),
        ({"input": ["a"] * 4}, "input", "at most 3"),
        ({"encoding_format": "hex"}, "encoding_format", "hex"),
        ({"dimensions": 0}, "dimensions", ">= 1"),
        ({"dimensions": 2**31}, "dimensions", "<="),
        ({"dimensions": "64"}, "dimensions", "whole number"),
        ({"model": 3}, "model", "string"),
        ({"numCtx": 0}, "numCtx", "from 1 to 65536"),
        ({"num_ctx": 65537}, "num_ctx", "from 1 to 65536"),
    ],
)
def test_an_error_names_the_field(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert words in error.message


def test_a_body_without_an_input_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_embedding(b'{"model":"m"}', LIMITS)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("fields", "wishes"),
    [
        ({"priority": "background", "numCtx": 4096}, Wishes("background", num_ctx=4096)),
        ({"service_tier": "flex", "num_ctx": 4096}, Wishes("background", num_ctx=4096)),
        ({"priority": {"level": 1}}, Wishes("normal", unknown_lane=True)),
    ],
)
def test_what_is_meant_for_the_line(fields: dict[str, Any], wishes: Wishes) -> None:
    assert parse(**fields).wishes == wishes


@given(st.binary())
def test_any_bytes_are_refused_or_read(said: bytes) -> None:
    with contextlib.suppress(BadRequest):
        parse_embedding(said, LIMITS)


def test_vectors_as_numbers() -> None:
    assert body(EmbeddingReply(2), answer((0.5, -1.0), (1e-9, 2.0))) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
            {"object": "embedding", "index": 1, "embedding": [1e-9, 2.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_base64_is_the_same_numbers_in_32_bits_with_the_lowest_byte_first(vector: list[float]) -> None:
    (item,) = body(EmbeddingReply(1, base64=True), answer(tuple(vector)))["data"]
    packed = base64.b64decode(item["embedding"], validate=True)
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == vector


def test_counts_that_are_not_known_are_zero() -> None:
    unknown = fold([Vectors(((1.0,),))], Completion("stop"))
    assert body(EmbeddingReply(1), unknown)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("reply", [EmbeddingReply(2), EmbeddingReply(2, base64=True)])
def test_too_few_vectors_are_an_error(reply: EmbeddingReply) -> None:
    with pytest.raises(UpstreamBroke, match="1 vectors for 2 texts"):
        body(reply, answer((1.0,)))


def test_vectors_of_another_length_than_was_asked_for_are_no_answer() -> None:
    with pytest.raises(UpstreamRefused, match="2 numbers all the same") as caught:
        body(EmbeddingReply(1, dimensions=1), answer((0.5, 1.0)))
    assert (caught.value.param, caught.value.http_status) == ("dimensions", 400)
    assert body(EmbeddingReply(1, dimensions=2), answer((0.5, 1.0)))["data"][0]["embedding"] == [0.5, 1.0]


def test_a_number_that_32_bits_cannot_hold_is_an_error() -> None:
    with pytest.raises(UpstreamBroke, match="32 bits"):
        body(EmbeddingReply(1, base64=True), answer((1e300,)))


def test_nothing_but_an_error_is_ever_streamed() -> None:
    encoder = EmbeddingEncoder(EmbeddingReply(1), Served("m", 7))
    assert not encoder.begin() + encoder.pieces([Delta("x")]) + encoder.waiting(Progress("running")) + encoder.end(END)
    assert json.loads(encoder.error(QueueError("No.")).removeprefix(b"data: "))["error"]["message"] == "No."
