"""Where spans go: to a collector, by OpenTelemetry's own exporter, as its own variables say."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from llm_queue.traces.spans import Spans

FLUSH: Final = 2.0
"""Seconds that the end of the service waits for a collector to take the last spans."""

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The variables that say where a collector is."""


class NoTracing(Exception):
    """Spans are wanted and cannot be kept. The text says what to do."""


def wanted(setting: str, environ: Mapping[str, str]) -> bool:
    """Whether spans are to be exported: as ``--otel`` says, and with ``auto`` where a collector is named."""
    if setting != "auto":
        return setting == "on"
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    elsewhere = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("", "otlp")
    return not disabled and not elsewhere and any(environ.get(name, "").strip() for name in ENDPOINTS)


def begin(setting: str, environ: Mapping[str, str]) -> tuple[Export | None, list[str]]:
    """The export that is wanted, if one is, and what is to be said about one that cannot be.

    Raises :class:`NoTracing` if one cannot be that is asked for by ``--otel`` itself. A variable may be there for
    others.
    """
    if not wanted(setting, environ):
        return None, []
    try:
        return Export(), []
    except NoTracing as error:
        if setting == "on":
            raise
        return None, [f"no spans are sent, though OTEL_EXPORTER_OTLP_ENDPOINT is set: {error}"]


class Export:
    """Spans on their way: a thread with a bounded queue sends them. What does not fit into the queue is lost, and the
    log says so. Nothing here ever waits for the collector, but :meth:`aclose`.
    """

    def __init__(self) -> None:
        """Raises :class:`NoTracing` where OpenTelemetry is not installed, or does not take its variables."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise NoTracing(f"spans need the extra otel: pip install 'llm-queue[otel]' ({error})") from error
        own = Resource({"service.name": "llm-queue", "service.version": version("llm-queue")})
        try:
            provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise NoTracing(f"OpenTelemetry does not take what its variables (OTEL_...) say: {error}") from error
        self._provider: TracerProvider = provider

    def spans(self, upstream_name: str, upstream_url: str) -> Spans:
        """An observer that makes spans of a line in front of that upstream."""
        from llm_queue.traces.spans import Spans

        return Spans(self._provider.get_tracer("llm-queue", version("llm-queue")), upstream_name, upstream_url)

    async def aclose(self, patience: float = FLUSH) -> None:
        """Send what is left, for ``patience`` seconds at most."""
        with trio.move_on_after(patience):
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)
