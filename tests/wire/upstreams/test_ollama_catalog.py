"""What Ollama says about its models. The samples are what Ollama 0.33 sent, shortened."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_queue.errors import UpstreamBroke
from llm_queue.wire.upstreams.ollama_catalog import (
    Loaded,
    Shown,
    Tag,
    named_remote,
    parse_ps,
    parse_show,
    parse_tags,
)

TAGS = (
    b'{"models":[{"name":"smollm2:135m","model":"smollm2:135m","modified_at":"2026-11-23T08:56:54.216030241Z",'
    b'"size":98362809,"digest":"095c6ca6","details":{"parent_model":"","format":"gguf","families":["llama"],'
    b'"context_length":8192},"capabilities":["completion"]}]}'
)
PS = (
    b'{"models":[{"name":"smollm2:135m","model":"smollm2:135m","size":98362432,"digest":"765525e6","details":{},'
    b'"expires_at":"2026-11-23T09:08:24.718960097Z","size_vram":98362432,"context_length":8192}]}'
)


def test_tags() -> None:
    assert parse_tags(TAGS) == (Tag("smollm2:135m", "095c6ca6", created=1795424214),)


@pytest.mark.parametrize(
    ("stamp", "created"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T02:01:00+02:00", 60),
        ("1970-01-01T00:01:00", 60),
        ("0001-01-01T00:00:00Z", 0),
        ("yesterday", 0),
        (None, 0),
    ],
)
def test_the_time_of_a_tag_is_in_unix_seconds(stamp: str | None, created: int) -> None:
    body = json.dumps({"models": [{"name": "m", "digest": "d", "modified_at": stamp}]}).encode()
    assert parse_tags(body) == (Tag("m", "d", created),)


@pytest.mark.parametrize(
    ("tag", "remote"),
    [
        ({"name": "mine:latest"}, False),
        ({"name": "mine:latest", "remote_model": "", "remote_host": None}, False),
        ({"name": "mine:latest", "remote_model": "gpt-oss:120b"}, True),
        ({"name": "mine:latest", "remote_host": "https://ollama.com:443"}, True),
        ({"name": "gpt-oss:120b-cloud"}, True),
    ],
)
def test_a_tag_says_whether_its_model_runs_elsewhere(tag: dict[str, Any], remote: bool) -> None:
    (parsed,) = parse_tags(json.dumps({"models": [tag]}).encode())
    assert parsed.remote is remote
    assert parse_show(json.dumps(tag).encode()).remote is (remote and "cloud" not in tag["name"])


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("kimi-k2:cloud", True),
        ("gpt-oss:120b-cloud", True),
        (" Library/GPT-OSS:120B-Cloud ", True),
        ("registry.ollama.ai/library/x:cloud", True),
        ("cloud", False),
        ("x-cloud", False),
        ("host:cloud/x", False),
        ("x:cloudy", False),
        ("x:120bcloud", False),
        ("x:cloud:local", False),
        ("", False),
    ],
)
def test_a_name_says_by_its_tag_that_the_model_runs_elsewhere(name: str, remote: bool) -> None:
    assert named_remote(name) is remote


@pytest.mark.parametrize("body", [b"{}", b'{"models":null}', b'{"models":[]}'])
def test_no_models_is_an_answer(body: bytes) -> None:
    assert parse_tags(body) == ()
    assert parse_ps(body) == ()


@pytest.mark.parametrize(
    ("info", "trained"),
    [
        ({"general.architecture": "llama", "llama.context_length": 8192, "other.context_length": 1}, 8192),
        ({"general.architecture": "llama"}, None),
        ({"llama.context_length": 8192}, None),
        ({"general.architecture": "llama", "llama.context_length": 0}, None),
        ({"general.architecture": "llama", "llama.context_length": "8192"}, None),
        ({"general.architecture": "llama", "llama.context_length": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_trained_context_is_that_of_the_architecture(info: Any, trained: int | None) -> None:
    assert parse_show(json.dumps({"model_info": info, "capabilities": None}).encode()) == Shown(trained, frozenset())


def test_capabilities() -> None:
    body = b'{"modelfile":"x","capabilities":["completion","tools"]}'
    assert parse_show(body).capabilities == {"completion", "tools"}


def test_what_is_resident_and_at_which_size() -> None:
    assert parse_ps(PS) == (Loaded("smollm2:135m", "765525e6", 8192, 98362432, 98362432),)
    assert parse_ps(b'{"models":[{"name":"m","digest":"d"}]}') == (Loaded("m", "d", None),)


@pytest.mark.parametrize("parse", [parse_tags, parse_show, parse_ps])
@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"models":3,"capabilities":3}', b"\xff"])
def test_garbage_is_the_upstreams_fault(parse: Any, body: bytes) -> None:
    with pytest.raises(UpstreamBroke):
        parse(body)
