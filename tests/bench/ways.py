"""What stands in front of the engine: nothing, the Node ancestor, HAProxy, or the line. Each is a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil

from tests.e2e.conftest import Process, Service, until

ANCESTOR: Final = "llm-queue@0.2.2"

HAPROXY: Final = """\
global
    maxconn 9900
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout queue 300s
frontend front
    bind 127.0.0.1:{port}
    monitor-uri /health
    default_backend engine
    http-request set-priority-class int(-100) if {{ req.hdr(x-priority) -m found }}
backend engine
    option http-keep-alive
    option http-no-delay
    server engine {engine} maxconn 1
"""


@dataclass(frozen=True)
class Way:
    """One way to the engine. ``native``: it is asked in Ollama's own dialect. ``pid`` is its process, if any."""

    name: str
    url: str
    native: bool
    pid: int | None

    def cpu(self) -> float:
        """Seconds of processor time that its process has taken so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Resident bytes of its process."""
        return int(psutil.Process(self.pid).memory_info().rss)


class Engine(Process):
    """The engine, as a process."""

    def __init__(self, *, seconds: float = 0.0, tokens: int = 20, rate: float = 0.0, first: float = 0.0) -> None:
        self.seconds = seconds
        self.tokens = tokens
        settings = {"seconds": seconds, "tokens": tokens, "rate": rate, "first": first}
        flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        super().__init__("-m", "tests.bench.engine", *flags)
        self.url = self.wait_for_line(r"listening on (\S+)").group(1)
        self._asking = httpx.Client(trust_env=False, verify=False, timeout=60)  # made once: that alone takes 20 ms

    def log(self) -> dict[str, list[float]]:
        """When requests arrived and ended."""
        log: dict[str, list[float]] = self._asking.get(f"{self.url}/_log").json()
        return log


class Peers:
    """The other programs, installed once for a run. Those that cannot be had stand in ``skipped``, with the reason."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.skipped: dict[str, str] = {}
        if not (shutil.which("npm") and shutil.which("node")):
            self.skipped["ancestor"] = "there is no Node here"
        else:
            subprocess.run(["npm", "install", "--silent", "--prefix", self._folder.name, ANCESTOR], check=True)
        if not shutil.which("haproxy"):
            self.skipped["HAProxy"] = "it is not installed here"

    def close(self) -> None:
        """Remove what was installed."""
        self._folder.cleanup()

    @contextlib.contextmanager
    def opened(self, name: str, engine: str, *flags: str) -> Iterator[Way]:
        """The way called ``name``, in front of the engine at that URL. ``flags`` are for the line alone."""
        match name:
            case "direct":
                yield Way(name, engine, native=True, pid=None)
            case "llm-queue":
                service = Service(engine, *flags, environ={"LLM_QUEUE_LOG_FORMAT": "text"})
                try:
                    yield Way(name, service.url, native=False, pid=service.child.pid)
                finally:
                    service.end()
            case "ancestor":
                port = free_port()
                environ = {"OLLAMA_URL": engine, "OLLAMA_MODEL": "fake", "PORT": str(port), "HOST": "127.0.0.1"}
                command = str(Path(self._folder.name, "node_modules", ".bin", "llm-queue"))
                with running([command, "serve"], f"http://127.0.0.1:{port}/health", environ) as pid:
                    yield Way(name, f"http://127.0.0.1:{port}", native=False, pid=pid)
            case "HAProxy":
                port = free_port()
                configuration = Path(self._folder.name, "haproxy.cfg")
                configuration.write_text(
                    HAPROXY.format(port=port, engine=engine.removeprefix("http://")), encoding="utf-8"
                )
                command_line = ["haproxy", "-db", "-f", str(configuration)]
                with running(command_line, f"http://127.0.0.1:{port}/health", {}) as pid:
                    yield Way(name, f"http://127.0.0.1:{port}", native=True, pid=pid)
            case _:
                raise ValueError(name)


@contextlib.contextmanager
def running(command: list[str], url: str, environ: dict[str, str]) -> Iterator[int]:
    """A process that answers at ``url``; its process id, that of its only child if a worker does the work."""
    child = subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(url))
        children = psutil.Process(child.pid).children()
        yield children[0].pid if children else child.pid
    finally:
        child.terminate()
        child.wait(20)


def answers(url: str) -> bool:
    """True if a GET has status 200."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port: int = placeholder.getsockname()[1]
        return port
