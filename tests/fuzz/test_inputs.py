"""What the fuzzer sends follows from a seed and a number, reaches everything, and is judged rightly."""

from __future__ import annotations

import random

import msgspec
import pytest

from llm_queue.wire.callers.dialect import RequestLimits
from llm_queue.wire.callers.routes import ROUTES, Route
from tests.fuzz.honest import WAYS
from tests.fuzz.inputs import CYCLE, every_cut, make, turn_of
from tests.fuzz.play import Outcome, judge
from tests.fuzz.requests import NoAnswer, answers_in, chunked
from tests.fuzz.script import Expected, Input, Send
from tests.fuzz.targets import asked, targets
from tests.fuzz.values import ODD, fields_of, mutate, mutate_bytes, value_of, write

NUMBERS = range(len(CYCLE) * 3)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Inner(msgspec.Struct, tag_field="type", tag="inner"):
    number: int
    texts: list[str]


class Outer(msgspec.Struct):
    inner: Inner | None
    share: float
    by_name: dict[str, bool]


def test_an_input_is_the_same_whenever_it_is_made() -> None:
    first = [make(3, number) for number in NUMBERS]
    assert [make(3, number) for number in reversed(NUMBERS)] == first[::-1]
    assert [make(4, number) for number in NUMBERS] != first


def test_each_kind_has_its_turns_and_counts_them() -> None:
    turns = [turn_of(1, number) for number in NUMBERS]
    for kind in set(CYCLE):
        assert [turn.before for turn in turns if turn.kind == kind] == list(range(3 * CYCLE.count(kind)))


def test_requests_are_cut_at_every_byte_of_every_route() -> None:
    cuts = every_cut()
    assert len({request for request, _ in cuts}) >= len(targets())
    for request in {request for request, _ in cuts}:
        assert {at for one, at in cuts if one is request} == set(range(len(request) + 1))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_operation_has_bodies_that_it_takes(route: Route) -> None:
    [target] = [one for one in targets() if one.path == route.path]
    assert target.seeds, "give it some in seeds.py"
    for seed in target.seeds:
        route.operation.parse(write(seed), RequestLimits(64, 100, 65536))


def test_the_honest_client_asks_for_every_operation() -> None:
    known = {way.path.removeprefix("/v1") for way in WAYS}
    embeds = {"/api/embed", "/api/embeddings"}
    assert {route.path.removeprefix("/v1") for route in ROUTES} - embeds <= known


def test_every_field_of_every_body_comes_up() -> None:
    draw = random.Random(1)
    for target in asked(body=True):
        if target.body is None:
            assert target.closed
            continue
        seen = {name for _ in range(400) for name in target.value(draw)}
        assert set(fields_of(target.body)) <= seen


def test_values_of_a_type_are_of_that_type() -> None:
    draw = random.Random(2)
    kind = msgspec.inspect.type_info(Outer)
    for _ in range(100):
        value = value_of(kind, draw)
        value["inner"] = value["inner"] or None
        msgspec.convert(value, Outer)


def test_a_mutated_tree_is_written_with_what_is_odd_in_it() -> None:
    draw = random.Random(3)
    seen = {write(mutate({"a": 1}, draw, 1)) for _ in range(3000)}
    for odd in ODD:
        assert b'{"a":' + odd + b"}" in seen
    assert b"{}" in seen


def test_mutated_bytes_differ_and_are_cut_now_and_then() -> None:
    draw = random.Random(4)
    made = [mutate_bytes(b"0123456789", draw, 1) for _ in range(300)]
    assert sum(one != b"0123456789" for one in made) > 200
    assert any(b"0123456789".startswith(one) and len(one) < 10 for one in made)


# --- answers ---


def test_answers_are_read_one_by_one() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello", [2])
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    data = interim + OK + stream + none + head
    answers = answers_in(data, [b"GET", b"POST", b"OPTIONS", b"HEAD"], ended=True)
    assert [(one.status, one.body) for one in answers] == [(200, b"ok"), (200, b"hello"), (204, b""), (200, b"")]


def test_an_answer_may_end_with_its_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nto the end"
    assert answers_in(data, [b"GET"], ended=False) == []
    assert answers_in(data, [b"GET"], ended=True)[0].body == b"to the end"


@pytest.mark.parametrize("size", range(len(OK)))
def test_half_an_answer_is_none_yet_and_an_error_at_the_end(size: int) -> None:
    assert answers_in(OK[:size], [b"GET"], ended=False) == []
    if size:
        with pytest.raises(NoAnswer):
            answers_in(OK[:size], [b"GET"], ended=True)


def faults_of(
    data: bytes, *, methods: tuple[bytes, ...] = (b"GET",), statuses: tuple[int, ...] = (), most: int | None = None
) -> list[str]:
    expected = Expected(methods, frozenset(statuses), most=most)
    given = Input(1, "valid", (Send(b"id: fuzz-1"), Send(b"-3")), expected, b"fuzz-1-1")
    outcome = Outcome(bytearray(data))
    judge(given, outcome, left=False)
    return outcome.faults


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (OK.replace(b"200", b"500"), "an answer of 500"),
        (OK.replace(b"ok", b"Something went wrong inside llm-queue"), "an answer of 500"),
        (b"hello", "no HTTP"),
        (OK + b"x", "not an answer to each request"),
        (OK + OK, "not an answer to each request: one answer more"),
        (OK[:-1], "not an answer to each request: cut short"),
        (b"", "0 answers to 1 requests"),
        (OK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: fuzz-1-2\r\n\r\n"), "somebody else"),
    ],
)
def test_what_is_wrong_with_an_answer_is_found(data: bytes, named: str) -> None:
    [fault] = faults_of(data)
    assert named in fault


def test_what_is_right_has_no_fault() -> None:
    assert faults_of(OK, statuses=(200,)) == []
    assert faults_of(OK, statuses=(400,)) == ["status 200, and not one of [400]"]
    for own in (b"fuzz-1-1", b"fuzz-1-3"):
        assert faults_of(OK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: " + own + b"\r\n\r\n")) == []


@pytest.mark.parametrize(
    ("kind", "body", "status", "right"),
    [
        ("application/json", '{"a": 1}', 200, True),
        ("application/json", "{", 200, False),
        ("application/json", '{"a": 1}', 400, False),
        ("application/json", '{"error": "x"}', 400, True),
        ("text/event-stream; charset=utf-8", ': hm\n\nevent: a\ndata: {"a": 1}\n\ndata: [DONE]\n\n', 200, True),
        ("text/event-stream", "data: {\n\n", 200, False),
        ("text/event-stream", "data:\n\n", 200, False),
        ("text/event-stream", "{}\n\n", 200, False),
        ("application/x-ndjson", "{}\n{}\n", 200, True),
        ("application/x-ndjson", "{}\n\n", 200, False),
        ("text/plain", "anything", 404, True),
    ],
)
def test_a_body_must_be_what_its_media_type_says(kind: str, body: str, status: int, right: bool) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert bool(faults_of((head + body).encode())) is not right


def test_where_nobody_knows_how_many_answers_come_there_may_be_a_limit() -> None:
    assert faults_of(OK + OK, methods=()) == []
    assert faults_of(OK + OK, methods=(), most=1) == ["2 answers, and not 1"]


def test_behind_an_answer_that_closes_the_connection_none_is_missed() -> None:
    closing = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert faults_of(closing, methods=(b"POST", b"GET")) == []
    assert faults_of(OK, methods=(b"POST", b"GET")) == ["1 answers to 2 requests"]
