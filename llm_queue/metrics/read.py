"""What is read from the line when somebody asks: its gauges, and what it counts itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Protocol

import prometheus_client.core as prometheus
from prometheus_client.registry import Collector

from llm_queue.dispatch.slot_time import SlotState
from llm_queue.dispatch.status import Status
from llm_queue.metrics import families
from llm_queue.metrics.counted import Counted
from llm_queue.metrics.families import Family

Values = Mapping[str, float]


class Line(Protocol):
    """What the metrics ask of the dispatcher."""

    def status(self, limit: int = ...) -> Status:
        """What the line is doing, with the first ``limit`` jobs that have not ended."""

    def slot_seconds(self) -> Mapping[SlotState, float]:
        """What the slot's time went to so far."""


class Read(Collector):
    """A collector of the line's status, and of the jobs that ``counted`` knows by model."""

    def __init__(self, line: Line, counted: Counted) -> None:
        self._line = line
        self._counted = counted

    def collect(self) -> Iterator[prometheus.Metric]:
        """Each family with its samples as of now."""
        for family, values in self._values().items():
            make = prometheus.CounterMetricFamily if family.kind == "counter" else prometheus.GaugeMetricFamily
            metric = make(family.name, family.text, labels=family.labels)
            for label, value in values.items():
                metric.add_metric([label] if family.labels else [], value)
            yield metric

    def describe(self) -> Iterator[prometheus.Metric]:
        """The families without samples: a registry asks for their names before there is a line to read."""
        for family in families.READ:
            yield prometheus.Metric(family.name.removesuffix("_total"), family.text, family.kind)

    def _values(self) -> dict[Family, Values]:
        """Of each family the values by label; without labels, one."""
        status, counted = self._line.status(limit=0), self._counted
        phase = None if status.slot is None else status.slot.phase
        return {
            families.SLOT: {state.value: seconds for state, seconds in self._line.slot_seconds().items()},
            families.ACCEPTED: _one(status.accepted),
            families.REJECTIONS: status.rejected,
            families.RETRIES: _one(status.retries),
            families.OUTAGES: _one(status.outages),
            families.SURPRISE_LOADS: _one(status.surprise_loads),
            families.HOLDS: _one(status.holds),
            families.HELD: _one(status.held_seconds),
            families.UNKNOWN_LANES: _one(status.unknown_lanes),
            families.RELOADS_AVOIDED: _one(status.reloads_avoided),
            families.REMOTE_JOBS: status.remote.ended,
            families.REMOTE_RUNNING: _one(status.remote.running),
            families.WAITING: status.waiting,
            families.OCCUPIED: {one: float(one == phase) for one in ("loading", "running")},
            families.UP: _one(status.upstream.away is None),
            families.VLLM_WAITING: counted.waiting_by_model(),
            families.VLLM_RUNNING: counted.running_by_model(),
            families.BUILD: {version("llm-queue"): 1.0},
        }


def _one(value: float) -> Values:
    return {"": float(value)}
