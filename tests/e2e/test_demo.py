"""The demo as a process, on a service of its own or on the one that runs, and ended in the middle."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.e2e.conftest import Ollama, Process, Service, until


class Demo(Process):
    def __init__(self, ollama: Ollama, *flags: str) -> None:
        settings = {"OLLAMA_URL": ollama.url, "OLLAMA_MODEL": "fake"}
        super().__init__("-m", "llm_queue", "demo", *flags, environ=settings)
        self.process = psutil.Process(self.child.pid)

    def service(self) -> psutil.Process:
        """The child that it has started."""
        self.wait_for_line("started a service at ")
        [service] = self.process.children()
        return service

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def test_it_starts_a_service_shows_the_line_and_says_what_came_of_it(ollama: Ollama) -> None:
    demo = Demo(ollama, "--port", "0", "--seconds", "5")
    service = demo.service()
    assert demo.wait() == 0
    assert not service.is_running()
    assert "extension (needs a load, when its turn comes)" in demo.text
    assert "through the line:" in demo.text
    assert "(simulated, not measured)" in demo.text
    assert "cron job" in demo.text
    work = ollama.work()
    assert {request["outcome"] for request in work} <= {"done", "aborted"}
    assert ollama.log()["max_in_flight"] == 1
    assert len(ollama.log()["loads"]) == 2  # the first, and one raise for the extension


def test_it_uses_the_service_that_runs_and_leaves_it_running(ollama: Ollama, service: Service) -> None:
    demo = Demo(ollama, "--port", str(service.port), "--seconds", "3")
    assert demo.wait() == 0
    assert f"using the service at {service.url}" in demo.text
    assert service.line()["ended"]["succeeded"] > 0
    assert service.child.poll() is None


def test_a_stranger_at_its_port_is_left_alone(ollama: Ollama) -> None:
    demo = Demo(ollama, "--port", str(ollama.port), "--seconds", "1")
    assert demo.wait() == 0
    assert "started a service at " in demo.text
    assert f"127.0.0.1:{ollama.port}," not in demo.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_service_and_says_nothing_more(ollama: Ollama, number: signal.Signals) -> None:
    demo = Demo(ollama, "--port", "0")
    service = demo.service()
    until(lambda: len(ollama.work()) > 3)
    demo.signal(number)
    assert demo.wait() == 128 + number
    assert not service.is_running()
    assert "Traceback" not in demo.text
    assert "through the line" not in demo.text
    until(lambda: ollama.log()["in_flight"] == 0)


def test_a_service_that_dies_ends_it_with_a_clear_line(ollama: Ollama) -> None:
    demo = Demo(ollama, "--port", "0")
    service = demo.service()
    until(lambda: len(ollama.work()) > 3)
    service.kill()
    assert demo.wait() == 1
    assert "llm-queue: the service has gone" in demo.text
    assert "Traceback" not in demo.text


def test_a_service_that_cannot_start_is_one_clear_error(ollama: Ollama) -> None:
    demo = Demo(ollama, "--port", "0", "--host", "203.0.113.1", "--allow-open", "on")
    assert demo.wait() == 1
    assert "the service did not start" in demo.text
    assert "cannot listen" in demo.text
    assert "Traceback" not in demo.text
