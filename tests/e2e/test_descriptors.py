"""The limit of open files, in real processes that start with a low one."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Ollama, Service, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
sys.argv[1:] = {flags!r}
runpy.run_module("llm_queue", run_name="__main__", alter_sys=True)
"""


class Limited(Service):
    """The service in a process that may open few files."""

    def __init__(self, ollama_url: str, soft: int, hard: int, *flags: str) -> None:
        self.limits = {"soft": soft, "hard": hard, "flags": list(flags)}
        super().__init__(ollama_url)

    def command(self, *arguments: str) -> list[str]:
        return ["-c", LIMITED.format(**self.limits)]


async def ask(port: int, number: int, say: str = "") -> int:
    """The status of one whole answer, on a connection of its own."""
    body = json.dumps({"messages": [{"role": "user", "content": f"{say}!say answer {number}"}]}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = await asyncio.wait_for(reader.read(), 50)
        assert b"answer %d" % number in answer, answer
        return int(answer.split()[1])
    finally:
        writer.transport.abort()


@pytest.fixture
def start_limited(ollama: Ollama) -> Iterator[Callable[..., Limited]]:
    started: list[Limited] = []

    def start(soft: int, hard: int, *flags: str) -> Limited:
        started.append(Limited(ollama.url, soft, hard, *flags))
        return started[-1]

    yield start
    for service in started:
        service.end()


def ask_all(service: Service, callers: int) -> list[int]:
    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(ask(service.port, number, "!slow 0.001 ") for number in range(callers)))

    return asyncio.run(all_of_them())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_soft_limit_is_raised_to_the_hard_one(start_limited: Callable[..., Limited]) -> None:
    service = start_limited(64, 1000, "--max-waiting=900")
    limits = Path(f"/proc/{service.child.pid}/limits").read_text()
    assert re.search(r"Max open files +1000 +1000", limits)
    assert not any("open files" in event["event"] for event in service.events())
    assert ask_all(service, 300) == [200] * 300


def test_a_line_that_does_not_fit_into_the_limit_is_warned_of(start_limited: Callable[..., Limited]) -> None:
    service = start_limited(128, 128)
    service.wait_for_line("--max-waiting is 2000, and the system allows 128 open files, which is room for 64 callers")


def test_when_descriptors_run_out_callers_wait_and_nobody_is_lost(
    ollama: Ollama, start_limited: Callable[..., Limited]
) -> None:
    service = start_limited(128, 128)
    assert service.http.get("/health").text == "ok"  # this one stays open, idle
    assert ask_all(service, 300) == [200] * 300
    assert len(ollama.work()) == 300
    assert ollama.log()["max_in_flight"] == 1
    events = [event["event"] for event in service.events()]
    assert sum("no room for more callers" in event for event in events) == 1
    assert not any("is not there" in event for event in events)  # the way to the upstream had its descriptor
    assert service.http.get("/health").text == "ok"
    until(lambda: service.line()["ended"] == {"succeeded": 300})


@pytest.mark.skipif(sys.platform != "linux", reason="takes descriptors away from a running process")
def test_when_another_takes_the_descriptors_they_are_waited_for(
    ollama: Ollama, start_limited: Callable[..., Limited]
) -> None:
    import resource

    service = start_limited(400, 400, "--max-waiting=300")
    assert service.chat("!say warm").status_code == 200
    service.http.close()
    resource.prlimit(service.child.pid, resource.RLIMIT_NOFILE, (40, 400))  # fewer than it was told at its start
    assert ask_all(service, 100) == [200] * 100
    events = [event["event"] for event in service.events()]
    assert sum("no room for more callers" in event for event in events) == 1
