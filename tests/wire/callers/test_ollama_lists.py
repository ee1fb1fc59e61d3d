"""What is said of models: an Ollama's own words with the right context, and the same without an Ollama."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.wire.callers import ollama_lists as lists
from llm_queue.wire.callers.ollama import tagged
from llm_queue.wire.callers.ollama_lists import Listed

TAGS = {
    "models": [
        {"name": "a:1", "digest": "d", "size": 1, "details": {"family": "f", "context_length": 131072}},
        {"name": "b:1", "digest": "e", "details": {"family": "f"}},
        {"name": "c:1", "details": None},
        {"name": "d:cloud", "digest": "f", "remote_model": "d", "details": {"context_length": 262144}},
    ]
}
SHOW = {
    "details": {"family": "llama", "context_length": 131072},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 131072,
        "llama.block_count": 30,
        "x": 1e-06,
    },
    "parameters": 'stop                           "<|im_end|>"\nnum_ctx                        4096',
    "license": "MIT",
}
MODEL = Listed("small", "/home/me/small.gguf:1:2", 1_700_000_000, 8192)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_tags_say_what_callers_get_and_nothing_else_changes() -> None:
    asked = []

    def granted(name: str, digest: str, trained: int) -> int:
        asked.append((name, digest, trained))
        return 8192

    tags = json.loads(lists.granted_tags(encoded(TAGS), granted))
    assert asked == [("a:1", "d", 131072)]
    assert tags["models"][0]["details"].pop("context_length") == 8192
    expected = json.loads(encoded(TAGS))
    del expected["models"][0]["details"]["context_length"]
    assert tags == expected
    assert json.loads(lists.granted_tags(encoded(TAGS), lambda *_: 0)) == TAGS


def test_ps_says_what_is_in_force() -> None:
    ps = {"models": [{"name": "a:1", "context_length": 4096}, {"name": "b:1", "context_length": 2048}, 3]}
    assert lists.names_in(encoded(ps)) == ["a:1", "b:1"]
    said = json.loads(lists.granted_ps(encoded(ps), {"a:1": 8192, "b:1": 0}.__getitem__))
    assert [model["context_length"] for model in said["models"][:2]] == [8192, 2048]


def test_a_model_is_shown_with_its_context_in_each_place_where_programs_look() -> None:
    shown = json.loads(lists.granted_show(encoded(SHOW), 8192))
    assert shown["model_info"]["llama.context_length"] == shown["details"]["context_length"] == 8192
    assert shown["parameters"] == 'stop                           "<|im_end|>"\nnum_ctx                        8192'
    assert shown["license"] == "MIT"
    assert shown["model_info"]["x"] == 1e-06
    assert json.loads(lists.granted_show(b'{"model_info":null}', 8192)) == {
        "model_info": None,
        "parameters": "num_ctx                        8192",
    }


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff"])
def test_what_is_no_list_stays_as_it_is(body: bytes) -> None:
    assert lists.granted_show(body, 1) == lists.granted_ps(body, lambda _: 1) == body
    assert lists.names_in(body) == []


def test_a_list_without_models_stays_as_it_is() -> None:
    assert lists.granted_ps(b'{"models":null}', lambda _: 1) == b'{"models":null}'
    assert lists.granted_show(encoded(SHOW), 0) == encoded(SHOW)


def test_without_an_ollama_the_line_says_what_it_knows() -> None:
    (tag,) = json.loads(lists.tags_body([MODEL]))["models"]
    assert (tag["name"], tag["model"], tag["modified_at"]) == ("small:latest", "small:latest", "2023-11-14T22:13:20Z")
    assert (tag["size"], tag["capabilities"], tag["details"]["context_length"]) == (0, ["completion"], 8192)
    assert {"format", "family", "parameter_size", "quantization_level"} <= tag["details"].keys()
    assert len(tag["digest"]) == 64
    assert "gguf" not in json.dumps(tag), "where its file is says nobody"
    (loaded,) = json.loads(lists.ps_body([MODEL]))["models"]
    assert (loaded["name"], loaded["context_length"], loaded["digest"]) == ("small:latest", 8192, tag["digest"])
    assert loaded["expires_at"] == "2318-01-01T00:00:00Z"
    version = json.loads(lists.version_body())["version"]
    assert tuple(map(int, version.split("."))) >= (0, 13, 4), "Codex takes nothing older"


def test_without_an_ollama_a_model_is_shown_by_its_context() -> None:
    shown = json.loads(lists.show_body(Listed("x:1", "x", 0, 4096, frozenset({"tools", "completion"}))))
    info = shown["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] == 4096
    assert shown["parameters"] == "num_ctx                        4096"
    assert shown["capabilities"] == ["completion", "tools"]
    unknown = json.loads(lists.show_body(Listed("x:1", "x", 0)))
    assert (unknown["parameters"], list(unknown["model_info"])) == ("", ["general.architecture", "general.basename"])
    assert "context_length" not in json.dumps(lists.tags_body([Listed("x:1", "x", 0)]).decode())


@pytest.mark.parametrize(
    ("name", "shown"), [("a", "a:latest"), ("a:b", "a:b"), ("h:1/a", "h:1/a:latest"), ("n/a:b", "n/a:b")]
)
def test_a_name_is_shown_with_its_tag(name: str, shown: str) -> None:
    assert tagged(name) == shown
