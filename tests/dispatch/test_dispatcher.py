"""The line as a whole, on the autojump clock."""

from __future__ import annotations

from contextlib import nullcontext

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.core.jobs import Lane, State
from llm_queue.dispatch.dispatcher import JOBS_SHOWN, Dispatcher, DispatcherDied
from llm_queue.dispatch.moments import AttemptStarted, JobEnded, Moment
from llm_queue.dispatch.tickets import MAX_UNREAD, Submission
from llm_queue.errors import (
    AttemptTimedOut,
    Cancelled,
    Draining,
    LineFull,
    LoadFailed,
    LoadTimedOut,
    QueueError,
    Unfinished,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamUnreachable,
    WaitExpired,
)
from llm_queue.settings import Settings
from llm_queue.testing import Break, Hang, Refuse, Say, ScriptedUpstream, Stall, prompt_of
from llm_queue.testing.scripted import scripted_model
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message, Request, ToolCall, ToolChoice
from tests.harness import MODEL, OTHER, REMOTE, Endings, Harness, answer, line


async def test_the_largest_context_is_what_the_weights_and_the_ceiling_allow(autojump_clock: MockClock) -> None:
    async with line(num_ctx=8192, num_ctx_ceiling=65536) as harness:
        small = msgspec.structs.replace(MODEL, trained=16384)
        unknown = msgspec.structs.replace(MODEL, trained=None)
        assert harness.dispatcher.models.largest_ctx(small) == 16384
        assert harness.dispatcher.models.largest_ctx(unknown) == 65536
    upstream = ScriptedUpstream(known=[MODEL])
    upstream.chooses_context = False
    async with line(upstream) as harness:
        assert harness.dispatcher.models.largest_ctx(MODEL) == 0


async def test_a_larger_context_that_could_not_be_loaded_is_promised_to_nobody(autojump_clock: MockClock) -> None:
    async with line(num_ctx=8192, num_ctx_ceiling=65536) as harness:
        await harness.ask()
        harness.upstream.then_load(Break(text="out of memory"))
        with pytest.raises(LoadFailed):
            await harness.ask(num_ctx=32768)
        assert harness.dispatcher.models.largest_ctx(MODEL) == 8192


async def test_tokens_are_counted_by_the_upstream_or_not_at_all(autojump_clock: MockClock) -> None:
    class Counting(ScriptedUpstream):
        error: QueueError | None = None

        async def count_tokens(self, model: Model, request: Request) -> int | None:
            await trio.lowlevel.checkpoint()
            if self.error:
                raise self.error
            return 12

    upstream = Counting(known=[MODEL])
    asked = ChatRequest("scripted", (Message("user", "hello"),))
    async with line(upstream) as harness:
        assert await harness.dispatcher.models.count_tokens(asked, MODEL) == 12
        upstream.error = UpstreamUnreachable()
        assert await harness.dispatcher.models.count_tokens(asked, MODEL) is None


async def test_the_answer_comes_back_verbatim(autojump_clock: MockClock) -> None:
    text = "\n  as it was \t\u00e9 \n"
    async with line() as held:
        held.upstream.then(Say(text, tokens=3))
        assert (await held.ask()).message.content == text


async def test_jobs_run_one_at_a_time_and_in_order(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit(f"job {number}") for number in range(5)]
        for ticket in tickets:
            await answer(ticket)
        assert held.prompts() == [f"job {number}" for number in range(5)]
        assert held.upstream.max_in_flight == 1


async def test_the_upstream_has_its_next_request_before_the_last_one_is_reported(autojump_clock: MockClock) -> None:
    asked: list[str] = []
    asked_at_ends: list[int] = []

    def note(request: Request) -> Say:
        asked.append(prompt_of(request))
        return Say()

    def watch(moment: Moment) -> None:
        if isinstance(moment, JobEnded):
            asked_at_ends.append(len(asked))

    async with line(ScriptedUpstream(known=[MODEL, OTHER], by_request=note)) as held:
        held.dispatcher.observers.add(watch)
        for ticket in [held.submit(text) for text in ("a", "b", "c")]:
            await answer(ticket)
    assert asked_at_ends == [2, 3, 3]


