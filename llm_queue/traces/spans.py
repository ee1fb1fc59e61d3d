"""A span for each job, and in it those of its waits, loads and attempts: an observer of the line.

An attempt's span follows OpenTelemetry's conventions for generative AI, as they are in 2026; the other attributes are
ours, and begin with ``llm_queue``. There is no text of a caller or a model in any of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer, TraceState
from opentelemetry.util.types import AttributeValue

from llm_queue.core.jobs import State
from llm_queue.dispatch.moments import (
    AttemptFinished,
    AttemptStarted,
    Failure,
    FirstPiece,
    JobAccepted,
    JobEnded,
    JobRequeued,
    LoadFinished,
    LoadStarted,
    Moment,
)
from llm_queue.dispatch.status import JobReport
from llm_queue.traceparent import TraceContext

SHORTEST_WAIT: Final = 1_000_000
"""Nanoseconds from which on a wait has a span. A job that is next has some hundredths of that."""

GENERATIONS: Final = frozenset(("chat", "text_completion", "embeddings"))
"""Operations that the conventions know. What only loads or unloads a model is none."""

Attributes = dict[str, AttributeValue]


@dataclass(slots=True)
class Live:
    """The spans of a job that has not ended. ``attempt`` stays open until it is known what its end means."""

    job: Span
    operation: str
    model: str
    waits_since: int | None
    load: Span | None = None
    attempt: Span | None = None
    attempt_ended: int | None = None

    @property
    def innermost(self) -> Span:
        """What the upstream is told of."""
        return self.attempt or self.load or self.job


class Spans:
    """Makes spans of moments. Ending them hands them to whatever ``tracer`` exports with, which must not block."""

    def __init__(
        self, tracer: Tracer, upstream_name: str, upstream_url: str, now: Callable[[], int] = time.time_ns
    ) -> None:
        """``now`` is in nanoseconds since 1970."""
        self._tracer = tracer
        self._now = now
        self._live: dict[str, Live] = {}
        place = urlsplit(upstream_url)
        self._upstream: Attributes = {"gen_ai.provider.name": upstream_name.lower()}
        if place.hostname:
            self._upstream["server.address"] = place.hostname
            self._upstream["server.port"] = place.port or (443 if place.scheme == "https" else 80)

    def place_of(self, job: str) -> TraceContext | None:
        """Where what is asked of the upstream for this job stands now: in its attempt or load."""
        live = self._live.get(job)
        if live is None:
            return None
        place = live.innermost.get_span_context()
        return TraceContext(
            trace.format_trace_id(place.trace_id),
            trace.format_span_id(place.span_id),
            int(place.trace_flags),
            place.trace_state.to_header(),
        )

    def __call__(self, moment: Moment) -> None:
        """Begin or end what the moment says."""
        match moment:
            case JobAccepted():
                self._accepted(moment)
            case LoadStarted(job, model, num_ctx):
                live = self._live[job]
                self._end_wait(live)
                attributes: Attributes = {"llm_queue.model": model, "llm_queue.num_ctx": num_ctx}
                live.load = self._begin("load", live, SpanKind.CLIENT, self._upstream | attributes)
            case LoadFinished(job, error=error) if job in self._live:  # its caller may have left
                live = self._live[job]
                self._end_load(live, error)
                live.waits_since = self._now()
            case AttemptStarted():
                self._attempt(moment)
            case FirstPiece(job, seconds):
                attempt = self._live[job].attempt
                if attempt is not None:
                    attempt.add_event("first token", timestamp=self._now())
                    attempt.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
            case AttemptFinished(job, outcome):
                live = self._live[job]
                live.attempt_ended = self._now()
                if live.attempt is not None:
                    live.attempt.set_attribute("llm_queue.outcome", outcome.value)
            case JobRequeued(job, error=error):
                live = self._live[job]
                self._end_attempt(live, error)
                live.waits_since = self._now()
            case JobEnded(report, error):
                self._ended(self._live.pop(report.job), report, error)
            case _:
                pass  # belongs to no job

    def _accepted(self, moment: JobAccepted) -> None:
        now = self._now()
        attributes: Attributes = {
            "llm_queue.job": moment.job,
            "llm_queue.client": moment.client,
            "llm_queue.lane": moment.lane.label,
            "llm_queue.model": moment.model,
            "llm_queue.remote": moment.remote,
        }
        span = self._tracer.start_span("job", _around(moment.trace), SpanKind.SERVER, attributes, start_time=now)
        self._live[moment.job] = Live(span, moment.operation, moment.model, waits_since=now)

    def _attempt(self, moment: AttemptStarted) -> None:
        live = self._live[moment.job]
        self._end_wait(live)
        name, attributes = live.operation, self._upstream | {"llm_queue.attempt": moment.attempt}
        if moment.num_ctx:
            attributes["llm_queue.num_ctx"] = moment.num_ctx
        if live.operation in GENERATIONS:
            name = f"{live.operation} {moment.model}"
            attributes |= {"gen_ai.operation.name": live.operation, "gen_ai.request.model": moment.model}
        live.attempt = self._begin(name, live, SpanKind.CLIENT, attributes)

    def _ended(self, live: Live, report: JobReport, error: Failure | None) -> None:
        self._end_wait(live)
        self._end_load(live, error)
        if live.attempt is not None and error is None:
            for name, value in (
                ("gen_ai.usage.input_tokens", report.prompt_tokens),
                ("gen_ai.usage.cache_read.input_tokens", report.cached_tokens),
                ("gen_ai.usage.output_tokens", report.completion_tokens),
            ):
                if isinstance(value, int):
                    live.attempt.set_attribute(name, value)
            if isinstance(report.finish, str):
                live.attempt.set_attribute("gen_ai.response.finish_reasons", [report.finish])
        self._end_attempt(live, error)
        live.job.set_attributes(
            {
                "llm_queue.state": report.state,
                "llm_queue.lane": report.lane,
                "llm_queue.attempts": report.attempts,
                "llm_queue.wait_s": report.wait_s,
                "llm_queue.load_s": report.load_s,
                "llm_queue.run_s": report.run_s,
            }
        )
        if report.state == State.CANCELLED.value:
            error = None  # nobody's fault: its caller left
        self._end(live.job, self._now(), error)

    def _begin(self, name: str, live: Live, kind: SpanKind, attributes: Attributes) -> Span:
        around = trace.set_span_in_context(live.job)
        return self._tracer.start_span(name, around, kind, attributes, start_time=self._now())

    def _end_wait(self, live: Live) -> None:
        since, live.waits_since = live.waits_since, None
        now = self._now()
        if since is not None and now - since >= SHORTEST_WAIT:
            around = trace.set_span_in_context(live.job)
            self._tracer.start_span("wait", around, start_time=since).end(now)

    def _end_load(self, live: Live, error: Failure | None) -> None:
        load, live.load = live.load, None
        if load is not None:
            self._end(load, self._now(), error)

    def _end_attempt(self, live: Live, error: Failure | None) -> None:
        attempt, live.attempt = live.attempt, None
        ended, live.attempt_ended = live.attempt_ended, None
        if attempt is not None:
            self._end(attempt, ended or self._now(), error)

    def _end(self, span: Span, when: int, error: Failure | None) -> None:
        if error is not None:
            span.set_attribute("error.type", error.code)
            span.set_status(Status(StatusCode.ERROR, error.code))
        span.end(when)


def _around(place: TraceContext | None) -> Context:
    """The context of a span that follows there; nothing around it, not even what this task stands in, if nowhere."""
    if place is None:
        return Context()
    state = TraceState.from_header([place.state]) if place.state else TraceState()
    parent = SpanContext(
        int(place.trace_id, 16), int(place.span_id, 16), is_remote=True, trace_flags=TraceFlags(place.flags),
        trace_state=state,
    )  # fmt: skip
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())
