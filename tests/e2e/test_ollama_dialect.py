"""Ollama's dialect through real processes: the service as a program written for Ollama sees it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Ollama, Service, until

HI = [{"role": "user", "content": "!say hello there"}]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def send(service: Service, path: str, body: dict[str, Any]) -> socket.socket:
    """A request on a connection of its own."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.sendall(
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data))
    )
    connection.sendall(data)
    return connection


def test_a_program_that_was_written_for_ollama_finds_one(service: Service) -> None:
    http = service.http
    assert (http.head("/").content, http.get("/").text) == (b"", "Ollama is running")
    assert http.get("/api/version").json() == {"version": "0.33.0-fake"}
    assert [model["name"] for model in http.get("/api/tags").json()["models"]] == ["fake:latest", "second:latest"]
    shown = http.post("/api/show", json={"model": "fake"}).json()
    assert shown["model_info"]["fake.context_length"] == 8192
    said = lines(http.post("/api/chat", json={"model": "fake", "messages": HI}))
    assert "".join(line["message"]["content"] for line in said) == "hello there"
    assert [line["done"] for line in said] == [False, False, True]
    text = http.post("/api/generate", json={"model": "fake", "prompt": "!say so it went", "stream": False}).json()
    assert (text["response"], text["context"]) == ("so it went", [1, 2, 3])
    assert [(model["name"], model["context_length"]) for model in http.get("/api/ps").json()["models"]] == [
        ("fake:latest", 8192)
    ]


def test_questions_are_answered_while_a_model_works(service: Service) -> None:
    running = send(service, "/api/chat", {"model": "fake", "messages": [{"role": "user", "content": "!stall 1"}]})
    with running:
        until(lambda: service.line()["slot"])
        for path in ("/", "/api/version", "/api/tags", "/api/ps"):
            assert service.http.get(path).status_code == 200
        assert service.http.post("/api/show", json={"model": "second"}).status_code == 200
        assert (
            service.http.post("/api/generate", json={"model": "fake", "keep_alive": 0}).json()["done_reason"]
            == "unload"
        )


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("directive", ["!stall 1", "!hang"])
def test_who_hangs_up_frees_the_slot(service: Service, ollama: Ollama, path: str, directive: str) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": directive}], "prompt": directive}
    connection = send(service, path, body)
    until(lambda: ollama.work())
    waiting = send(service, path, body)
    until(lambda: service.waiting() == 1)
    waiting.close()
    until(lambda: service.waiting() == 0)
    connection.close()
    until(lambda: ollama.log()["aborted"] == 1)
    answer = service.http.post("/api/chat", json={"model": "fake", "messages": HI, "stream": False})
    assert answer.json()["message"]["content"] == "hello there"
    assert ollama.log()["max_in_flight"] == 1
    assert len(ollama.work()) == 2


def test_two_dialects_share_one_line_and_one_context(service: Service, ollama: Ollama) -> None:
    body = {"model": "fake", "messages": HI, "stream": False}
    for number in range(6):
        if number % 2:
            assert service.chat("!say hello there", model="fake").status_code == 200
        else:
            num_ctx = 2048 * (1 + number)
            options = {"num_ctx": num_ctx, "num_thread": number, "num_gpu": 1}
            assert service.http.post("/api/chat", json=body | {"options": options}).status_code == 200
    log = ollama.log()
    assert [load["num_ctx"] for load in log["loads"]] == [8192, 10240]
    assert log["max_in_flight"] == 1


def test_a_lifetime_only_grows(service: Service, ollama: Ollama) -> None:
    for keep_alive in ("5m", "2h", "3h", -1, 0, "5m"):
        service.http.post("/api/chat", json={"model": "fake", "messages": HI, "keep_alive": keep_alive})
    assert [request["keep_alive"] for request in ollama.log()["requests"]] == [3600, None, 7200, 10800, -1, None, None]


def test_models_are_changed_only_where_a_setting_says_so(start_service: Callable[..., Service], ollama: Ollama) -> None:
    closed, opened = start_service(), start_service("--allow-ollama-admin")
    assert ["error" in line for line in lines(closed.http.post("/api/pull", json={"model": "new"}))] == [True]
    assert closed.http.request("DELETE", "/api/delete", json={"model": "fake"}).status_code == 403
    said = lines(opened.http.post("/api/pull", json={"model": "new"}))
    assert said == [{"status": "pulling manifest"}, {"status": "success"}]
    assert lines(opened.http.post("/api/chat", json={"model": "new", "messages": HI}))[-1]["done"]
    assert opened.http.request("DELETE", "/api/delete", json={"model": "new"}).status_code == 200
    assert opened.http.post("/api/chat", json={"model": "new", "messages": HI}).status_code == 404
    with opened.http.stream("POST", "/api/pull", json={"model": "endless"}) as pull:
        assert next(pull.iter_lines()) == '{"status":"pulling manifest"}'
        assert opened.line()["slot"] is None
    assert opened.http.get("/api/version").status_code == 200


def test_a_caller_who_waits_hears_a_usual_line(service: Service) -> None:
    with send(service, "/api/chat", {"model": "fake", "messages": [{"role": "user", "content": "!stall 1"}]}):
        until(lambda: service.line()["slot"])
        request = {"model": "fake", "messages": HI}
        with service.http.stream("POST", "/api/chat", json=request, timeout=30) as answer:
            first = json.loads(next(answer.iter_lines()))
    assert first["message"] == {"role": "assistant", "content": ""}
    assert first["done"] is False