async def test_the_model_is_loaded_once_and_stays(autojump_clock: MockClock) -> None:
    async with line() as held:
        for _ in range(5):
            await held.ask()
        assert len(held.upstream.loads) == 1
        assert not held.upstream.loads[0].implicit


async def test_whoever_is_in_a_hurry_jumps_the_backlog_and_interrupts_nothing(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit(name, lane=lane) for name, lane in JOBS]
        await trio.sleep(1.5)
        tickets.append(held.submit("click", lane=Lane.INTERACTIVE))
        for ticket in tickets:
            await answer(ticket)
        assert held.prompts() == ["first", "click", "second", "later"]


JOBS = [("first", Lane.NORMAL), ("second", Lane.NORMAL), ("later", Lane.BACKGROUND)]


# --- context sizes ---


@pytest.mark.parametrize(("trained", "granted"), [(131072, 8192), (2048, 2048), (None, 8192)])
async def test_what_is_granted_to_whoever_asks_for_no_context(
    trained: int | None, granted: int, autojump_clock: MockClock
) -> None:
    async with line(num_ctx=8192) as held:
        assert held.dispatcher.models.granted_ctx(msgspec.structs.replace(MODEL, trained=trained)) == granted


async def test_what_is_granted_grows_with_the_model_s_size(autojump_clock: MockClock) -> None:
    async with line(num_ctx=2048) as held:
        await held.ask(num_ctx=16384)
        assert held.dispatcher.models.granted_ctx(MODEL) == 16384
        assert held.dispatcher.models.granted_ctx(OTHER) == 2048


async def test_where_the_upstream_chooses_the_context_it_grants_what_it_says(autojump_clock: MockClock) -> None:
    async with line(ScriptedUpstream(chooses_context=False)) as held:
        assert held.dispatcher.models.granted_ctx(MODEL) == 0
        assert held.dispatcher.models.granted_ctx(msgspec.structs.replace(MODEL, served=4096)) == 4096


async def test_two_programs_with_different_context_sizes_cause_one_raise(autojump_clock: MockClock) -> None:
    async with line(num_ctx=2048) as held:
        for _ in range(3):
            await held.ask(num_ctx=2048)
            await held.ask(num_ctx=4096)
            await held.ask()
        assert [load.key.num_ctx for load in held.upstream.loads] == [2048, 4096]
        assert {run.key.num_ctx for run in held.upstream.runs[1:]} == {4096}


async def test_a_context_is_clamped_to_what_the_model_was_trained_for(autojump_clock: MockClock) -> None:
    small = scripted_model("small", trained=1024)
    async with line(ScriptedUpstream(known=[small])) as held:
        ticket = held.submit(model=small, num_ctx=32768)
        await answer(ticket)
        assert ticket.job.key is not None
        assert ticket.job.key.num_ctx == 1024
        await held.ask(model=small)
        assert len(held.upstream.loads) == 1


async def test_a_raise_that_cannot_be_loaded_fails_its_job_and_is_the_models_limit(
    autojump_clock: MockClock,
) -> None:
    async with line(num_ctx=2048) as held:
        await held.ask()
        held.upstream.then_load(Break(text="out of memory"))
        with pytest.raises(LoadFailed, match=r"out of memory.*2048"):
            await held.ask(num_ctx=8192)
        with pytest.raises(LoadFailed, match="2048"):
            await held.ask(num_ctx=8192)
        await held.ask(num_ctx=1024)
        assert [load.key.num_ctx for load in held.upstream.loads] == [2048, 8192, 2048]


async def test_a_loaded_model_is_adopted_at_its_size(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL])
    await upstream.load(MODEL, 16384)
    async with line(upstream) as held:
        await held.ask()
        assert len(held.upstream.loads) == 1
        assert held.upstream.runs[0].key.num_ctx == 16384


# --- loads ---


