"""Each job is a span, and what it went through are spans in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from trio.testing import MockClock

from llm_queue.core.events import Outcome
from llm_queue.core.jobs import Lane
from llm_queue.dispatch.moments import AttemptFinished, AttemptStarted, JobAccepted, JobEnded
from llm_queue.errors import QueueError
from llm_queue.testing import Break, Hang, Refuse, Say, ScriptedUpstream
from llm_queue.traceparent import TraceContext, sent_headers
from llm_queue.traces.spans import Spans
from tests.harness import MODEL, OTHER, REMOTE, Harness, answer, line
from tests.metrics.test_moves import a_report

PROMPT, ANSWER = "a-prompt-that-no-span-has", "an-answer-that-no-span-has"
CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1, "vendor=1")


class Listening(ScriptedUpstream):
    """Remembers where each load and run stood in a trace."""

    heard: list[dict[str, str]]

    async def load(self, *arguments: Any) -> None:
        self.heard.append(sent_headers())
        await super().load(*arguments)

    async def run(self, *arguments: Any) -> Any:
        self.heard.append(sent_headers())
        return await super().run(*arguments)

    async def probe(self) -> None:
        assert sent_headers() == {}
        await super().probe()


class Traced:
    """What a test holds: the line, and the spans that have ended."""

    def __init__(self, held: Harness, upstream: Listening) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.held = held
        self.upstream = upstream
        tracer = provider.get_tracer("test")
        self.observer = Spans(tracer, upstream.name, upstream.url, lambda: round(trio.current_time() * 1e9))
        held.dispatcher.observers.add(self.observer)
        held.dispatcher.trace_by(self.observer.place_of)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._kept.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def rows(self) -> list[tuple[str, float]]:
        """Each span with the seconds that it lasted, in the order of their beginnings."""
        found = sorted(self.spans, key=lambda span: (span.start_time or 0, span.parent is not None))
        return [(span.name, round(((span.end_time or 0) - (span.start_time or 0)) / 1e9, 3)) for span in found]


def place_of(span: ReadableSpan) -> SpanContext:
    place = span.get_span_context()
    assert place is not None
    return place


@asynccontextmanager
async def traced(**settings: Any) -> AsyncIterator[Traced]:
    upstream = Listening(known=[MODEL, OTHER])
    upstream.heard = []
    async with line(upstream, **settings) as held:
        yield Traced(held, upstream)


async def test_a_job_s_span_holds_its_load_its_attempts_and_its_waits(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        seen.upstream.then(Break(after=1.0), Say("two words", first_after=2.0, seconds_per_token=1.0, prompt_tokens=7))
        await seen.held.ask(PROMPT, client="cron", lane=Lane.BACKGROUND)
        assert seen.rows() == [("job", 6.0), ("load", 1.0), ("chat scripted", 1.0), ("chat scripted", 4.0)]
        [job] = seen.named("job")
        assert job.parent is None
        assert job.kind is SpanKind.SERVER
        assert job.attributes is not None
        assert job.attributes["llm_queue.client"] == "cron"
        assert job.attributes["llm_queue.lane"] == "background"
        assert job.attributes["llm_queue.state"] == "succeeded"
        assert job.attributes["llm_queue.attempts"] == 2
        assert job.attributes["llm_queue.run_s"] == 5.0
        assert job.status.status_code is StatusCode.UNSET
        for span in seen.spans:
            if span is not job:
                assert span.parent == job.get_span_context()
        broken, good = seen.named("chat scripted")
    assert broken.status.status_code is StatusCode.ERROR
    assert dict(broken.attributes or {}) == {
        "gen_ai.provider.name": "scripted",
        "server.address": "scripted.test",
        "server.port": 80,
        "llm_queue.attempt": 1,
        "llm_queue.num_ctx": 8192,
        "llm_queue.outcome": "broken",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "scripted",
        "error.type": "upstream_broke",
    }
    assert good.kind is SpanKind.CLIENT
    assert good.attributes is not None
    assert good.attributes["gen_ai.usage.input_tokens"] == 7
    assert good.attributes["gen_ai.usage.output_tokens"] == 2
    assert good.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert good.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(3.0)
    assert "error.type" not in good.attributes
    [first] = good.events
    assert first.name == "first token"
    assert first.timestamp - (good.start_time or 0) == 3 * 10**9


async def test_a_wait_is_a_span_and_one_of_no_length_is_none(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        seen.upstream.default = Say(first_after=2.0)
        first, second = seen.held.submit(), seen.held.submit()
        await answer(first)
        await answer(second)
        [wait] = seen.named("wait")
        assert ((wait.end_time or 0) - (wait.start_time or 0)) / 1e9 == pytest.approx(3.0)
        [_, job] = seen.named("job")
    assert wait.parent == job.get_span_context()


async def test_a_caller_s_trace_goes_on_through_the_job_to_the_upstream(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        await seen.held.ask(trace=CALLER)
        [job], [load], [run] = seen.named("job"), seen.named("load"), seen.named("chat scripted")
    assert job.parent is not None
    assert f"{job.parent.span_id:016x}" == CALLER.span_id
    for span, heard in zip((load, run), seen.upstream.heard, strict=True):
        place = place_of(span)
        assert f"{place.trace_id:032x}" == CALLER.trace_id
        assert heard == {"traceparent": f"00-{CALLER.trace_id}-{place.span_id:016x}-01", "tracestate": "vendor=1"}


async def test_a_caller_that_does_not_sample_has_no_spans_and_the_upstream_is_told(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        await seen.held.ask(trace=TraceContext(CALLER.trace_id, CALLER.span_id, 0))
        assert seen.spans == ()
    assert {heard["traceparent"][-2:] for heard in seen.upstream.heard} == {"00"}
    assert {heard["traceparent"][3:35] for heard in seen.upstream.heard} == {CALLER.trace_id}


async def test_without_spans_of_ours_the_upstream_is_told_what_the_caller_said(autojump_clock: MockClock) -> None:
    upstream = Listening(known=[MODEL])
    upstream.heard = []
    async with line(upstream) as held:
        await held.ask(trace=CALLER)
        await held.ask()
        held.upstream.down = True
        late = held.submit(trace=CALLER)
        await trio.sleep(1)
        held.upstream.down = False
        await answer(late)
    said = {"traceparent": f"00-{CALLER.trace_id}-{CALLER.span_id}-01", "tracestate": "vendor=1"}
    assert upstream.heard == [said, said, {}, said, said, said]


async def test_each_way_to_fail_is_said_and_leaving_is_none(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        seen.upstream.then(Refuse(text=PROMPT))
        with pytest.raises(QueueError):
            await seen.held.ask()
        seen.upstream.then(Hang())
        leaves = seen.held.submit()
        await trio.sleep(1)
        leaves.close()
        await trio.testing.wait_all_tasks_blocked()
        seen.upstream.then_load(Refuse())
        with pytest.raises(QueueError):
            await seen.held.ask(model=OTHER)
        refused, left, unloaded = seen.named("job")
        [_, load] = seen.named("load")
    assert [job.status.status_code for job in (refused, left, unloaded)] == [
        *(StatusCode.ERROR, StatusCode.UNSET, StatusCode.ERROR)
    ]
    assert left.attributes is not None
    assert left.attributes["llm_queue.state"] == "cancelled"
    assert load.attributes is not None
    assert load.attributes["error.type"] == "load_failed"


async def test_who_leaves_during_the_load_ends_its_spans_then(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        ticket = seen.held.submit()
        await trio.sleep(0.5)
        ticket.close()
        await trio.sleep(5)
        assert seen.rows() == [("job", 0.5), ("load", 0.5)]
        assert seen.observer.place_of(ticket.job.id) is None
        await seen.held.ask()


async def test_a_job_beside_the_line_has_spans_too(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        await seen.held.ask(model=REMOTE)
        [run] = seen.named(f"chat {REMOTE.name}")
    assert run.attributes is not None
    assert "llm_queue.num_ctx" not in run.attributes


async def test_no_span_has_what_callers_and_models_say(autojump_clock: MockClock) -> None:
    async with traced(max_attempts=1) as seen:
        seen.upstream.then(Say(ANSWER), Break(text=PROMPT))
        await seen.held.ask(PROMPT)
        with pytest.raises(QueueError):
            await seen.held.ask(PROMPT)
        text = "".join(span.to_json() for span in seen.spans)
    assert len(text) > 1000
    assert PROMPT not in text
    assert ANSWER not in text


async def test_an_attempt_ends_when_it_did_and_not_when_its_job_is_told(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        seen.observer(JobAccepted("by-hand", "cron", Lane.NORMAL, "scripted", 0, unknown_lane=False))
        seen.observer(AttemptStarted("by-hand", "cron", "scripted", 8192, 1))
        await trio.sleep(1)
        seen.observer(AttemptFinished("by-hand", Outcome.SUCCEEDED, 1.0))
        await trio.sleep(1)
        seen.observer(JobEnded(a_report(), None))
        assert seen.rows() == [("job", 2.0), ("chat scripted", 1.0)]


async def test_what_the_upstream_had_cached_is_said(autojump_clock: MockClock) -> None:
    async with traced() as seen:
        seen.observer(JobAccepted("by-hand", "cron", Lane.NORMAL, "scripted", 0, unknown_lane=False))
        seen.observer(AttemptStarted("by-hand", "cron", "scripted", 8192, 1))
        seen.observer(AttemptFinished("by-hand", Outcome.SUCCEEDED, 1.0))
        seen.observer(JobEnded(a_report(prompt_tokens=9, cached_tokens=4, completion_tokens=None), None))
        [run] = seen.named("chat scripted")
    assert run.attributes is not None
    assert run.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert "gen_ai.usage.output_tokens" not in run.attributes


SCRIPTS = st.lists(st.sampled_from([Say(), Break(), Refuse(), Hang(), Say(first_after=1.0)]), max_size=8)
LOADS = st.lists(st.sampled_from([Say(), Say(), Refuse(), Break(after=0.5)]), max_size=4)


@given(SCRIPTS, LOADS, st.lists(st.sampled_from([MODEL, OTHER, REMOTE]), min_size=1, max_size=6), st.floats(0, 4))
def test_whatever_happens_every_span_ends_inside_its_job_s(
    scripts: list[Any], loads: list[Any], models: list[Any], leaves_after: float
) -> None:
    async def main() -> None:
        async with traced(attempt_timeout=5.0) as seen:
            seen.upstream.then(*scripts)
            seen.upstream.then_load(*loads)
            tickets = [seen.held.submit(model=model) for model in models]
            await trio.sleep(leaves_after)
            tickets[0].close()
            for ticket in tickets:
                with suppress(QueueError):
                    await answer(ticket)
            await trio.sleep(10)
            assert seen.observer._live == {}
            assert len(seen.named("job")) == len(models)
            jobs = {place_of(span).span_id: span for span in seen.named("job")}
            for span in seen.spans:
                if span.parent is not None:
                    around = jobs[span.parent.span_id]
                    assert (around.start_time or 0) <= (span.start_time or 0)
                    assert (span.start_time or 0) <= (span.end_time or 0) <= (around.end_time or 0)

    trio.run(main, clock=MockClock(autojump_threshold=0))
