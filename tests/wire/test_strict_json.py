"""The measure of nesting, and whom an error blames."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json

ANYTHING = msgspec.json.Decoder(object)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def naive_depth(value: Any) -> int:
    match value:
        case list():
            return 1 + max((naive_depth(item) for item in value), default=0)
        case dict():
            return 1 + max((naive_depth(item) for item in value.values()), default=0)
        case _:
            return 0


def naive_count(value: Any) -> int:
    match value:
        case list():
            return 1 + sum(map(naive_count, value))
        case dict():
            return 1 + sum(map(naive_count, value.values()))
        case _:
            return 0


def naive_commas(value: Any) -> int:
    match value:
        case list():
            return max(0, len(value) - 1) + sum(map(naive_commas, value))
        case dict():
            return max(0, len(value) - 1) + sum(map(naive_commas, value.values()))
        case _:
            return 0


@pytest.mark.parametrize(
    "text", [b'{"stop":[' + b'"a",' * 200_001 + b'"a"]}', b"[" + b'{"a":1,"b":2},' * 120_000 + b"0]"]
)
def test_a_text_of_too_many_values_is_refused_before_they_are_built(text: bytes) -> None:
    with pytest.raises(BadRequest, match="more than 200000 values"):
        strict_json.decode(text, msgspec.json.Decoder(), 64)


def test_commas_in_strings_are_no_values() -> None:
    strict_json.check_bounds(b'["' + b'a,\\",' * 200_001 + b'"]', 64)


def test_a_text_of_too_many_arrays_and_objects_is_refused_before_they_are_built() -> None:
    text = b'{"tools":[' + b"{}," * strict_json.MAX_CONTAINERS + b"{}]}"
    with pytest.raises(BadRequest, match="200000 arrays and objects"):
        strict_json.decode(text, msgspec.json.Decoder(), 64)


@given(json_values, st.booleans())
def test_depth_is_that_of_the_decoded_value(value: Any, ascii_only: bool) -> None:
    assert strict_json.measure(json.dumps(value, ensure_ascii=ascii_only).encode()) == (
        naive_depth(value),
        naive_count(value),
        naive_commas(value),
    )


@given(st.binary())
def test_depth_of_anything_is_some_number(text: bytes) -> None:
    assert min(strict_json.measure(text)) >= 0


@pytest.mark.parametrize("text", [rb'"[[["', rb'"\"[[["', rb'"\\\"[[["', rb'{"[": "]"}', rb'["\\", "[[["]'])
def test_brackets_within_strings_do_not_nest(text: bytes) -> None:
    assert strict_json.measure(text)[0] <= 1


@given(st.text(alphabet='[{]}"\\\\ax').map(str.encode), st.integers(1, 9))
def test_depth_does_not_depend_on_how_the_text_is_cut_into_blocks(text: bytes, block: int) -> None:
    whole = strict_json.measure(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_BLOCK", block)
        assert strict_json.measure(text) == whole


def test_a_bracket_after_a_string_that_ends_in_a_backslash_nests() -> None:
    assert strict_json.measure(rb'["\\",[[]]]') == (3, 3, 1)


def test_nesting_is_refused_before_anything_recurses() -> None:
    with pytest.raises(BadRequest, match="deeper than 64"):
        strict_json.decode(b"[" * 1_000_000, ANYTHING, 64)


def test_the_deepest_allowed_nesting_passes() -> None:
    assert strict_json.decode(b"[" * 64 + b"]" * 64, ANYTHING, 64)
    with pytest.raises(BadRequest):
        strict_json.decode(b"[" * 65 + b"]" * 65, ANYTHING, 64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"NaN", "not valid JSON"),
        (b"[Infinity]", "not valid JSON"),
        (b'"\xff"', "not UTF-8"),
        (b'{"unknown": "\xed\xa0\x80"}', "not UTF-8"),
        (rb'"\ud800"', "surrogate"),
        (rb'"\udc00"', "surrogate"),
        (rb'"\ud800\ud800"', "surrogate"),
        (rb'{"\ud83dx": 1}', "surrogate"),
        (b"1e999", "out of range"),
        (b"9" * 5000, "out of range"),
    ],
)
def test_what_is_no_json_is_refused_with_the_reason(text: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        strict_json.decode(text, ANYTHING, 64)
    assert caught.value.param is None


def test_a_surrogate_pair_is_one_character() -> None:
    assert strict_json.decode(rb'"\ud83d\ude00"', ANYTHING, 64) == "😀"


def test_an_error_within_a_text_blames_the_field_that_held_it() -> None:
    decoder = msgspec.json.Decoder(dict[str, int])
    with pytest.raises(BadRequest) as caught:
        strict_json.decode(b"[]", decoder, 64, within="outer.field")
    assert caught.value.param == "outer.field"
    with pytest.raises(BadRequest) as caught:
        strict_json.decode(b"{", decoder, 64, within="outer.field")
    assert caught.value.param == "outer.field"
    assert caught.value.message.startswith("outer.field is not valid JSON")


def test_a_complaint_never_echoes_a_body() -> None:
    class Shape(msgspec.Struct, tag_field="type", tag="known"):
        pass

    decoder = msgspec.json.Decoder(Shape)
    with pytest.raises(BadRequest) as caught:
        strict_json.decode(json.dumps({"type": "x" * 100_000}).encode(), decoder, 64)
    assert len(caught.value.message) < 1000
    assert caught.value.param == "type"
