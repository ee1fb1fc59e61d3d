"""The fake Ollama is held against the real one: the same questions, the same status, and the same shape or words."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import Ollama as FakeOllama
from tests.real.ollama import FIRST, SECOND, RealOllama

HELLO = [{"role": "user", "content": "hello"}]
FULL_NAME = re.compile(r"^\S+/library/")
"""What Ollama puts before a model's name where it tells the whole of it; the fake does not."""

FEW = {"num_ctx": 512, "num_predict": 2}
FEW_OPTIONS = {"options": FEW}


def chat(**fields: Any) -> tuple[str, str, bytes]:
    body = {"model": FIRST, "messages": HELLO, "stream": False, "options": FEW} | fields
    return "POST", "/api/chat", json.dumps(body).encode()


def words(number: int) -> list[dict[str, str]]:
    """A message of so many tokens; what the template adds is a few more."""
    return [{"role": "user", "content": " ".join(["a"] * number)}]


QUESTIONS: dict[str, tuple[str, str, bytes]] = {
    "root": ("GET", "/", b""),
    "version": ("GET", "/api/version", b""),
    "nowhere": ("GET", "/nowhere", b""),
    "method": ("GET", "/api/chat", b""),
    "tags": ("GET", "/api/tags", b""),
    "ps": ("GET", "/api/ps", b""),
    "text": (
        "POST",
        "/api/generate",
        json.dumps({"model": FIRST, "prompt": "x", "stream": False} | FEW_OPTIONS).encode(),
    ),
    "load by a text": ("POST", "/api/generate", json.dumps({"model": FIRST} | FEW_OPTIONS).encode()),
    "no model of a text": ("POST", "/api/generate", b'{"prompt": "x"}'),
    "older embed nobody": ("POST", "/api/embeddings", b'{"model": "nobody", "prompt": "x"}'),
    "older embed": ("POST", "/api/embeddings", json.dumps({"model": FIRST, "prompt": "x"}).encode()),
    "older load": ("POST", "/api/embeddings", json.dumps({"model": FIRST} | FEW_OPTIONS).encode()),
    "show nothing": ("POST", "/api/show", b"{}"),
    "show nobody": ("POST", "/api/show", b'{"model": "nobody"}'),
    "no body": ("POST", "/api/chat", b""),
    "an array": ("POST", "/api/chat", b"[]"),
    "no model": chat(model=""),
    "unknown model": chat(model="nobody"),
    "no name": chat(model="../nobody"),
    "other case": chat(model=FIRST.upper()),
    "whole": chat(),
    "load": chat(messages=[]),
    "unload": chat(messages=[], keep_alive=0),
    "tools": chat(tools=[{"type": "function", "function": {"name": "look"}}]),
    "think": chat(think=True),
    "think how": chat(think="hard"),
    "format": chat(format="xml"),
    "format number": chat(format=3),
    "num_ctx text": chat(options={"num_ctx": "big"}),
    "num_ctx float": chat(options=FEW | {"num_ctx": 512.5}),
    "bare lifetime": chat(keep_alive="-1"),
    "no lifetime": chat(keep_alive="5x"),
    "embed nobody": ("POST", "/api/embed", b'{"model": "nobody", "input": "x"}'),
    "embed": ("POST", "/api/embed", json.dumps({"model": FIRST, "input": "x"}).encode()),
}


@pytest.fixture(scope="module")
def fake() -> Iterator[RealOllama]:
    """The fake, spoken to like the real one."""
    flags = ("--trained", "8192", "--capability", "completion", "--load-seconds", "0.3", "--first-token-seconds", "1")
    process = FakeOllama("--model", FIRST, "--model", SECOND, *flags)
    with contextlib.closing(RealOllama(process.url)) as fake:
        yield fake
    process.end()


def shape(value: Any) -> Any:
    """Fields and types."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def told(answer: httpx.Response) -> tuple[int, Any]:
    """What matters of an answer: an error's words, else its shape."""
    if not answer.headers["content-type"].startswith("application/json"):
        return answer.status_code, answer.text
    said = answer.json()
    if "error" not in said:
        return answer.status_code, shape(said)
    return answer.status_code, FULL_NAME.sub("", said["error"])


def lacks(real: Any, fake: Any) -> Any:
    """What the fake has that the real one has not, or has otherwise. It may leave out what nobody asks for."""
    if isinstance(real, dict) and isinstance(fake, dict):
        differing = {name: lacks(real.get(name), item) for name, item in fake.items()}
        return {name: found for name, found in differing.items() if found} or None
    if isinstance(real, list) and isinstance(fake, list):
        return lacks(real[0], fake[0])
    return None if real == fake else f"{fake!r}, in truth {real!r}"


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_fake_answers_like_the_real_one(question: str, ollama: RealOllama, fake: RealOllama) -> None:
    if question == "ps":  # what was loaded before is another test's affair
        for one in (ollama, fake):
            assert one.chat("").status_code == 200
    real_status, real_said = told(ollama.request(*QUESTIONS[question]))
    fake_status, fake_said = told(fake.request(*QUESTIONS[question]))
    assert fake_status == real_status
    assert lacks(real_said, fake_said) is None


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        (words(700), {}),
        (words(300) * 3, {}),
        ([{"role": "system", "content": "a " * 100}, *words(300), *words(300)], {}),
        (words(700), {"truncate": False}),
    ],
)
def test_the_fake_cuts_a_prompt_like_the_real_one(
    messages: list[dict[str, str]], fields: dict[str, Any], ollama: RealOllama, fake: RealOllama
) -> None:
    real, false = (one.request(*chat(messages=messages, **fields)) for one in (ollama, fake))
    assert false.status_code == real.status_code
    if real.status_code == 200:
        template = 12 * len(messages)  # tokens that it adds
        assert 0 <= real.json()["prompt_eval_count"] - false.json()["prompt_eval_count"] <= template
    else:
        assert shape(json.loads(false.json()["error"])) == shape(json.loads(real.json()["error"]))


def test_to_unload_what_is_not_loaded_loads_nothing(ollama: RealOllama, fake: RealOllama) -> None:
    for one in (ollama, fake):
        one.unload()
        one.request(*chat())
        assert one.chat("", SECOND, keep_alive=0).json()["done_reason"] == "unload"
        assert one.resident() == {FIRST: 512}


@pytest.mark.parametrize("phase", ["load", "prompt"])
def test_the_fake_ends_what_somebody_has_left_like_the_real_one(
    phase: str, ollama: RealOllama, fake: RealOllama
) -> None:
    messages = [{"role": "user", "content": " ".join(map(str, range(100)))}]
    _, _, body = chat(messages=[] if phase == "load" else messages, options={"num_ctx": 512, "num_predict": 100})
    ends = []
    for one in (ollama, fake):
        one.unload()
        if phase == "prompt":
            one.request(*chat())
        where = urlsplit(one.url)
        with socket.create_connection((where.hostname or "", where.port or 80), timeout=20) as connection:
            head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(0.15)  # it is in its load, or in its prompt: that cannot be seen from outside
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(partial(connection.recv, 65536), b""))
        ends.append((answer.split()[1], json.loads(answer.partition(b"\r\n\r\n")[2])))
        assert one.resident() == ({} if phase == "load" else {FIRST: 512})
    assert ends[0] == ends[1]
