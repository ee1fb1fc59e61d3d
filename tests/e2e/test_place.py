"""The service in front of what is not an engine, in Ollama's place, and under names that are not there."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.conftest import Ollama, Process, Service


def free_ports(number: int) -> list[int]:
    """Ports on which nobody listens."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llm_queue", *flags]
    return subprocess.run(command, env={}, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_upstream_that_is_one_of_our_ports_is_one_clear_line_and_exit_code_2(host: str) -> None:
    first, second = free_ports(2)
    refused = start("--port", f"{first},{second}", "--ollama-url", f"http://{host}:{second}")
    assert refused.returncode == 2
    assert "leads to this llm-queue itself" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not refused.stdout


def test_the_one_that_closes_a_ring_does_not_start(start_service: Callable[..., Service]) -> None:
    [port] = free_ports(1)
    first = start_service("--engine", "openai", "--upstream-url", f"http://127.0.0.1:{port}")
    refused = start("--port", str(port), "--engine", "openai", "--upstream-url", first.url)
    assert refused.returncode == 2
    assert f"{first.url} leads back to this llm-queue itself" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not refused.stdout


def test_two_in_a_row_serve_and_say_that_they_are_two(
    service: Service, ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    front = start_service("--engine", "openai", "--upstream-url", service.url)
    assert front.chat("!say hi").json()["choices"][0]["message"]["content"] == "hi"
    front.wait_for_line("the upstream is another llm-queue")
    assert not any("another llm-queue" in line for line in service.lines)
    assert len(ollama.work()) == 1


def test_each_of_several_ports_answers_and_the_first_lines_name_them(ollama: Ollama) -> None:
    first, second = free_ports(2)
    process = Process("-m", "llm_queue", "--port", f"{first},{second}", "--ollama-url", ollama.url, "--model", "fake")
    try:
        process.wait_for_line(f"listening on http://127.0.0.1:{first}")
        process.wait_for_line(f"and on +http://127.0.0.1:{second}")
        for port in (first, second):
            assert httpx.get(f"http://localhost:{port}/health", trust_env=False).text == "ok"
    finally:
        process.end()


def test_a_port_of_several_that_is_taken_is_named_and_none_is_kept(service: Service) -> None:
    [free] = free_ports(1)
    refused = start("--port", f"{free},{service.port}", "--ollama-url", "http://localhost:1")
    assert refused.returncode == 2
    assert f"cannot listen on 127.0.0.1:{service.port}: " in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_name_of_a_hosted_service_is_answered_by_its_alias_under_its_own_name(
    ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    service = start_service("--alias", "claude-*=second", "--alias", "gpt-4o=fake")
    answer = service.chat("!say hi", model="claude-haiku-4-5")
    assert answer.json()["model"] == "claude-haiku-4-5"
    assert ollama.work()[0]["model"] == "second:latest"
    assert "gpt-4o" in [model["id"] for model in service.http.get("/v1/models").json()["data"]]
    unknown = service.chat("hello", model="gemini-2.5-pro")
    assert unknown.status_code == 404
    assert "--alias 'gemini-*=fake:latest'" in unknown.json()["error"]["message"]
