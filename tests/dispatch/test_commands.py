"""What people order of a running line: cancel, move, pause, free the memory, resume; on the autojump clock."""

from __future__ import annotations

import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.core.jobs import Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.commands import SOON
from llm_queue.dispatch.observe import JobLog
from llm_queue.dispatch.tickets import Place, Ticket
from llm_queue.dispatch.unload import UNLOAD_TIMEOUT
from llm_queue.errors import (
    AlreadyEnded,
    AlreadyRunning,
    CancelledByHand,
    ConnectionLost,
    Draining,
    LoadFailed,
    QueueError,
)
from llm_queue.testing import Busy, Hang, Say, ScriptedUpstream, Stall
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import Completion, LoadRequest
from tests.harness import MODEL, OTHER, REMOTE, Harness, answer, line

SLOW = Say("slow", first_after=10.0)


async def error_of(ticket: Ticket) -> QueueError:
    """What its caller is told in the end."""
    try:
        while True:
            await (ticket.receive() if ticket.submission.stream else ticket.whole())
    except QueueError as error:
        return error


# --- cancel ---


async def test_a_waiting_job_that_is_cancelled_by_hand_tells_its_caller_so(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        first, second = held.submit("first"), held.submit("second")
        await trio.sleep(2)
        assert await held.dispatcher.commands.cancel(second.job.id) is State.CANCELLED
        error = await error_of(second)
        assert isinstance(error, CancelledByHand)
        assert (error.http_status, error.code, error.retryable) == (503, "cancelled", False)
        await answer(first)
        assert held.prompts() == ["first"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_running_job_that_is_cancelled_by_hand_ends_before_the_next_begins(
    autojump_clock: MockClock, stream: bool
) -> None:
    async with line() as held:
        held.upstream.then(Stall(2), Say("next"))
        held.upstream.close_seconds = 1.0
        running, following = held.submit("running", stream=stream), held.submit("next")
        await trio.sleep(5)
        assert await held.dispatcher.commands.cancel(running.job.id) is State.CANCELLED
        assert isinstance(await error_of(running), CancelledByHand)
        await answer(following)
        assert held.upstream.runs[0].outcome == "cancelled"


async def test_a_job_that_does_not_end_soon_is_told_as_it_is(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Hang())
        held.upstream.close_seconds = SOON + 2.0
        running = held.submit("running")
        await trio.sleep(5)
        began = trio.current_time()
        assert await held.dispatcher.commands.cancel(running.job.id) is State.RUNNING
        assert trio.current_time() - began == pytest.approx(SOON)
        assert isinstance(await error_of(running), CancelledByHand)


async def test_a_load_goes_on_when_its_job_is_cancelled_by_hand(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.load_seconds = 10.0
        gone = held.submit("gone")
        await trio.sleep(5)
        await held.dispatcher.commands.cancel(gone.job.id)
        await held.ask("next")
        assert [load.outcome for load in held.upstream.loads] == ["done"]


async def test_a_job_beside_the_line_can_be_cancelled_by_hand(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Hang())
        there = held.submit("there", model=REMOTE)
        await trio.sleep(1)
        assert await held.dispatcher.commands.cancel(there.job.id) is State.CANCELLED
        assert isinstance(await error_of(there), CancelledByHand)


async def test_what_has_ended_cannot_be_cancelled_or_moved(autojump_clock: MockClock) -> None:
    async with line() as held:
        ticket = held.submit("hello")
        await answer(ticket)
        with pytest.raises(AlreadyEnded):
            await held.dispatcher.commands.cancel(ticket.job.id)
        with pytest.raises(AlreadyEnded):
            await held.dispatcher.commands.move(ticket.job.id, Lane.BACKGROUND)


# --- another lane ---


async def test_a_job_is_moved_to_another_lane(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        tickets = [held.submit(name, client=name) for name in ("first", "second", "third")]
        await trio.sleep(2)
        watched = held.dispatcher.changes.number
        await held.dispatcher.commands.move(tickets[2].job.id, Lane.INTERACTIVE)
        assert held.dispatcher.changes.number > watched, "who watches is not told"
        report = held.dispatcher.find(tickets[2].job.id)
        assert report is not None
        assert (report.lane, report.ahead) == ("interactive", 1)
        for ticket in tickets:
            await answer(ticket)
        assert held.prompts() == ["first", "third", "second"]


@pytest.mark.parametrize("model", [MODEL, REMOTE])
async def test_what_runs_stays_where_it_is(autojump_clock: MockClock, model: Model) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        running = held.submit("running", model=model)
        await trio.sleep(2)
        with pytest.raises(AlreadyRunning):
            await held.dispatcher.commands.move(running.job.id, Lane.BACKGROUND)
        assert running.job.lane is Lane.NORMAL
        await answer(running)


# --- pause and resume ---


async def test_a_pause_lets_what_runs_end_and_starts_nothing_until_the_resume(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        first, second = held.submit("first"), held.submit("second")
        await trio.sleep(2)
        assert held.dispatcher.status().paused is None
        await held.dispatcher.commands.pause(unload=False)
        await answer(first)
        await trio.sleep(100)
        paused = held.dispatcher.status().paused
        assert paused is not None
        assert (paused.since_s, paused.unloaded) == (pytest.approx(109.0), False)
        assert held.prompts() == ["first"]
        assert second.place() == Place(0, None, paused=True)
        await held.dispatcher.commands.resume()
        assert held.dispatcher.status().paused is None
        await answer(second)


async def test_what_is_far_back_is_told_no_time_in_a_pause(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say(first_after=1.0))
        await held.ask("hello")
        held.upstream.default = Hang()
        tickets = [held.submit(str(number)) for number in range(150)]
        await trio.sleep(2)
        assert tickets[-1].place().seconds is not None
        await held.dispatcher.commands.pause(unload=False)
        await trio.sleep(2)
        assert (tickets[-1].place().ahead, tickets[-1].place().seconds) == (149, None)
        for ticket in tickets:
            ticket.close()
        await trio.sleep(1)


async def test_a_drain_ends_a_pause_and_there_is_none_in_a_drain(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.dispatcher.commands.pause(unload=False)
        ticket = held.submit("hello")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.dispatcher.drain)
            await wait_all_tasks_blocked()
            assert held.dispatcher.status().draining
            with pytest.raises(Draining):
                await held.dispatcher.commands.pause(unload=True)
        await answer(ticket)


async def test_an_order_is_carried_out_when_who_gave_it_has_left(autojump_clock: MockClock) -> None:
    async with line() as held:
        with trio.CancelScope() as scope:
            scope.cancel()
            await held.dispatcher.commands.pause(unload=False)
        await wait_all_tasks_blocked()
        assert held.dispatcher.status().paused is not None


# --- the memory ---


async def loaded(*models: Model, room: int = 2) -> ScriptedUpstream:
    upstream = ScriptedUpstream(known=[MODEL, OTHER], max_loaded=room)
    upstream.resident_keys = [RunnerKey(model.identity, 8192) for model in models]
    return upstream


async def test_all_that_is_loaded_is_unloaded_one_after_the_other_and_nothing_is_loaded_again(
    autojump_clock: MockClock,
) -> None:
    async with line(await loaded(MODEL, OTHER)) as held:
        await held.ask("hello")
        paused = await held.dispatcher.commands.pause(unload=True)
        assert paused is not None
        assert paused.unloaded
        assert held.upstream.resident_keys == []
        await held.dispatcher.commands.resume()
        await trio.sleep(100)
        assert held.upstream.resident_keys == []
        await held.ask("again")
        assert [load.implicit for load in held.upstream.loads] == [False]


async def test_what_somebody_else_has_loaded_meanwhile_is_unloaded_too(autojump_clock: MockClock) -> None:
    async with line(await loaded(MODEL)) as held:
        held.upstream.resident_keys = [RunnerKey(OTHER.identity, 4096)]
        await held.dispatcher.commands.pause(unload=True)
        assert held.upstream.resident_keys == []


async def test_a_model_that_is_being_loaded_is_unloaded_after_that(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.load_seconds = 10.0
        ticket = held.submit("hello")
        await trio.sleep(5)
        paused = await held.dispatcher.commands.pause(unload=True)
        assert paused is not None
        assert not paused.unloaded
        await trio.sleep(10)
        status = held.dispatcher.status()
        assert status.paused is not None
        assert status.paused.unloaded
        assert held.upstream.resident_keys == []
        assert held.prompts() == [""]
        await held.dispatcher.commands.resume()
        await answer(ticket)


async def test_a_busy_upstream_is_made_to_unload_when_it_is_free(autojump_clock: MockClock) -> None:
    async with line(await loaded(MODEL)) as held:
        held.upstream.then(Busy(), Busy())
        await held.dispatcher.commands.pause(unload=True)
        await trio.sleep(1)
        assert held.upstream.resident_keys == []


async def test_an_upstream_that_is_away_is_made_to_unload_when_it_is_back(autojump_clock: MockClock) -> None:
    async with line(await loaded(MODEL)) as held:
        held.upstream.down = True
        await held.dispatcher.commands.pause(unload=True)
        await trio.sleep(5)
        held.upstream.down = False
        held.upstream.resident_keys = [RunnerKey(MODEL.identity, 8192)]
        await trio.sleep(5)
        status = held.dispatcher.status()
        assert status.paused is not None
        assert status.paused.unloaded
        assert held.upstream.resident_keys == []


class Stubborn(ScriptedUpstream):
    """Unloads nothing, in one of several ways."""

    failure: Exception | None = None

    async def run(self, *arguments: object) -> Completion:
        if not isinstance(arguments[2], LoadRequest):
            return await super().run(*arguments)  # type: ignore[arg-type]
        if isinstance(self.failure, trio.TooSlowError):
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return Completion("unload")


@pytest.mark.parametrize(
    ("failure", "kept"),
    [
        (None, "Scripted has not unloaded all of its models: it decides that by itself."),
        (LoadFailed("it is not its day"), "it is not its day"),
        (ConnectionLost("it hung up"), "it hung up"),
        (trio.TooSlowError(), f"It was not unloaded within {UNLOAD_TIMEOUT:g} s."),
        (RuntimeError("a bug"), "Something went wrong inside llm-queue."),
    ],
)
async def test_a_pause_says_why_something_stays_loaded(
    autojump_clock: MockClock, failure: Exception | None, kept: str
) -> None:
    upstream = Stubborn(known=[MODEL])
    upstream.failure = failure
    upstream.resident_keys = [RunnerKey(MODEL.identity, 8192)]
    async with line(upstream) as held:
        await held.dispatcher.commands.pause(unload=True)
        await trio.sleep(UNLOAD_TIMEOUT)
        paused = held.dispatcher.status().paused
        assert paused is not None
        assert not paused.unloaded
        assert str(paused.kept).startswith(kept)
        await held.dispatcher.commands.resume()
        await held.ask("hello")


async def test_a_model_that_nobody_can_name_stays_and_is_told_of(autojump_clock: MockClock) -> None:
    async with line(await loaded(MODEL)) as held:
        held.upstream.resident_keys = [RunnerKey("a stranger", 8192), RunnerKey(MODEL.identity, 8192)]
        paused = await held.dispatcher.commands.pause(unload=True)
        assert paused is not None
        assert (paused.unloaded, isinstance(paused.kept, str)) == (False, True)
        assert held.upstream.resident_keys == [RunnerKey("a stranger", 8192)]


async def test_the_log_says_what_was_ordered(autojump_clock: MockClock) -> None:
    async with line(await loaded(MODEL)) as held:
        await log_of(held)


async def log_of(held: Harness) -> None:
    with structlog.testing.capture_logs() as logged:
        held.dispatcher.observers.add(JobLog("Scripted", "http://scripted.test"))
        await held.dispatcher.commands.pause(unload=True)
        await held.dispatcher.commands.resume()
        await held.dispatcher.commands.resume()
        held.upstream.resident_keys = [RunnerKey("a stranger", 8192)]
        await held.dispatcher.commands.pause(unload=True)
    assert [one["event"] for one in logged] == [
        "paused by hand: nothing starts",
        "unloaded all that was loaded",
        "resumed by hand",
        "paused by hand: nothing starts",
        "not all was unloaded",
    ]
