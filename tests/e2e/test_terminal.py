"""The commands of the terminal, as processes, against a started service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import PATIENCE, Ollama, Service, until


def command(port: int, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``llm-queue`` with these arguments, to its end."""
    inherited = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "llm_queue", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
        env=inherited | {"PORT": str(port), "PYTHONUTF8": "1"},
    )


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    ollama = Ollama()
    yield ollama
    ollama.end()


@pytest.fixture
def service(ollama: Ollama) -> Iterator[Service]:
    service = Service(ollama.url)
    yield service
    service.end()


def test_a_question_is_answered_through_the_line(service: Service) -> None:
    asked = command(service.port, "ask", "!say Blue, of course.")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "Blue, of course.\n", "")
    asked = command(service.port, "ask", "--lane", "background", stdin="!say Piped.")
    assert asked.stdout == "Piped.\n"
    done = [event for event in service.events() if event["event"] == "done"]
    assert [(event["client"], event["lane"]) for event in done] == [
        ("llm-queue ask", "interactive"),
        ("llm-queue ask", "background"),
    ]
    refused = command(service.port, "ask", "--model", "none-of-that-name", "?")
    assert refused.returncode == 1
    assert "none-of-that-name" in refused.stderr


def test_who_waits_is_shown_and_explained(service: Service) -> None:
    service.chat_later("!hang", {"X-LLM-Queue-Client": "stuck"})
    until(lambda: service.line()["slot"])
    service.chat_later("wait", {"X-LLM-Queue-Client": "patient"})
    until(lambda: service.waiting() == 1)
    shown = command(service.port, "status")
    assert shown.returncode == 0
    assert "stuck" in shown.stdout
    assert "patient" in shown.stdout
    job = json.loads(command(service.port, "status", "--json").stdout)["jobs"][1]["job"]
    assert job[:6] in shown.stdout
    explained = command(service.port, "why", job[:6])
    assert explained.returncode == 0
    assert job in explained.stdout
    assert "patient" in explained.stdout
    assert command(service.port, "top").stdout.splitlines()[0] == shown.stdout.splitlines()[0]
    assert command(service.port, "why", "no-such-job").returncode == 1


def test_the_doctor_finds_who_goes_past_the_line(service: Service, ollama: Ollama) -> None:
    healthy = command(service.port, "doctor", "--json")
    found = {(one["topic"], one["level"]) for one in json.loads(healthy.stdout)}
    assert {("service", "ok"), ("engine", "ok"), ("bypass", "ok")} <= found
    code = (
        f"import socket; s = socket.create_connection(('127.0.0.1', {ollama.port})); print('in', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "in\n"
        sick = command(service.port, "doctor")
        program.stdin.close()
    assert sick.returncode == 1
    assert f"(process {program.pid}) has 1 connection to Ollama past the" in sick.stdout


def test_without_a_service_each_says_so(ollama: Ollama) -> None:
    for arguments in (("status",), ("ask", "?"), ("why", "x"), ("doctor",)):
        said = command(ollama.port, *arguments)
        assert said.returncode == 1
        assert "no llm-queue" in said.stdout + said.stderr
