"""A caller leaves in every phase of its job: what is left behind, and who goes next, on the autojump clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.core.jobs import State
from llm_queue.errors import QueueError, ReaderTooSlow
from llm_queue.testing import Break, Busy, Hang, Say, ScriptedUpstream, Stall
from llm_queue.wire.shapes import Delta
from tests.harness import MODEL, OTHER, answer, line

SLOW = Say("slow", first_after=10.0)


async def test_a_queued_job_whose_caller_leaves_never_reaches_the_upstream(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        first, gone, last = (held.submit(name) for name in ("first", "gone", "last"))
        await trio.sleep(2)
        gone.close()
        await answer(first)
        await answer(last)
        assert held.prompts() == ["first", "last"]
        assert gone.job.state is State.CANCELLED


async def test_a_caller_that_leaves_before_the_dispatcher_has_seen_its_job_costs_nothing(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        held.submit("gone").close()
        await held.ask("next")
        assert held.prompts() == ["next"]


async def test_a_job_whose_caller_has_stopped_reading_ends_at_once_with_that_reason(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say("one two three", seconds_per_token=30.0)
        stalled, following = held.submit("stalled", stream=True), held.submit("next")
        assert await stalled.receive()
        started = trio.current_time()
        stalled.close(ReaderTooSlow())
        held.upstream.default = Say("hello")
        await answer(following)
        assert trio.current_time() - started < 2
        found = held.dispatcher.find(stalled.job.id)
        assert found is not None
        assert (found.state, found.code) == ("cancelled", "reader_too_slow")


async def test_a_load_goes_on_when_its_caller_leaves(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.load_seconds = 10.0
        gone = held.submit("gone")
        await trio.sleep(5)
        gone.close()
        started = trio.current_time()
        await held.ask("next")
        assert trio.current_time() - started == pytest.approx(5.0)
        assert [load.outcome for load in held.upstream.loads] == ["done"]
        assert held.prompts() == ["next"]


async def test_a_load_nobody_waits_for_any_more_gives_way_to_whoever_is_next(autojump_clock: MockClock) -> None:
    async with line() as held:
        gone = held.submit("gone", model=OTHER)
        await trio.sleep(0.5)
        gone.close()
        await held.ask("next", model=MODEL)
        assert [load.key.model for load in held.upstream.loads] == [OTHER.identity, MODEL.identity]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_running_job_whose_caller_leaves_is_ended_at_once(autojump_clock: MockClock, stream: bool) -> None:
    async with line() as held:
        await held.ask("load")
        held.upstream.then(SLOW, Say("next"))
        gone = held.submit("gone", stream=stream)
        await trio.sleep(3)
        gone.close()
        started = trio.current_time()
        await held.ask("next")
        assert trio.current_time() == started
        assert held.upstream.runs[1].outcome == "cancelled"


async def test_the_slot_is_free_only_when_the_end_was_seen(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL], close_seconds=1.5)
    async with line(upstream, attempt_timeout=5.0) as held:
        held.upstream.then(Hang())
        await held.ask("times out once")
        first, second = held.upstream.runs
        assert first.end is not None
        assert second.start >= first.end
        held.upstream.then(Hang())
        gone = held.submit("gone")
        await trio.sleep(1)
        gone.close()
        started = trio.current_time()
        await held.ask("next")
        assert trio.current_time() - started == pytest.approx(1.5)


async def test_a_stream_is_ended_in_the_middle(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Stall(after_tokens=2))
        gone = held.submit("gone", stream=True)
        assert isinstance((await gone.receive())[0], Delta)
        gone.close()
        await held.ask("next")
        assert held.upstream.runs[0].outcome == "cancelled"
        assert gone.job.state is State.CANCELLED


async def test_a_caller_that_leaves_during_the_retry_is_forgotten_too(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(), Hang())
        gone = held.submit("gone")
        await trio.sleep(2)
        assert gone.job.attempts == 2
        gone.close()
        await held.ask("next")
        assert held.prompts() == ["gone", "gone", "next"]


async def test_a_caller_that_leaves_while_the_upstream_is_busy_or_away_is_forgotten(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(*[Busy()] * 3)
        gone = held.submit("gone")
        await wait_all_tasks_blocked()
        gone.close()
        held.upstream.down = True
        gone = held.submit("gone too")
        await trio.sleep(5)
        gone.close()
        held.upstream.down = False
        await held.ask("next")
        assert "gone too" not in held.prompts()


async def test_closing_again_or_after_the_end_changes_nothing(autojump_clock: MockClock) -> None:
    async with line() as held:
        ticket = held.submit()
        await answer(ticket)
        ticket.close()
        ticket.close()
        await held.ask()
        assert ticket.job.state is State.SUCCEEDED


async def test_a_thousand_callers_that_leave_at_any_moment_leave_nothing_behind(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER], close_seconds=0.01, default=Say("x", first_after=0.05))
    async with line(upstream) as held:
        stayed = 0

        async def call(number: int) -> None:
            nonlocal stayed
            await trio.sleep(number * 0.003)
            ticket = held.submit(str(number), model=(MODEL, OTHER)[number % 2], stream=number % 3 == 0)
            with trio.move_on_after(0.7 * (number % 7)) as patience:
                await answer(ticket)
                stayed += 1
            if patience.cancelled_caught:
                ticket.close()

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(call, number)
        await wait_all_tasks_blocked()
        await trio.sleep(5)
        assert stayed > 10
        assert held.upstream.max_in_flight == 1
        assert not list(held.dispatcher._scheduler.waiting_jobs())
        assert held.dispatcher._admission.room._bytes == 0
        assert not held.dispatcher._scheduler._patience


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say("one two three", tokens=3, seconds_per_token=1.0))
        ticket = held.submit(stream=True)
        text = ""
        for _ in range(20):
            with trio.move_on_after(0.3):
                for item in await ticket.receive():
                    text += item.content if isinstance(item, Delta) else "."
            if text.endswith("."):
                break
        assert text == "one two three."


async def test_a_hard_stop_ends_what_runs_and_tells_its_caller(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Hang()
        tickets = [held.submit() for _ in range(3)]
        await trio.sleep(2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await held.dispatcher.drain()
        for ticket in tickets:
            with pytest.raises(QueueError, match="before this answer was finished"):
                await answer(ticket)
        assert held.upstream.runs[0].outcome == "cancelled"
