"""Spans of a real service at a collector, and none of OpenTelemetry where nobody asked for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.conftest import Ollama, Service

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = "a-prompt-that-no-span-has"


class Collector(ThreadingHTTPServer):
    """Takes spans, as OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.bodies: list[bytes] = []

    def spans(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for body in self.bodies:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in group.scope_spans:
                    found |= {span.name: (span, group.resource) for span in scope.spans}
        return found


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def values(span: Any) -> dict[str, Any]:
    return {one.key: one.value for one in span.attributes}


def test_a_job_s_spans_reach_the_collector_before_the_service_ends(
    start_service: Callable[..., Service], ollama: Ollama, collector: Collector
) -> None:
    service = start_service(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    answer = service.chat(PROMPT, headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "X-LLM-Queue-Client": "cron"})
    assert answer.status_code == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    spans = collector.spans()
    job, resource = spans["job"]
    assert (job.trace_id.hex(), job.parent_span_id.hex()) == (TRACE, CALLER)
    assert values(job)["llm_queue.client"].string_value == "cron"
    assert values(resource)["service.name"].string_value == "llm-queue"
    run, _ = spans["chat fake:latest"]
    assert run.parent_span_id == job.span_id
    assert values(run)["gen_ai.provider.name"].string_value == "ollama"
    assert values(run)["gen_ai.usage.output_tokens"].int_value == answer.json()["usage"]["completion_tokens"]
    told = {f"00-{TRACE}-{spans[name][0].span_id.hex()}-01" for name in ("load", "chat fake:latest")}
    assert set(ollama.log()["traceparents"]) == told
    assert PROMPT.encode() not in b"".join(collector.bodies)


def test_a_collector_that_is_not_there_holds_nothing_up(start_service: Callable[..., Service]) -> None:
    service = start_service("--otel", "on", environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert service.chat("hello").status_code == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


class Telling(Service):
    """A service that says at its end what of OpenTelemetry it has imported."""

    def command(self, *arguments: str) -> list[str]:
        module, name, *flags = arguments
        assert (module, name) == ("-m", "llm_queue")
        program = (
            "import sys\nfrom llm_queue.cli import main\ncode = main(sys.argv[1:])\n"
            "print('imported:', sum(name.startswith('opentelemetry') for name in sys.modules), flush=True)\n"
            "sys.exit(code)"
        )
        return ["-c", program, *flags]


@pytest.mark.parametrize(("flag", "imports"), [("auto", False), ("off", False), ("on", True)])
def test_nothing_of_opentelemetry_is_imported_where_nobody_asked_for_it(
    flag: str, imports: bool, ollama: Ollama
) -> None:
    service = Telling(ollama.url, "--otel", flag, environ={"OTEL_BSP_SCHEDULE_DELAY": "60000"})
    try:
        sent = {"traceparent": f"00-{TRACE}-{CALLER}-00"}  # not sampled: nothing to send to anybody
        assert service.chat("hello", headers=sent).status_code == 200
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        number = int(service.wait_for_line(r"^imported: (\d+)").group(1))
        assert (number > 0) is imports
        if not imports:
            assert list(ollama.log()["traceparents"]) == [sent["traceparent"]]
    finally:
        service.end()