async def test_a_failed_load_is_not_tried_again_for_everybody_who_waits(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        held.upstream.then_load(Break(text="no such blob", after=1.0))
        tickets = [held.submit() for _ in range(50)]
        for ticket in tickets:
            with pytest.raises(LoadFailed, match="no such blob"):
                await answer(ticket)
        with pytest.raises(LoadFailed, match="no such blob"):
            await held.ask()
        assert len(held.upstream.loads) == 1
        await trio.sleep(30)
        await held.ask()
        assert len(held.upstream.loads) == 2


async def test_a_load_has_a_limit_of_its_own(autojump_clock: MockClock) -> None:
    async with line(load_timeout=100.0, attempt_timeout=10.0) as held:
        held.upstream.load_seconds = 50.0
        await held.ask()
        held.upstream.then_load(Hang())
        with pytest.raises(LoadTimedOut):
            await held.ask(model=OTHER)


async def test_a_model_that_somebody_else_evicted_is_noticed_by_its_load_duration(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.resident_keys = []
        await held.ask()
        await held.ask()
        assert [load.implicit for load in held.upstream.loads] == [False, True]
        assert held.dispatcher.status().surprise_loads == 1


async def test_after_a_minute_of_idleness_what_is_loaded_is_asked_for(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        await trio.sleep(3600)
        held.upstream.resident_keys = []
        await held.ask()
        assert [load.implicit for load in held.upstream.loads] == [False, False]


async def test_two_models_that_fit_together_are_loaded_once_each(autojump_clock: MockClock) -> None:
    async with line(ScriptedUpstream(known=[MODEL, OTHER], max_loaded=2)) as held:
        for _ in range(3):
            await held.ask(model=MODEL)
            await held.ask(model=OTHER)
        assert len(held.upstream.loads) == 2


# --- limits ---


async def test_a_whole_answer_has_one_limit_for_each_attempt(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=10.0) as held:
        held.upstream.default = Say("too slow", tokens=20, seconds_per_token=1.0)
        started = trio.current_time()
        with pytest.raises(AttemptTimedOut, match="stream"):
            await held.ask()
        assert trio.current_time() - started == pytest.approx(1.0 + 2 * 10.0)
        assert len(held.upstream.runs) == 2


async def test_a_stream_may_take_longer_as_long_as_it_goes_on(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=10.0) as held:
        held.upstream.default = Say("slow but steady", tokens=5, seconds_per_token=9.0)
        assert (await held.ask(stream=True)).message.content == "slow but steady"


LOOK = {"type": "function", "function": {"name": "look"}}
FORCED = ChatRequest("scripted", (Message("user", "hello"),), tools=(LOOK,), tool_choice=ToolChoice("required"))
"""Its answer is held back by the upstream until it is whole."""


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_comes_whole_however_long_the_upstream_holds_it_back(
    stream: bool, autojump_clock: MockClock
) -> None:
    """Of a stream the limit is between two pieces, also if none of them can leave."""
    async with line(attempt_timeout=10.0 if stream else 90.0) as held:
        held.upstream.then(Say('{"at": "sea"}', tokens=13, seconds_per_token=5.0))
        ticket = held.dispatcher.submit(Submission(request=FORCED, model=MODEL, stream=stream))
        called = Delta(tool_calls=(ToolCall("look", '{"at": "sea"}'),))
        if stream:
            first, *_ = await ticket.receive()
            assert first == called
        else:
            assert (await answer(ticket)).message == called
        await wait_all_tasks_blocked()
        assert ticket.job.attempts == 1


async def test_a_call_of_which_nothing_has_left_is_tried_again_when_it_breaks(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=10.0) as held:
        held.upstream.then(Break(after_tokens=3), Stall(3), Say("{}"))
        first, second = (Submission(request=FORCED, model=MODEL, stream=True) for _ in range(2))
        ticket = held.dispatcher.submit(first)
        with pytest.raises(AttemptTimedOut):
            await ticket.receive()
        assert ticket.job.attempts == 2
        first_piece, *_ = await held.dispatcher.submit(second).receive()
        assert first_piece == Delta(tool_calls=(ToolCall("look", "{}"),))
        await wait_all_tasks_blocked()


async def test_a_stream_that_stalls_is_ended_and_not_repeated(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=10.0) as held:
        held.upstream.then(Stall(after_tokens=2))
        with pytest.raises(AttemptTimedOut):
            await held.ask(stream=True)
        assert len(held.upstream.runs) == 1


async def test_a_runaway_stream_is_ended(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=10.0, stream_total=30.0) as held:
        held.upstream.then(Say("and so on", tokens=1000, seconds_per_token=5.0))
        with pytest.raises(AttemptTimedOut, match="stream-total"):
            await held.ask(stream=True)


async def test_a_stream_that_never_begins_is_within_its_total_limit_too(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=90.0, stream_total=30.0, max_attempts=1) as held:
        held.upstream.then(Hang())
        started = trio.current_time()
        with pytest.raises(AttemptTimedOut, match="stream-total"):
            await held.ask(stream=True)
        assert trio.current_time() - started == pytest.approx(1.0 + 30.0)


async def test_a_whole_answer_knows_no_limit_of_streams(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=90.0, stream_total=30.0) as held:
        held.upstream.default = Hang()
        with pytest.raises(AttemptTimedOut, match="attempt-timeout"):
            await held.ask()


async def test_a_reader_that_does_not_read_loses_its_job_and_never_holds_the_slot(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say("x" * (MAX_UNREAD + 2**20), tokens=10, seconds_per_token=1.0))
        slow = held.submit(stream=True)
        await held.ask("next")
        with pytest.raises(QueueError, match="stopped reading"):
            await answer(slow)
        assert slow.job.state is State.CANCELLED


async def test_the_line_is_bounded_by_jobs_and_by_bytes(autojump_clock: MockClock) -> None:
    async with line(max_waiting=3, max_waiting_bytes=1000) as held:
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit()]
        await trio.sleep(1.5)
        tickets += [held.submit(size=100) for _ in range(3)]
        with pytest.raises(LineFull) as caught:
            held.submit()
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 60
        for ticket in tickets:
            await answer(ticket)
        with pytest.raises(LineFull, match="bytes"):
            held.submit(size=1001)


@pytest.mark.parametrize("model", [MODEL, REMOTE])
async def test_what_a_job_takes_of_the_room_is_given_back_however_it_ends(
    model: Model, autojump_clock: MockClock
) -> None:
    async with line(max_waiting_bytes=1000, max_attempts=1) as held:
        held.upstream.then(Say(), Refuse(), Break(), Stall())
        for ending in (None, UpstreamRefused, UpstreamBroke, Cancelled):
            ticket = held.submit(model=model, size=1000, client=f"{ending}")
            with pytest.raises(LineFull, match="bytes"):
                held.submit(model=model, size=1)
            await trio.sleep(2)
            ticket.close()
            with nullcontext() if ending is None else pytest.raises(ending):
                await ticket.whole()


async def test_the_advice_when_to_ask_again_is_how_long_the_jobs_that_wait_take_here(autojump_clock: MockClock) -> None:
    async with line(max_waiting=3) as held:
        held.upstream.default = Say(first_after=5.0)
        held.upstream.then(Say(first_after=5.0), Say(first_after=50.0))
        await held.ask()
        await held.ask(model=REMOTE)  # which says nothing of the jobs of this machine
        tickets = [held.submit()]
        await wait_all_tasks_blocked()
        tickets += [held.submit(), held.submit()]
        await wait_all_tasks_blocked()
        tickets.append(held.submit())  # the line has not taken it yet
        with pytest.raises(LineFull) as caught:
            held.submit()
        assert caught.value.retry_after == 15
        for ticket in tickets:
            await answer(ticket)


async def test_max_wait_ends_the_wait_on_time(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=10.0)
        first, patient, hasty = (
            held.submit("first"),
            held.submit("patient", max_wait=60),
            held.submit("hasty", max_wait=2),
        )
        started = trio.current_time()
        with pytest.raises(WaitExpired):
            await answer(hasty)
        assert trio.current_time() - started == pytest.approx(2.0)
        await answer(first)
        await answer(patient)
        assert held.prompts() == ["first", "patient"]


async def test_max_wait_0_runs_now_or_never(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask(max_wait=0)  # a load counts as a start
        busy = held.submit()
        await wait_all_tasks_blocked()
        held.upstream.default = Say(first_after=5.0)
        first = held.submit()
        await trio.sleep(0.1)
        with pytest.raises(WaitExpired):
            await held.ask(max_wait=0)
        await answer(busy)
        await answer(first)
        await trio.sleep(3600)
        await held.ask(max_wait=0)  # what is loaded has to be asked for first, and that is no wait


# --- the end ---


async def test_a_drain_lets_the_line_finish_and_takes_nothing_new(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=5.0)
        tickets = [held.submit() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.dispatcher.drain)
            await wait_all_tasks_blocked()
            with pytest.raises(Draining) as caught:
                held.submit()
            assert caught.value.retry_after is not None
        for ticket in tickets:
            await answer(ticket)
        assert held.dispatcher.unfinished == []


async def test_a_drain_always_ends_and_answers_whoever_is_left(autojump_clock: MockClock) -> None:
    async with line(drain_timeout=30.0) as held:
        held.upstream.default = Hang()
        tickets = [held.submit() for _ in range(5)]
        await trio.sleep(2)
        started = trio.current_time()
        await held.dispatcher.drain()
        assert trio.current_time() - started <= 35.0
        for ticket in tickets:
            with pytest.raises(Unfinished):
                await answer(ticket)
        assert len(held.dispatcher.unfinished) == 5


async def test_a_drain_while_a_model_loads_ends_too(autojump_clock: MockClock) -> None:
    async with line(drain_timeout=3.0) as held:
        held.upstream.then_load(Hang())
        ticket = held.submit()
        await trio.sleep(1)
        await held.dispatcher.drain()
        with pytest.raises(Unfinished):
            await answer(ticket)


async def test_a_drain_that_is_cancelled_answers_the_rest_before_it_ends(autojump_clock: MockClock) -> None:
    async with line(drain_timeout=30.0) as held:
        held.upstream.default = Hang()
        tickets = [held.submit() for _ in range(3)]
        with trio.move_on_after(2) as patience:
            await held.dispatcher.drain()
        assert patience.cancelled_caught
        assert held.dispatcher.live_jobs == 0
        for ticket in tickets:
            with pytest.raises(Unfinished):
                await answer(ticket)


async def test_an_idle_line_drains_at_once(autojump_clock: MockClock) -> None:
    async with line() as held:
        started = trio.current_time()
        await held.dispatcher.drain()
        assert trio.current_time() == started


async def test_a_bug_in_the_line_answers_everybody_and_ends_the_dispatcher(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = ScriptedUpstream(known=[MODEL])
    with pytest.RaisesGroup(DispatcherDied):
        async with trio.open_nursery() as nursery:
            dispatcher = Dispatcher(Settings(), upstream)
            await nursery.start(dispatcher.run)
            held = Harness(dispatcher, upstream, Endings())
            ticket = held.submit()
            monkeypatch.setattr(dispatcher._scheduler, "_load_ended", None)
            with trio.CancelScope(shield=True), pytest.raises(QueueError, match="went wrong inside"):
                await answer(ticket)
            with pytest.raises(Draining):
                held.submit()
            assert dispatcher.live_jobs == 0  # a drain would wait for them
            assert dispatcher.changes.ended, "who watches is not told"


async def test_a_job_that_has_ended_is_told_so_even_if_the_line_is_cancelled_before(autojump_clock: MockClock) -> None:
    upstream, endings = ScriptedUpstream(known=[MODEL]), Endings()
    async with trio.open_nursery() as nursery:
        dispatcher = Dispatcher(Settings(), upstream, [endings])
        await nursery.start(dispatcher.run)
        held = Harness(dispatcher, upstream, endings)
        first, second = held.submit(), held.submit()

        def end_it(moment: Moment) -> None:
            if isinstance(moment, AttemptStarted) and moment.job == second.job.id:
                nursery.cancel_scope.cancel()  # the first one has ended, and is about to be settled

        dispatcher.observers.add(end_it)
    assert endings.count == {first.job.id: 1}
    assert (await first.whole()).message.content == "hello"


# --- what can be seen ---


async def test_a_job_can_be_found_while_it_lives_and_a_while_after(autojump_clock: MockClock) -> None:
    async with line(remembered_jobs=2) as held:
        held.upstream.default = Say(first_after=1.0)
        first, second = held.submit("first"), held.submit("second")
        await wait_all_tasks_blocked()
        found = held.dispatcher.find(second.job.id)
        assert found is not None
        assert found.state == "queued"
        assert found.ahead == 1
        await answer(first)
        await answer(second)
        found = held.dispatcher.find(second.job.id)
        assert found is not None
        assert found.state == "succeeded"
        assert found.wait_s == pytest.approx(2.0)  # a load and the first
        assert found.run_s == pytest.approx(1.0)
        await held.ask()
        await held.ask()
        assert held.dispatcher.find(second.job.id) is None
        assert held.dispatcher.find("nobody") is None


async def test_the_status_tells_the_line_as_it_is(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit(lane=lane) for lane in (Lane.NORMAL, Lane.NORMAL, Lane.INTERACTIVE)]
        await trio.sleep(1.5)
        status = held.dispatcher.status()
        assert status.waiting == {"interactive": 0, "normal": 2, "background": 0}
        assert status.slot is not None
        assert status.slot.phase == "running"
        for ticket in tickets:
            await answer(ticket)
        assert held.dispatcher.status().ended == {"succeeded": 3}
        assert isinstance((await held.ask()).completion, Completion)


async def test_the_status_lists_who_is_served_and_who_waits_in_order_and_for_how_long(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        await held.ask(model=OTHER)  # a model of which no load was tried would go first
        held.upstream.default = Say(first_after=1.0)
        asked = [("cron", Lane.NORMAL), ("cron", Lane.NORMAL), ("extension", Lane.NORMAL), ("person", Lane.INTERACTIVE)]
        tickets = [held.submit(client=client, lane=lane) for client, lane in asked]
        tickets.append(held.submit(model=OTHER, client="other"))
        await wait_all_tasks_blocked()
        assert [job.state for job in held.dispatcher.status().jobs] == ["loading", *["queued"] * 4]
        await trio.sleep(1.5)  # a load of a second, and half of the first job
        status = held.dispatcher.status()
        assert [(job.place, job.client, job.state) for job in status.jobs] == [
            (0, "person", "running"),
            (1, "cron", "queued"),
            (2, "extension", "queued"),
            (3, "cron", "queued"),
            (4, "other", "queued"),
        ]
        assert [job.wait_s for job in status.jobs] == [1.0, 0.5, 1.5, 1.5, 1.5]  # cron caused the load of a second
        assert [job.resident for job in status.jobs] == [True, True, True, True, False]
        assert {(job.model, job.num_ctx) for job in status.jobs} == {("scripted", 8192), ("other", 8192)}
        assert status.held_for is None
        for ticket in tickets:
            await answer(ticket)
        assert held.dispatcher.status().jobs == ()


async def test_the_status_lists_no_more_jobs_than_anybody_reads(autojump_clock: MockClock) -> None:
    async with line() as held:
        tickets = [held.submit() for _ in range(JOBS_SHOWN + 10)]
        await wait_all_tasks_blocked()
        assert [job.place for job in held.dispatcher.status().jobs] == list(range(JOBS_SHOWN))
        for ticket in tickets:
            await answer(ticket)


async def test_the_status_says_for_whom_the_slot_is_held(autojump_clock: MockClock) -> None:
    async with line(switch_wait=60) as held:
        held.upstream.default = Say(first_after=0.5)
        await held.ask(model=OTHER)  # one that was never loaded would end the turn after one load's time
        for _ in range(9):
            await held.ask(client="loop")
        other = held.submit(model=OTHER, client="other")
        await trio.sleep(0.01)
        assert held.dispatcher.status().held_for == "loop"
        await answer(other)
        assert held.dispatcher.status().held_for is None


async def test_a_client_s_share_decides_how_often_it_goes(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=0.5)
        first = held.submit(client="first")
        await wait_all_tasks_blocked()
        tickets = [held.submit(client=client, share=share) for _ in range(12) for client, share in SHARES.items()]
        began: list[str] = []

        def hear(moment: Moment) -> None:
            if isinstance(moment, AttemptStarted):
                began.append(moment.client)

        held.dispatcher.observers.add(hear)
        await answer(first)
        for ticket in tickets:
            await answer(ticket)
        assert [began[1:13].count(client) for client in SHARES] == [9, 3]


SHARES = {"three": 3.0, "one": 1.0}
