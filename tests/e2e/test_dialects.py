"""All dialects at once, in one line: never two in flight, one context size, and to each its own answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Ollama, Service, until


def chat(text: str) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": text}]}


@dataclass(frozen=True)
class Dialect:
    """How a text is asked for in one dialect, and where its answer has it."""

    path: str
    body: Callable[[str], dict[str, Any]]
    said: Callable[[Any], str]


DIALECTS = {
    "chat": Dialect("/v1/chat/completions", chat, lambda answer: answer["choices"][0]["message"]["content"]),
    "completions": Dialect(
        "/v1/completions",
        lambda text: {"model": "fake", "prompt": text},
        lambda answer: answer["choices"][0]["text"],
    ),
    "responses": Dialect(
        "/v1/responses",
        lambda text: {"model": "fake", "input": text},
        lambda answer: answer["output"][-1]["content"][0]["text"],
    ),
    "messages": Dialect(
        "/v1/messages", lambda text: chat(text) | {"max_tokens": 50}, lambda answer: answer["content"][0]["text"]
    ),
    "ollama": Dialect(
        "/api/chat", lambda text: chat(text) | {"stream": False}, lambda answer: answer["message"]["content"]
    ),
    "generate": Dialect(
        "/api/generate",
        lambda text: {"model": "fake", "prompt": text, "stream": False},
        lambda answer: answer["response"],
    ),
}


def test_a_hundred_requests_of_all_dialects_at_once_are_one_line(ollama: Ollama, service: Service) -> None:
    names = [list(DIALECTS)[number % len(DIALECTS)] for number in range(100)]

    def ask(number: int) -> str:
        dialect = DIALECTS[names[number]]
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
            answer = client.post(dialect.path, json=dialect.body(f"!say answer {number}"))
        assert answer.status_code == 200, answer.text
        return dialect.said(answer.json())

    with ThreadPoolExecutor(100) as callers:
        answers = list(callers.map(ask, range(100)))
    assert answers == [f"answer {number}" for number in range(100)]
    log = ollama.log()
    assert log["max_in_flight"] == 1
    assert {request["num_ctx"] for request in log["requests"]} == {8192}
    assert len(log["loads"]) == 1


class Hanger:
    """A request on a connection of its own, to be hung up on."""

    def __init__(self, service: Service, name: str, text: str, model: str = "fake") -> None:
        dialect = DIALECTS[name]
        body = json.dumps(dialect.body(text) | {"model": model, "stream": True}).encode()
        self.connection = socket.create_connection(("127.0.0.1", service.port))
        self.connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (dialect.path.encode(), len(body), body)
        )

    def hang_up(self) -> None:
        self.connection.close()


@pytest.mark.parametrize("name", DIALECTS)
def test_a_caller_that_hangs_up_is_forgotten_in_every_dialect(
    name: str, start_ollama: Callable[..., Ollama], start_service: Callable[..., Service]
) -> None:
    ollama = start_ollama("--model", "fake", "--model", "second", "--load-seconds", "0.5")
    service = start_service(url=ollama.url)
    service.chat("!say warm")

    def slot() -> Any:
        return service.line()["slot"]

    running = Hanger(service, name, "!tokens 100000")
    until(lambda: (slot() or {}).get("phase") == "running")
    queued = Hanger(service, name, "!say queued")
    until(lambda: service.waiting() == 1)
    queued.hang_up()
    until(lambda: service.waiting() == 0)
    running.hang_up()
    until(lambda: slot() is None)
    until(lambda: ollama.log()["in_flight"] == 0)

    loading = Hanger(service, name, "!say loading", model="second")
    until(lambda: (slot() or {}).get("phase") == "loading")
    loading.hang_up()
    assert service.chat("!say next", model="second").json()["choices"][0]["message"]["content"] == "next"
    said = [request["prompt"] for request in ollama.work()]
    assert not [prompt for prompt in said if prompt in ("!say queued", "!say loading")]
    assert ollama.log()["max_in_flight"] == 1
