"""When spans are sent, and that nothing waits for whoever takes them."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import trio

from llm_queue.traces import export
from llm_queue.traces.export import Export, NoTracing, begin, wanted

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.mark.parametrize(
    ("setting", "environ", "expected"),
    [
        ("auto", {}, False),
        ("auto", COLLECTOR, True),
        ("auto", TRACES, True),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ("auto", {"OTEL_SERVICE_NAME": "mine"}, False),
        ("auto", COLLECTOR | {"OTEL_SDK_DISABLED": "True"}, False),
        ("auto", COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"}, False),
        ("auto", COLLECTOR | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ("auto", COLLECTOR | {"OTEL_TRACES_EXPORTER": ""}, True),
        ("on", {}, True),
        ("off", COLLECTOR, False),
    ],
)
def test_spans_are_sent_where_a_collector_is_named_or_they_are_asked_for(
    setting: str, environ: dict[str, str], expected: bool
) -> None:
    assert wanted(setting, environ) is expected


async def test_what_is_not_wanted_is_not_begun() -> None:
    assert begin("auto", {}) == (None, [])


async def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(NoTracing, match=r"llm-queue\[otel\]"):
        begin("on", {})
    none, [warning] = begin("auto", COLLECTOR)
    assert none is None
    assert "llm-queue[otel]" in warning


async def test_a_variable_of_opentelemetry_that_cannot_be_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "999999")
    with pytest.raises(NoTracing, match="OTEL_"):
        begin("on", {})


async def test_the_service_has_a_name_unless_it_was_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(Export()) == "llm-queue"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert named(Export()) == "mine"
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=ours,place=attic")
    assert named(Export()) == "ours"


def named(exported: Export) -> Any:
    provider = exported._provider
    provider.shutdown()
    return provider.resource.attributes["service.name"]


async def test_the_end_waits_for_a_collector_that_hangs_no_longer_than_it_says() -> None:
    exported, released, began = Export(), threading.Event(), threading.Event()
    provider = exported._provider

    class Hanging:
        def shutdown(self) -> None:
            began.set()
            assert released.wait(60)

    exported._provider = Hanging()  # type: ignore[assignment]  # a collector that takes nothing
    try:
        with trio.fail_after(30):
            await exported.aclose(patience=0.01)
        assert began.is_set()
        assert not released.is_set()
    finally:
        released.set()
        provider.shutdown()
    assert export.FLUSH <= 5
