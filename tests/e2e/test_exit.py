"""The end of the service under load: by a signal, by two, by a kill, and under the eyes of systemd."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.conftest import Ollama, Service, until
from tests.soak.kinds import KINDS, Kind
from tests.soak.wire import Closed, Heard, Line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")

QUESTIONS = ("!say well", "!slow 0.02 !tokens 500 for a while", "!hang")


def spoken(service: Service) -> list[Kind]:
    """The dialects that this service speaks, but for those that the fake cannot be steered in."""
    return [kind for kind in KINDS.values() if kind.steered and service.http.get(kind.path).status_code == 405]


def request(kind: Kind, question: str, *, streamed: bool) -> bytes:
    body = json.dumps(kind.body("fake", "be brief", question, streamed)).encode()
    headers = "".join(f"{name}: {value}\r\n" for name, value in kind.headers)
    return (
        f"POST {kind.path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body
    )


async def ask(port: int, kind: Kind, question: str, *, streamed: bool) -> str:
    """``answered``, or ``told off``: in its own dialect, and with an end."""
    line, heard = Line(port), Heard()
    await line.open()
    try:
        await line.send(request(kind, question, streamed=streamed))
        await line.hear(heard)
    finally:
        line.close()
    if heard.status == 200 and streamed:
        assert kind.piece is not None
        events = list(kind.events(bytes(heard.body)))
        failed = any(kind.error(event) for event in events)
        assert failed != kind.last(events[-1]), heard.body[-500:]
        return "told off" if failed else "answered"
    answer = json.loads(heard.body)
    if heard.status == 200:
        kind.whole(answer)
        return "answered"
    assert heard.status == 503, heard
    assert kind.error(answer), answer
    assert int(heard.headers["retry-after"]) > 0
    return "told off"


def under_load(service: Service, then: Callable[[], object]) -> Counter[str]:
    """Everything asked at once, in every dialect; ``then`` is called when it waits in line."""
    kinds = spoken(service)
    assert len(kinds) >= 4

    async def all_of_them() -> Counter[str]:
        async with asyncio.TaskGroup() as callers:
            tasks = [
                callers.create_task(ask(service.port, kind, question, streamed=streamed))
                for question in QUESTIONS  # the quick ones first, so that some are answered on a slow machine too
                for kind in kinds
                for streamed in (False, True)
                for _ in range(3)
            ]
            await asyncio.to_thread(until, lambda: service.waiting() >= len(tasks) / 2)
            then()
        return Counter(task.result() for task in tasks)

    return asyncio.run(all_of_them())


def test_sigterm_under_load_answers_or_tells_off_everybody_in_their_dialect(
    ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    service = start_service("--drain-timeout", "2")
    begun: list[float] = []

    def stop() -> None:
        begun.append(time.monotonic())
        service.signal(signal.SIGTERM)

    became = under_load(service, stop)
    assert service.wait() == 1
    assert time.monotonic() - begun[0] < 10  # 2 s of drain, 2 s for an attempt to be seen closed, and a busy machine
    assert became["answered"] > 0
    assert became["told off"] > 0
    assert not any(event["level"] in ("error", "critical") for event in service.events())
    until(lambda: ollama.log()["in_flight"] == 0)
    assert ollama.log()["max_in_flight"] == 1


def test_a_second_signal_ends_at_once_and_tells_off_everybody(
    ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    service = start_service("--drain-timeout", "600")
    begun: list[float] = []

    def stop_twice() -> None:
        service.signal(signal.SIGTERM)
        service.wait_for_line("may finish first")
        begun.append(time.monotonic())
        service.signal(signal.SIGTERM)

    became = under_load(service, stop_twice)
    assert service.wait() == 1
    assert time.monotonic() - begun[0] < 8
    assert became["told off"] > became["answered"]
    until(lambda: ollama.log()["in_flight"] == 0)


def test_whoever_comes_while_it_stops_is_answered_or_finds_nobody(start_service: Callable[..., Service]) -> None:
    service = start_service("--drain-timeout", "1")
    hanging = service.chat_later("!hang")
    until(lambda: service.line()["slot"])
    became: Counter[str] = Counter()

    async def come_again_and_again() -> None:
        while True:
            line, heard = Line(service.port), Heard()
            try:
                await line.open()
            except ConnectionError:
                return  # nobody listens any more
            try:
                await line.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                await line.hear(heard)
                became[str(heard.status)] += 1
            except Closed as closed:
                became[f"closed without an answer: {closed}, {closed.__cause__!r}"] += 1
            finally:
                line.close()

    async def many() -> None:
        async with asyncio.TaskGroup() as callers:
            for _ in range(20):
                callers.create_task(come_again_and_again())
            await asyncio.sleep(0.3)
            service.signal(signal.SIGTERM)

    asyncio.run(many())
    assert hanging.result().status_code == 503
    assert service.wait() == 1
    assert set(became) == {"200", "503"}, became


def test_a_kill_under_load_leaves_nothing_that_prevents_a_restart(
    ollama: Ollama, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    trace = f"--trace={tmp_path / 'trace'}"
    service = start_service(trace)
    waiting = [service.chat_later(f"!first 0.2 job {number}") for number in range(10)]
    until(lambda: service.waiting() == 9)
    service.signal(signal.SIGKILL)
    assert service.wait() == -signal.SIGKILL
    again = start_service(trace, "--port", str(service.port))
    assert again.port == service.port
    assert again.chat("!say here again").json()["choices"][0]["message"]["content"] == "here again"
    assert all(job.exception() is not None or job.result().status_code == 200 for job in waiting)
    assert ollama.log()["max_in_flight"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


class Ear:
    """systemd's end of the socket, with the time at which each word came."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.heard: list[tuple[float, str]] = []

    def listen(self, seconds: float) -> None:
        """Hear what is said for so long."""
        last_moment = time.monotonic() + seconds
        while (left := last_moment - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                self.heard.append((time.monotonic(), self.socket.recv(4096).decode()))
            except TimeoutError:
                return

    def until(self, word: str) -> str:
        """The first message with this in it."""
        self.socket.settimeout(20)
        while True:
            self.heard.append((time.monotonic(), self.socket.recv(4096).decode()))
            if word in self.heard[-1][1]:
                return self.heard[-1][1]


def test_systemd_is_told_of_the_start_of_life_and_of_the_end_under_load(
    tmp_path: Path, ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    ear = Ear(str(tmp_path / "notify"))
    with closing(ear.socket):
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        service = start_service("--drain-timeout", "0.5", environ=environ)
        assert service.url in ear.until("READY=1")
        jobs = [service.chat_later("!slow 0.01 !tokens 1000 go") for _ in range(20)]
        until(lambda: service.waiting() == 19)
        ear.heard.clear()
        ear.listen(2.5)
        beats = [at for at, said in ear.heard if said == "WATCHDOG=1"]
        assert len(beats) >= 4
        assert max(later - at for at, later in pairwise(beats)) < 1.0  # systemd's patience
        os.kill(service.child.pid, signal.SIGSTOP)
        ear.listen(0.2)
        ear.heard.clear()
        ear.listen(1.5)
        assert not ear.heard  # whoever is stopped gives no sign of life
        os.kill(service.child.pid, signal.SIGCONT)
        ear.until("WATCHDOG=1")
        service.signal(signal.SIGTERM)
        assert "EXTEND_TIMEOUT_USEC=15500000" in ear.until("STOPPING=1")
        assert service.wait() == 1
        assert all(job.result().status_code in (200, 503) for job in jobs)
