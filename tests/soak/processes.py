"""The processes of a soak: the upstream, which is killed now and then, the service, and its callers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import psutil

from tests.soak.ledger import Ledger
from tests.soak.plans import MODELS, REMOTE

PATIENCE = 30.0
"""Seconds after which a process that should have said something never will."""


_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    try:
        with _DIRECTLY.open(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class Process:
    """A child of ours; each line of its output goes to ``hear``."""

    def __init__(self, arguments: list[str], hear: Callable[[str], None], **environ: str) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "OLLAMA_"))}
        self.child = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env=own | {"PYTHONUNBUFFERED": "1"} | environ,
        )
        self._hear = hear
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout:
            for line in self.child.stdout:
                self._hear(line.rstrip("\n"))

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code, once all that it said was heard."""
        code = self.child.wait(seconds)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> None:
        """End it at once."""
        if self.child.poll() is None:
            self.child.kill()
        self.wait()


class Listening(Process):
    """A child that says where it listens."""

    def __init__(self, arguments: list[str], hear: Callable[[str], None], **environ: str) -> None:
        said = threading.Event()
        self.url = ""

        def listen(line: str) -> None:
            if not self.url and "listening on http" in line:
                self.url = line.partition("listening on ")[2].split()[0]
                said.set()
            hear(line)

        super().__init__(arguments, listen, **environ)
        if not said.wait(PATIENCE):
            self.kill()
            raise RuntimeError(f"this never listened: {arguments}")
        self.port = int(self.url.rpartition(":")[2])


class Upstream:
    """The fake Ollama, on one port for all its lives."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.lives = 0
        self._port = 0
        self._process = self._start()
        self._port = self._process.port
        self.url = self._process.url

    def _start(self) -> Listening:
        self.lives += 1
        flags = [word for model in MODELS for word in ("--model", model)]
        flags += ["--remote", REMOTE, "--capability", "completion", "--capability", "embedding"]
        flags += ["--load-seconds", "0.02", "--token-seconds", "0", "--remembered", "1000"]
        return Listening(["-m", "llm_queue.testing.fake_ollama", "--port", str(self._port), *flags], self._said)

    def _said(self, line: str) -> None:
        if not line.startswith("listening on"):
            self._ledger.problem(f"the fake Ollama says: {line}")

    def state(self) -> dict[str, Any]:
        """What has happened in this life."""
        try:
            state: dict[str, Any] = json.loads(ask(f"{self.url}/_fake/log")[1])
        except OSError as error:
            self._ledger.problem(f"the fake Ollama is gone: {error}")
            self._process.kill()
            self._process = self._start()
            return {"in_flight": 0}
        if state["max_in_flight"] > 1:
            self._ledger.problem(f"the upstream had {state['max_in_flight']} requests in flight")
        return state

    def die_and_return(self, seconds: float) -> None:
        """Be killed in the middle of whatever it does, and be back after so many seconds."""
        self.state()
        self._process.kill()
        time.sleep(seconds)
        self._process = self._start()

    def kill(self) -> None:
        """The end."""
        self._process.kill()


class Service(Listening):
    """llm-queue, whose every word is heard, and whose pages are looked through."""

    def __init__(self, upstream: Upstream, ledger: Ledger, *flags: str) -> None:
        self._ledger = ledger
        super().__init__(
            ["-m", "llm_queue", *flags],
            ledger.service_said,
            OLLAMA_URL=upstream.url,
            OLLAMA_MODEL=MODELS[0],
            PORT="0",
            LLM_QUEUE_LOG_FORMAT="json",
        )
        self._measured = psutil.Process(self.child.pid)
        self.pages = 0

    def measure(self) -> tuple[float, int]:
        """Its resident memory in MiB, and its descriptors."""
        return self._measured.memory_info().rss / 2**20, self._measured.num_fds()

    def page(self, path: str) -> bytes:
        """What is answered at this path, after a look for what must not be there."""
        _, body = ask(self.url + path)
        self.pages += 1
        if b"kanari" in body:
            self._ledger.problem(f"a prompt or an answer at {path}: {body[:500]!r}")
        return body

    def look_through(self) -> None:
        """All pages that say something of the line."""
        for path in ("/queue", "/queue?limit=1000", "/metrics", "/ready", "/health", "/openapi.json", "/"):
            self.page(path)
        for job in self._ledger.latest[-5:]:
            self.page(f"/queue/jobs/{job}")

    def line(self) -> dict[str, Any]:
        """``/queue``."""
        line: dict[str, Any] = json.loads(self.page("/queue?limit=1000"))
        return line
