"""The process from the inside: what ends what, and with which exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llm_queue.core.scheduler import Scheduler
from llm_queue.exits import Exit
from llm_queue.serve import serve
from llm_queue.settings import Settings
from llm_queue.settings.values import ServerUrl
from llm_queue.testing import Hang, ScriptedUpstream
from llm_queue.traces.export import NoTracing
from llm_queue.upstream.choose import NoUpstream
from llm_queue.web.listener import open_all


class Served:
    """A service in this process: signals go in, answers and an exit code come out."""

    def __init__(self, url: str, send: trio.MemorySendChannel[int], exits: trio.MemoryReceiveChannel[Exit]) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)
        self.signal: Callable[[int], Awaitable[None]] = send.send
        self.exit_code = exits.receive

    async def chat(self) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hello"}]})


@asynccontextmanager
async def serving(upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[Served]:
    signals_in, signals_out = trio.open_memory_channel[int](5)
    exits_in, exits_out = trio.open_memory_channel[Exit](1)

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        wanted = Settings(host="127.0.0.1", port=(0,), model="scripted", **settings)
        await exits_in.send(await serve(wanted, upstream=upstream, signals=signals_out, task_status=task_status))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(run)
            served = Served(urls[0], signals_in, exits_out)
            async with served.client:
                yield served


async def test_a_signal_ends_an_idle_service_with_0() -> None:
    async with serving(ScriptedUpstream(load_seconds=0)) as served:
        assert (await served.chat()).status_code == 200
        await served.signal(signal.SIGTERM)
        assert await served.exit_code() is Exit.DRAINED


async def test_an_order_to_drain_is_answered_and_does_what_a_signal_does() -> None:
    async with serving(ScriptedUpstream(load_seconds=0)) as served:
        assert (await served.chat()).status_code == 200
        answer = await served.client.post("/queue/drain")
        assert (answer.status_code, answer.json()) == (200, {"draining": True, "jobs": 0})
        assert await served.exit_code() is Exit.DRAINED


async def test_an_order_to_drain_lets_what_is_here_end_also_in_a_pause() -> None:
    async with serving(ScriptedUpstream(load_seconds=0)) as served:
        await served.client.post("/queue/pause", json={"unload": True})
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await served.chat()).status_code == 200

            nursery.start_soon(ask)
            while not (await served.client.get("/queue")).json()["waiting"]["normal"]:
                pass
            assert (await served.client.post("/queue/drain")).json()["draining"]
        assert await served.exit_code() is Exit.DRAINED


async def test_a_signal_after_an_order_to_drain_skips_to_the_end() -> None:
    async with serving(ScriptedUpstream(load_seconds=0, default=Hang()), drain_timeout=1000) as served:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert (await served.chat()).json()["error"]["code"] == "unfinished"

            nursery.start_soon(ask)
            while not (await served.client.get("/queue")).json()["slot"]:
                pass
            assert (await served.client.post("/queue/drain")).json()["jobs"] == 1
            while not (await served.client.get("/queue")).json()["draining"]:
                pass
            assert (await served.client.post("/queue/drain")).json() == {"draining": True, "jobs": 1}
            await served.signal(signal.SIGTERM)
        assert await served.exit_code() is Exit.JOBS_LOST


async def test_jobs_that_were_told_off_are_exit_code_1() -> None:
    async with serving(ScriptedUpstream(load_seconds=0, default=Hang()), drain_timeout=0.05) as served:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                answer = await served.chat()
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "unfinished"

            nursery.start_soon(ask)
            while not (await served.client.get("/queue")).json()["slot"]:
                await trio.lowlevel.checkpoint()
            await served.signal(signal.SIGTERM)
        assert await served.exit_code() is Exit.JOBS_LOST


async def test_a_bug_in_the_line_answers_500_and_ends_the_process_with_70(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Scheduler, "_load_ended", bug)
    async with serving(ScriptedUpstream(load_seconds=0)) as served:
        answer = await served.chat()
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert await served.exit_code() is Exit.BUG


@asynccontextmanager
async def leading_to(port: Callable[[], int]) -> AsyncIterator[str]:
    """A forwarder of TCP connections to that port of 127.0.0.1."""

    async def forward(caller: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port()) as target, trio.open_nursery() as nursery:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                async for data in source:
                    await sink.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(pump, caller, target)
            nursery.start_soon(pump, target, caller)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, forward, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("engine", ["ollama", "openai"])
async def test_an_upstream_that_leads_back_to_us_through_another_program_ends_the_start(
    engine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []

    async def remember(*where: Any) -> Any:
        opened = await open_all(*where)
        ports.append(opened[0][0].socket.getsockname()[1])
        return opened

    monkeypatch.setattr("llm_queue.serve.open_all", remember)
    with trio.fail_after(20):
        async with leading_to(lambda: ports[0]) as address:
            url = ServerUrl(address)
            settings = Settings(host="127.0.0.1", port=(0,), engine=engine, ollama_url=url, upstream_url=url)
            with pytest.raises(NoUpstream, match="leads back to this llm-queue itself"):
                await serve(settings, environ={})
    assert capsys.readouterr().out == ""


async def test_an_address_that_is_taken_is_an_error_of_its_own() -> None:
    async with serving(ScriptedUpstream()) as served:
        port = served.client.base_url.port
        with pytest.raises(OSError, match=f"127.0.0.1:{port}.*in use"):
            await serve(Settings(host="127.0.0.1", port=(0, port or 0)), upstream=ScriptedUpstream())
        await served.signal(signal.SIGTERM)


async def test_the_line_that_is_served_is_the_one_that_is_measured() -> None:
    async with serving(ScriptedUpstream(load_seconds=0)) as served:
        assert (await served.chat()).status_code == 200
        page = (await served.client.get("/metrics")).text
        assert 'llm_queue_jobs_total{lane="normal",state="succeeded"} 1.0' in page
        assert "llm_queue_up 1.0" in page
        await served.signal(signal.SIGTERM)
        assert await served.exit_code() is Exit.DRAINED


async def test_spans_that_are_asked_for_are_of_the_line_that_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    monkeypatch.setattr("opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter", lambda: kept)
    async with serving(ScriptedUpstream(load_seconds=0), otel="on") as served:
        sent = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        body = {"messages": [{"role": "user", "content": "hello"}]}
        await served.client.post("/v1/chat/completions", json=body, headers=sent)
        await served.signal(signal.SIGTERM)
        assert await served.exit_code() is Exit.DRAINED
    [job] = [span for span in kept.get_finished_spans() if span.name == "job"]
    assert job.parent is not None
    assert f"{job.parent.span_id:016x}" in sent["traceparent"]


async def test_spans_that_cannot_be_sent_are_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(NoTracing):
        await serve(Settings(port=(0,), otel="on"), upstream=ScriptedUpstream())
