"""Anthropic's list of models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.anthropic_models import Listed, model_body, models_body

MODELS = [Listed(name, 1_700_000_000, 8192) for name in "abcde"]


def page(**query: str) -> Any:
    return json.loads(models_body(MODELS, query))


def test_a_model_is_described() -> None:
    assert json.loads(model_body(MODELS[0])) == {
        "type": "model",
        "id": "a",
        "display_name": "a",
        "created_at": "2023-11-14T22:13:20Z",
        "max_input_tokens": 8192,
        "max_tokens": 8192,
    }


def test_a_context_that_nobody_here_decides_is_not_said() -> None:
    assert set(json.loads(model_body(Listed("a", 0)))) == {"type", "id", "display_name", "created_at"}


@pytest.mark.parametrize("created", [-5, 10**18])
def test_no_time_breaks_the_list(created: int) -> None:
    assert json.loads(model_body(Listed("a", created)))["created_at"][4] == "-"


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "1000"}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "c"}, "de", False),
        ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"limit": "3", "before_id": "d"}, "abc", False),
        ({"before_id": "a"}, "", False),
        ({"after_id": "a", "before_id": "e", "limit": "1"}, "b", True),
    ],
)
def test_the_list_comes_page_by_page(query: dict[str, str], names: str, more: bool) -> None:
    got = page(**query)
    assert "".join(model["id"] for model in got["data"]) == names
    assert (got["has_more"], got["first_id"], got["last_id"]) == (more, names[:1] or None, names[-1:] or None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": "9" * 9999}, "limit"),
        ({"after_id": "x"}, "after_id"),
        ({"before_id": "x"}, "before_id"),
    ],
)
def test_a_page_that_is_none_is_refused(query: dict[str, str], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        page(**query)
    assert caught.value.param == field
