"""Real processes: the service and a fake Ollama, each on a free port, ended with the test that started them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

PATIENCE = 20.0
"""Seconds after which a process that should have said something never will."""


class Process:
    """A child that says on which address it listens."""

    def __init__(self, *arguments: str, environ: dict[str, str] | None = None) -> None:
        inherited = {
            name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "COVERAGE_PROCESS_START") if name in os.environ
        }
        self.child = subprocess.Popen(
            [sys.executable, *self.command(*arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env=inherited | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"} | (environ or {}),
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def command(self, *arguments: str) -> list[str]:
        """What Python is told to run."""
        return list(arguments)

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout:
            for line in self.child.stdout:
                with self._more:
                    self.lines.append(line.rstrip("\n"))
                    self._more.notify_all()

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """The first line, past or to come, that has this in it."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._more:
            assert self._more.wait_for(lambda: found() is not None, PATIENCE), "\n".join([pattern, *self.lines])
            match = found()
            assert match is not None
            return match

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended and all that it said was read."""
        code = self.child.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.wait()


class Ollama(Process):
    """A fake Ollama."""

    def __init__(self, *flags: str, port: int = 0) -> None:
        super().__init__("-m", "llm_queue.testing.fake_ollama", "--port", str(port), *flags)
        self.url = self.wait_for_line(r"listening on (\S+)").group(1)
        self.port = int(self.url.rpartition(":")[2])

    def log(self) -> dict[str, Any]:
        log: dict[str, Any] = httpx.get(f"{self.url}/_fake/log", trust_env=False).json()
        return log

    def work(self) -> list[dict[str, Any]]:
        """Model work that was asked for, without loads."""
        return [request for request in self.log()["requests"] if request["prompt"]]


class Service(Process):
    """The service in front of it."""

    def __init__(self, ollama_url: str, *flags: str, environ: dict[str, str] | None = None) -> None:
        settings = {"OLLAMA_URL": ollama_url, "OLLAMA_MODEL": "fake", "PORT": "0", "LLM_QUEUE_LOG_FORMAT": "json"}
        super().__init__("-m", "llm_queue", *flags, environ=settings | (environ or {}))
        self.url = self.wait_for_line(r"listening on (http://127\.0\.0\.1:\d+)").group(1)
        self.port = int(self.url.rpartition(":")[2])
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)
        self._threads = ThreadPoolExecutor(64)

    def chat(self, prompt: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": prompt}], **fields}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def chat_later(self, prompt: str, headers: dict[str, str] | None = None, **fields: Any) -> Future[httpx.Response]:
        """The same in the background."""
        return self._threads.submit(self.chat, prompt, headers, **fields)

    def hang_up_after(self, prompt: str, condition: Callable[[], object], **fields: Any) -> None:
        """Ask on a connection of its own, and close it once ``condition`` holds."""
        body = json.dumps({"messages": [{"role": "user", "content": prompt}], **fields}).encode()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            until(condition)

    def line(self) -> dict[str, Any]:
        status: dict[str, Any] = self.http.get("/queue").json()
        return status

    def waiting(self) -> int:
        return sum(self.line()["waiting"].values())

    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def end(self) -> None:
        super().end()
        self._threads.shutdown()
        self.http.close()


def until(condition: Callable[[], object]) -> None:
    """Return as soon as it holds: all that can be done across processes is to look again."""
    last_moment = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < last_moment, "this never came to be"
        time.sleep(0.005)


@pytest.fixture
def start_ollama() -> Iterator[Callable[..., Ollama]]:
    with contextlib.ExitStack() as started:

        def start(*flags: str, port: int = 0) -> Ollama:
            ollama = Ollama(*flags, port=port)
            started.callback(ollama.end)
            return ollama

        yield start


@pytest.fixture
def ollama(start_ollama: Callable[..., Ollama]) -> Ollama:
    """A fake Ollama with two models of which one fits at a time."""
    return start_ollama("--model", "fake", "--model", "second")


@pytest.fixture
def start_service(ollama: Ollama) -> Iterator[Callable[..., Service]]:
    with contextlib.ExitStack() as started:

        def start(*flags: str, url: str = ollama.url, environ: dict[str, str] | None = None) -> Service:
            service = Service(url, *flags, environ=environ)
            started.callback(service.end)
            return service

        yield start


@pytest.fixture
def service(start_service: Callable[..., Service]) -> Service:
    return start_service()
