"""The metrics as Prometheus reads them: its text format, or OpenMetrics where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import prometheus_client as prometheus
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.registry import Collector

from llm_queue.dispatch.moments import Moment
from llm_queue.metrics.counted import Counted
from llm_queue.metrics.read import Line, Read

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

AS_THEY_ARE: Final = "allow-utf-8"
"""How names are written. The other ways would make an underscore of the colon in vLLM's names."""


class Metrics:
    """The metrics of one line, in a registry of their own. An observer of that line."""

    def __init__(self, line: Line) -> None:
        registry = prometheus.CollectorRegistry()
        self._counted = Counted(registry)
        registry.register(Read(line, self._counted))
        self._registry = registry

    def __call__(self, moment: Moment) -> None:
        """Count what has happened."""
        self._counted(moment)

    def page(self, accept: str) -> tuple[str, bytes]:
        """The media type and the body, as the ``Accept`` header asks."""
        shown = _WithoutBirths(self._registry)
        if prefers_openmetrics(accept):
            body: bytes = as_openmetrics(shown, AS_THEY_ARE)  # type: ignore[no-untyped-call]  # it has no types
            return OPENMETRICS, body
        return TEXT, prometheus.generate_latest(shown, AS_THEY_ARE)


class _WithoutBirths(Collector):
    """A registry without the time at which each series began: nobody asks, and it is one series more for each."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def prefers_openmetrics(accept: str) -> bool:
    """True if an ``Accept`` header names OpenMetrics, and wants it no less than text."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        if media_type in wanted:
            wanted[media_type] = max(wanted[media_type], _quality(parameters))
    asked, text = wanted.values()
    return asked > 0 and asked >= text


def _quality(parameters: list[str]) -> float:
    """The ``q`` of one part, 1 if it has none; one that is no number is 0."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
