"""The newest request of a client and key takes the place of the one before it, on the autojump clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.core.jobs import State
from llm_queue.dispatch.dispatcher import Dispatcher
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import LineFull, QueueError, Superseded
from llm_queue.settings import Settings
from llm_queue.testing import Break, Hang, Say, ScriptedUpstream, Stall, prompt_of
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import Completion, Delta, Piece, Request
from tests.harness import MODEL, REMOTE, Endings, Harness, answer, line

SLOW = Say("slow", first_after=10.0)


async def is_superseded(ticket: Ticket) -> bool:
    """True if its caller is told so, before any of an answer."""
    try:
        await (ticket.receive() if ticket.submission.stream else ticket.whole())
    except Superseded:
        return ticket.job.state is State.CANCELLED
    return False


def test_who_is_superseded_is_told_so_and_asks_no_more() -> None:
    error = Superseded()
    assert (error.http_status, error.code, error.retryable) == (409, "superseded", False)


def typing(held: Harness, text: str, *, key: str = "editor", client: str = "editor", **fields: Any) -> Ticket:
    return held.submit(text, supersede=key, client=client, **fields)


async def test_an_older_waiting_job_of_the_same_client_and_key_is_dropped(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        other = held.submit("other")
        tickets = [typing(held, text) for text in ("d", "de", "def")]
        assert [await is_superseded(ticket) for ticket in tickets[:2]] == [True, True]
        await answer(other)
        await answer(tickets[2])
        assert held.prompts() == ["other", "def"]


async def test_another_client_another_key_and_no_key_are_left_alone(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        tickets = [
            held.submit("running"),
            typing(held, "first"),
            typing(held, "another client", client="other"),
            typing(held, "another key", key="other"),
            typing(held, "no key", key=""),
            typing(held, "no key either", key=""),
            typing(held, "newest"),
        ]
        assert await is_superseded(tickets[1])
        for ticket in tickets[:1] + tickets[2:]:
            await answer(ticket)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_older_running_job_of_which_nothing_was_sent_is_cancelled(
    autojump_clock: MockClock, stream: bool
) -> None:
    async with line() as held:
        held.upstream.then(SLOW, Say("next"))
        held.upstream.close_seconds = 1.0
        older = typing(held, "older", stream=stream)
        await trio.sleep(5)
        newer = typing(held, "newer", stream=stream)
        assert await is_superseded(older)
        while not isinstance((await newer.receive())[-1], Completion):
            pass
        assert [run.outcome for run in held.upstream.runs] == ["cancelled", "done"]


async def test_a_whole_answer_that_is_being_made_was_not_sent(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Stall(5), Say("next"))
        older = typing(held, "older")
        await trio.sleep(5)
        newer = typing(held, "newer")
        assert await is_superseded(older)
        await answer(newer)


async def test_a_job_of_which_something_was_sent_goes_on(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say("one two three", seconds_per_token=5.0))
        older = typing(held, "older", stream=True)
        assert await older.receive()
        waiting, newest = typing(held, "waiting"), typing(held, "newest")
        assert await is_superseded(waiting)
        assert not await is_superseded(older)
        while not isinstance((await older.receive())[-1], Completion):
            pass
        await answer(newest)
        assert older.job.state is State.SUCCEEDED


class Deaf(ScriptedUpstream):
    """Feels an abort only after it has handed over a piece, as one that has arrived already."""

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        with trio.CancelScope(shield=True):
            await trio.sleep(5.0)
        emit(Delta(prompt_of(request)))
        await trio.sleep(1.0)
        return Completion("stop")


async def test_what_arrives_in_the_very_moment_of_the_abort_is_not_sent(autojump_clock: MockClock) -> None:
    async with line(Deaf(known=[MODEL])) as held:
        older = typing(held, "older", stream=True)
        await trio.sleep(4)
        newer = typing(held, "newer", stream=True)
        assert await is_superseded(older)
        assert held.upstream.questions.count("probe") == 1, "it was taken for broken"
        assert await newer.receive() == [Delta("newer")]
        assert isinstance((await newer.receive())[-1], Completion)


async def test_a_job_that_waits_to_be_tried_again_is_dropped(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask("load")
        held.upstream.then(Break(after=2.0))
        older = typing(held, "older")
        await trio.sleep(1)
        await held.dispatcher.commands.pause(unload=False)
        await trio.sleep(5)
        assert (older.job.state, older.job.attempts) == (State.QUEUED, 1)
        newer = typing(held, "newer")
        await held.dispatcher.commands.resume()
        assert await is_superseded(older)
        await answer(newer)


async def test_the_load_that_an_older_job_has_begun_serves_the_newer(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.load_seconds = 10.0
        older = typing(held, "older")
        await trio.sleep(5)
        newer = typing(held, "newer")
        assert await is_superseded(older)
        began = trio.current_time()
        await answer(newer)
        assert trio.current_time() - began == pytest.approx(5.0)
        assert [load.outcome for load in held.upstream.loads] == ["done"]


async def test_jobs_beside_the_line_supersede_too(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = SLOW
        older = typing(held, "older", model=REMOTE)
        await trio.sleep(1)
        newer = typing(held, "newer", model=MODEL)
        assert await is_superseded(older)
        third = typing(held, "third", model=REMOTE)
        assert await is_superseded(newer)
        await answer(third)


async def test_the_scheduler_hears_nothing_of_what_is_beside_the_line(autojump_clock: MockClock) -> None:
    lines: list[str] = []
    upstream = ScriptedUpstream(known=[MODEL], default=SLOW)
    async with trio.open_nursery() as nursery:
        dispatcher = Dispatcher(Settings(), upstream, trace=lines.append)
        await nursery.start(dispatcher.run)
        held = Harness(dispatcher, upstream, Endings())
        typing(held, "older", model=REMOTE)
        await trio.sleep(1)
        newer = typing(held, "newer", model=REMOTE)
        await trio.sleep(1)
        await dispatcher.commands.cancel(newer.job.id)
        nursery.cancel_scope.cancel()
    assert dispatcher.live_jobs == 0
    assert "Left" not in "".join(lines)


async def test_a_newer_job_that_the_line_does_not_keep_takes_no_place(autojump_clock: MockClock) -> None:
    async with line(max_waiting=2) as held:
        held.upstream.default = SLOW
        running = held.submit("running")
        await trio.sleep(2)
        older = typing(held, "older")
        hopeless = typing(held, "now or never", max_wait=0.0)
        with pytest.raises(QueueError, match="longer"):
            await answer(hopeless)
        full = held.submit("full")
        with pytest.raises(LineFull):
            typing(held, "newer")
        full.close()
        await wait_all_tasks_blocked()
        newest = typing(held, "newest")
        assert await is_superseded(older)
        for ticket in (running, newest):
            await answer(ticket)


async def test_nothing_is_remembered_of_jobs_that_have_ended(autojump_clock: MockClock) -> None:
    async with line(ScriptedUpstream(known=[MODEL], default=Say("ok", first_after=1.0))) as held:
        supersession = held.dispatcher.commands.supersession
        for number in range(50):
            typing(held, str(number), key=f"key {number % 7}")
        assert len(supersession) == 50
        await wait_all_tasks_blocked()
        assert len(supersession) <= 7
        held.upstream.default = Hang()
        for number in range(50):
            typing(held, str(number), key=f"key {number % 7}").close()
        await trio.sleep(60)
        assert len(supersession) == 0
