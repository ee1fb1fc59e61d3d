"""Jobs whose models run elsewhere: beside the line, and yet with all that the line promises a caller."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.core.jobs import State
from llm_queue.dispatch.dispatcher import Dispatcher, DispatcherDied
from llm_queue.dispatch.observe import JobLog
from llm_queue.dispatch.remote import MOST
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    Draining,
    LineFull,
    PromptTooLong,
    QueueError,
    RunsElsewhere,
    Unfinished,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.settings import Settings
from llm_queue.testing import Break, Busy, Hang, Refuse, Say, ScriptedUpstream, Stall
from llm_queue.wire.shapes import Delta, Request
from tests.harness import MODEL, REMOTE, Endings, Harness, line


async def to_its_end(ticket: Ticket) -> None:
    """Read it until an error ends it."""
    while True:
        await (ticket.receive() if ticket.submission.stream else ticket.whole())


async def test_it_runs_at_once_while_the_slot_is_taken_and_is_never_loaded(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say(first_after=50.0))
        here = held.submit("here")
        await trio.sleep(5)
        began = trio.current_time()
        tickets = [held.submit(f"there {number}", model=REMOTE) for number in range(3)]
        for ticket in tickets:
            assert (await ticket.whole()).message.content == "hello"
        assert trio.current_time() - began < 1
        assert here.job.state is State.RUNNING
        assert [load.key.model for load in held.upstream.loads] == [MODEL.identity]
        assert {run.key.num_ctx for run in held.upstream.runs if run.remote} == {0}
        await here.whole()


async def test_it_is_counted_apart_and_its_report_says_so(autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with line() as held:
            held.dispatcher.observers.add(JobLog("Scripted", ""))
            held.upstream.then(Say(first_after=3.0), Refuse())
            ticket = held.submit(model=REMOTE)
            await trio.sleep(1)
            status = held.dispatcher.status()
            assert (status.remote.running, status.slot, status.jobs) == (1, None, ())
            assert sum(status.waiting.values()) == 0
            await ticket.whole()
            with pytest.raises(UpstreamRefused):
                await held.ask(model=REMOTE)
            status = held.dispatcher.status()
            assert status.remote.as_dict() == {"running": 0, "ended": {"succeeded": 1, "failed": 1}}
            assert status.ended == {}
            report = held.dispatcher.find(ticket.job.id)
            assert report is not None
            assert (report.remote, report.num_ctx, report.attempts, report.wait_s, report.run_s) == (
                True,
                None,
                1,
                0,
                3,
            )
            await held.ask()
            assert held.dispatcher.status().ended == {"succeeded": 1}
    assert [(one["event"], one.get("remote")) for one in logs if one["event"] in ("done", "failed")] == [
        *[("done", True), ("failed", True), ("done", None)]
    ]


async def test_the_report_of_one_that_has_not_begun_has_nobody_ahead(autojump_clock: MockClock) -> None:
    async with line() as held:
        ticket = held.submit(model=REMOTE)
        report = held.dispatcher.find(ticket.job.id)
        assert report is not None
        assert (report.state, report.ahead) == ("queued", 0)
        await ticket.whole()


async def test_one_that_runs_has_not_waited(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say(first_after=5.0))
        ticket = held.submit(model=REMOTE)
        await trio.sleep(3)
        report = held.dispatcher.find(ticket.job.id)
        assert report is not None
        assert (report.state, report.wait_s) == ("running", 0)
        await ticket.whole()


async def test_a_stream_arrives_as_it_comes(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say("a b", tokens=2, seconds_per_token=1.0))
        ticket = held.submit(model=REMOTE, stream=True)
        first = await ticket.receive()
        assert [piece.content for piece in first if isinstance(piece, Delta)] == ["a "]
        await ticket.receive()
        await ticket.receive()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_ends_the_request(stream: bool, autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Stall(1))
        ticket = held.submit(model=REMOTE, stream=stream)
        await trio.sleep(1)
        ticket.close()
        ticket.close()
        with pytest.raises(Cancelled):
            await ticket.whole()
        assert [run.outcome for run in held.upstream.runs] == ["cancelled"]
        assert ticket.job.state is State.CANCELLED


async def test_a_caller_that_leaves_before_it_has_begun_costs_no_request(autojump_clock: MockClock) -> None:
    async with line() as held:
        ticket = held.submit(model=REMOTE)
        ticket.close()
        with pytest.raises(Cancelled):
            await ticket.whole()
        assert held.upstream.runs == []


async def test_a_caller_that_left_has_left_even_if_the_upstream_is_busy_at_that_moment(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:

        def leave(request: Request) -> Busy:
            ticket.close()
            return Busy()

        held.upstream.by_request = leave
        ticket = held.submit(model=REMOTE)
        with pytest.raises(QueueError):
            await ticket.whole()
        assert ticket.job.state is State.CANCELLED


async def test_who_left_first_is_blamed_and_not_the_stop_that_came_while_it_was_ended(
    autojump_clock: MockClock,
) -> None:
    async with line(ScriptedUpstream(known=[MODEL], close_seconds=3.0), drain_timeout=2.0) as held:
        held.upstream.default = Hang()
        ticket = held.submit(model=REMOTE)
        await trio.sleep(1)
        ticket.close()
        await held.dispatcher.drain()
        with pytest.raises(Cancelled):
            await ticket.whole()
        assert ticket.job.state is State.CANCELLED


async def test_its_limits_in_time_are_those_of_any_attempt(autojump_clock: MockClock) -> None:
    async with line(max_attempts=1, attempt_timeout=30.0, stream_total=100.0) as held:
        held.upstream.then(Hang(), Say("x" * 1000, tokens=1000, seconds_per_token=1.0))
        for stream, seconds in [(False, 30.0), (True, 100.0)]:
            began = trio.current_time()
            ticket = held.submit(model=REMOTE, stream=stream)
            with pytest.raises(AttemptTimedOut):
                await to_its_end(ticket)
            assert trio.current_time() - began == pytest.approx(seconds, abs=1)


async def test_what_broke_is_tried_once_more_unless_a_piece_has_left(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(), Say("well"), Break(), Break(), Break(after_tokens=1))
        ticket = held.submit(model=REMOTE)
        assert (await ticket.whole()).message.content == "well"
        assert ticket.job.attempts == 2
        with pytest.raises(UpstreamBroke):
            await held.ask("again", model=REMOTE)
        streamed = held.submit("streamed", model=REMOTE, stream=True)
        with pytest.raises(UpstreamBroke):
            await to_its_end(streamed)
        assert streamed.job.attempts == 1


async def test_a_busy_or_missing_upstream_is_told_at_once(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Busy())
        with pytest.raises(UpstreamBusy):
            await held.ask("busy", model=REMOTE)
        held.upstream.down = True
        with pytest.raises(UpstreamUnreachable):
            await held.ask("away", model=REMOTE)
        held.upstream.down = False


async def test_in_an_outage_that_lasts_it_is_refused_before_it_is_tried(autojump_clock: MockClock) -> None:
    async with line(outage_wait=5.0) as held:
        held.upstream.down = True
        with pytest.raises(UpstreamUnreachable):
            await held.ask()
        with pytest.raises(UpstreamUnreachable):
            held.submit(model=REMOTE)
        held.upstream.down = False


async def test_no_more_than_some_run_at_once_and_a_full_line_is_none_of_their_business(
    autojump_clock: MockClock,
) -> None:
    async with line(max_waiting=1) as held:
        held.upstream.default = Say(first_after=10.0)
        here = [held.submit("a")]
        await trio.sleep(2)
        here.append(held.submit("b"))
        there = [held.submit(f"{number}", model=REMOTE) for number in range(MOST)]
        with pytest.raises(LineFull, match="elsewhere") as full:
            held.submit(model=REMOTE)
        assert full.value.retry_after is not None
        for ticket in [*there, *here]:
            await ticket.whole()
        await held.ask(model=REMOTE)


async def test_a_prompt_of_any_length_goes_through_and_comes_back_as_it_is_refused(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.bytes_per_token = 4.0
        ticket = held.submit("x" * 2_000_000, model=REMOTE)
        with pytest.raises(PromptTooLong):  # the script's context of 0 tokens
            await ticket.whole()
        assert (ticket.job.attempts, ticket.job.fitted_ctx) == (1, None)


async def test_one_whose_model_was_unknown_in_an_outage_is_told_to_ask_again(autojump_clock: MockClock) -> None:
    listed = msgspec.structs.replace(REMOTE, name="scripted")
    async with line(ScriptedUpstream(known=[listed])) as held:
        ticket = held.submit(model=None)
        with pytest.raises(RunsElsewhere) as raised:
            await ticket.whole()
        assert (raised.value.http_status, raised.value.retryable, raised.value.retry_after) == (503, True, 1)
        assert held.upstream.requests == []


async def test_a_drain_waits_for_it(autojump_clock: MockClock) -> None:
    async with line(drain_timeout=30.0) as held:
        held.upstream.then(Say(first_after=10.0))
        ticket = held.submit(model=REMOTE)
        await trio.sleep(1)
        began = trio.current_time()
        await held.dispatcher.drain()
        assert trio.current_time() - began == pytest.approx(9.0)
        assert (await ticket.whole()).message.content == "hello"
        assert held.dispatcher.unfinished == []
        with pytest.raises(Draining):
            held.submit(model=REMOTE)


async def test_a_drain_that_is_over_ends_it(autojump_clock: MockClock) -> None:
    async with line(drain_timeout=30.0) as held:
        held.upstream.default = Hang()
        tickets = [held.submit(model=REMOTE), held.submit("here")]
        await trio.sleep(1)
        await held.dispatcher.drain()
        assert held.dispatcher.unfinished == [ticket.job.id for ticket in tickets]
        for ticket in tickets:
            with pytest.raises(Unfinished):
                await ticket.whole()


async def test_a_line_that_dies_answers_its_caller() -> None:
    class Bug(Exception):
        pass

    def observe(moment: object) -> None:
        raise Bug

    upstream = ScriptedUpstream(known=[MODEL], default=Hang())
    dispatcher = Dispatcher(Settings(), upstream)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(DispatcherDied):
                await dispatcher.run()

        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        held = Harness(dispatcher, upstream, Endings())
        ticket = held.submit(model=REMOTE)
        await wait_all_tasks_blocked()
        dispatcher._scheduler.tick = partial(observe)  # type: ignore[assignment]
        dispatcher._scheduler.handle = partial(observe)  # type: ignore[assignment]
        held.submit()
        with pytest.raises(QueueError) as raised:
            await ticket.whole()
        assert raised.value.code == "internal_error"
