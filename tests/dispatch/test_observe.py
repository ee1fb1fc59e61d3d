"""What watches the line: moments in their order, counts, and observers that fail."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import FunctionType, ModuleType
from typing import Any, get_args

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.moments import (
    AttemptFinished,
    AttemptStarted,
    DrainStarted,
    FirstPiece,
    HoldFinished,
    HoldStarted,
    JobAccepted,
    JobEnded,
    JobRequeued,
    LoadFinished,
    LoadStarted,
    Moment,
    UpstreamChanged,
)
from llm_queue.dispatch.observe import HeldBack, JobLog
from llm_queue.dispatch.status import JobReport
from llm_queue.errors import LineFull, QueueError
from llm_queue.testing import Break, Refuse, Say
from llm_queue.web.headers import job_headers
from tests.harness import OTHER, REMOTE, Harness, answer, line

PROMPT, ANSWER = "a-prompt-that-no-observer-sees", "an-answer-that-no-observer-sees"


def watch(harness: Harness) -> list[Moment]:
    seen: list[Moment] = []
    harness.dispatcher.observers.add(seen.append)
    return seen


async def test_the_life_of_a_job_is_a_row_of_moments(autojump_clock: MockClock) -> None:
    async with line() as held:
        seen = watch(held)
        held.upstream.then(Break(after_tokens=0, after=1.0), Say(ANSWER, first_after=2.0))
        await held.ask(PROMPT, client="cron")
    kinds = [type(moment) for moment in seen]
    assert kinds == [
        *(JobAccepted, LoadStarted, LoadFinished),
        *(AttemptStarted, AttemptFinished, JobRequeued, AttemptStarted, FirstPiece, AttemptFinished, JobEnded),
    ]
    assert [moment.attempt for moment in seen if isinstance(moment, AttemptStarted)] == [1, 2]
    [first] = [moment for moment in seen if isinstance(moment, FirstPiece)]
    assert first.seconds == 2.0
    assert PROMPT not in repr(seen)
    assert ANSWER not in repr(seen)


async def test_the_life_of_a_job_beside_the_line_is_a_row_of_moments_too(autojump_clock: MockClock) -> None:
    async with line() as held:
        seen = watch(held)
        held.upstream.then(Break(after=1.0), Say(first_after=2.0))
        ticket = held.submit(client="cron", model=REMOTE)
        await answer(ticket)
    assert [type(moment) for moment in seen] == [
        *(JobAccepted, AttemptStarted, AttemptFinished, JobRequeued),
        *(AttemptStarted, FirstPiece, AttemptFinished, JobEnded),
    ]
    assert [moment.attempt for moment in seen if isinstance(moment, AttemptStarted)] == [1, 2]
    assert [moment.seconds for moment in seen if isinstance(moment, AttemptFinished)] == [1.0, 2.0]
    assert ticket.job.run_seconds == 3.0


def reachable(start: object) -> Iterator[object]:
    """All that can be reached from ``start`` by attributes and items, but for what belongs to the program."""
    seen, left = {id(start)}, [start]
    while left:
        one = left.pop()
        yield one
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, type | ModuleType | FunctionType):
                seen.add(id(other))
                left.append(other)


async def test_no_way_leads_from_a_moment_to_the_request(autojump_clock: MockClock) -> None:
    async with line() as held:
        seen = watch(held)
        held.upstream.then(Break(after_tokens=1), Refuse())
        with pytest.raises(QueueError):
            await held.ask(PROMPT)
        held.upstream.then_load(Break())
        with pytest.raises(QueueError):
            await held.ask(PROMPT, model=OTHER)
    assert {LoadFinished, JobRequeued, JobEnded} <= {type(moment) for moment in seen}
    assert not any(isinstance(one, str) and PROMPT in one for moment in seen for one in reachable(moment))


@pytest.mark.parametrize("kind", get_args(Moment))
def test_no_moment_has_a_field_that_could_hold_what_a_caller_says(kind: Any) -> None:
    assert is_dataclass(kind)
    for field in fields(kind):
        assert str(field.type) in {"str", "int", "float", "bool", "str | None", "Lane", "Outcome", "JobReport"} | {
            "Failure",
            "Failure | None",
            "tuple[int, int] | None",
            "TraceContext | None",
        }, field
    assert not {"request", "text", "prompt"} & {field.name for field in msgspec.structs.fields(JobReport)}


async def test_a_hold_an_outage_and_a_drain_are_moments(autojump_clock: MockClock) -> None:
    async with line(switch_wait=60) as held:
        await held.ask(model=OTHER)  # a model of which no load was tried would not be held up
        seen = watch(held)
        held.upstream.default = Say(first_after=0.5)
        for _ in range(9):
            await held.ask(client="loop")
        other = held.submit(model=OTHER, client="other")
        await answer(other)
        held.upstream.down = True
        waiting = held.submit()
        await trio.sleep(2)
        held.upstream.down = False
        await answer(waiting)
        await held.dispatcher.drain()
    assert seen.count(HoldStarted("loop")) == 1
    [ended] = [moment for moment in seen if isinstance(moment, HoldFinished)]
    assert ended.client == "loop"
    assert ended.seconds == pytest.approx(held.dispatcher.status().held_seconds, abs=0.001)
    assert ended.seconds > 0
    reasons = [moment.reason for moment in seen if isinstance(moment, UpstreamChanged)]
    assert reasons == ["Scripted cannot be reached: the script has switched it off.", None]
    assert DrainStarted(0) in seen


def test_what_is_held_back_is_told_in_order_once_it_is_let_go() -> None:
    told: list[Moment] = []
    held = HeldBack(told.append)
    moments: list[Moment] = [UpstreamChanged(None), DrainStarted(1), DrainStarted(2)]
    for moment in moments[:2]:
        held(moment)
    assert told == []
    held.let_go()
    held(moments[2])
    assert told == moments


def test_an_observer_that_fails_when_it_is_let_go_ends_nothing() -> None:
    def broken(_: Moment) -> None:
        raise OSError("the log is full")

    held = HeldBack(broken)
    held(UpstreamChanged(None))
    held.let_go()


def test_the_log_says_that_the_upstream_is_ourselves() -> None:
    with structlog.testing.capture_logs() as said:
        JobLog("Ollama", "http://x")(UpstreamChanged("it leads back", loop=True))
    assert [(one["log_level"], one["reason"]) for one in said] == [("error", "it leads back")]
    assert "itself" in said[0]["event"]


async def test_an_observer_that_raises_is_called_no_more_and_ends_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def broken(_: Moment) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("a bug of an observer")

    async with line() as held:
        held.dispatcher.observers.add(broken)
        seen = watch(held)
        await held.ask()
        await held.ask()
    assert calls == 1
    assert len([moment for moment in seen if isinstance(moment, JobEnded)]) == 2


async def test_refusals_and_unknown_lanes_are_counted_from_moments(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.dispatcher.rejected(LineFull(), "cron")
        held.dispatcher.rejected(LineFull(), "cron")
        await held.ask(unknown_lane=True, lane=Lane.NORMAL)
        status = held.dispatcher.status()
    assert (status.rejected, status.unknown_lanes) == ({"line_full": 2}, 1)


async def test_a_retried_job_has_waited_as_long_by_its_report_as_by_its_own_count(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=3.0)
        await held.ask()
        held.upstream.then(Break(after_tokens=0, after=1.0))
        retried = held.submit(client="a")
        await trio.sleep(0.5)
        others = [held.submit(client="b", lane=Lane.INTERACTIVE) for _ in range(2)]
        for ticket in (retried, *others):
            await answer(ticket)
        report = held.dispatcher.find(retried.job.id)
        assert report is not None
        assert (report.attempts, report.run_s) == (2, 4.0)
        assert report.wait_s == pytest.approx(6.0)
        assert job_headers(retried.job)["X-LLM-Queue-Wait-Ms"] == "6000"


async def test_it_can_be_waited_for_until_the_upstream_is_there(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.dispatcher.watch.ready()
        held.upstream.down = True
        waiting = held.submit()
        await trio.sleep(2)
        with trio.move_on_after(1) as patience:
            await held.dispatcher.watch.ready()
        assert patience.cancelled_caught
        held.upstream.down = False
        await held.dispatcher.watch.ready()
        assert held.dispatcher.readiness() is None
        await answer(waiting)


async def test_every_job_of_the_line_is_accepted_once_and_those_beside_it_are_not_counted_there(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        first, second, beside = held.submit("first"), held.submit("second"), held.submit(model=REMOTE)
        await trio.sleep(0.01)
        status = held.dispatcher.status()
        assert (status.accepted, dict(status.ended)) == (2, {})
        second.close()
        for ticket in (first, beside):
            await ticket.whole()
        await trio.sleep(1)
        status = held.dispatcher.status()
        assert (status.accepted, dict(status.ended)) == (2, {"succeeded": 1, "cancelled": 1})
        assert dict(status.remote.ended) == {"succeeded": 1}


async def test_what_the_model_said_is_neither_in_the_log_nor_in_the_report_of_a_job_that_failed_on_it(
    autojump_clock: MockClock,
) -> None:
    async with line(max_attempts=1) as held:
        seen = watch(held)
        held.upstream.then(Refuse(400, "error parsing tool call: raw='the secret of Ann', err=none"))
        with pytest.raises(QueueError, match="the secret of Ann"):
            await held.ask()
        [ended] = [moment for moment in seen if isinstance(moment, JobEnded)]
        with structlog.testing.capture_logs() as logs:
            JobLog("Ollama", "http://here")(ended)
        assert ended.report.error == "error parsing tool call: raw=…"
        for said in (logs, ended, held.dispatcher.find(ended.report.job)):
            assert "Ann" not in repr(said)
