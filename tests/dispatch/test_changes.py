"""Who watches the line hears when it has changed, and what it shows of itself."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.dispatch.changes import GROWS_OLD, IDLE_GROWS_OLD, LOOKS
from llm_queue.testing import Say, ScriptedUpstream
from llm_queue.upstream.protocol import Size
from tests.harness import MODEL, OTHER, answer, line


async def test_each_moment_is_a_change(autojump_clock: MockClock) -> None:
    async with line() as held:
        changes = held.dispatcher.changes
        before = changes.number
        ticket = held.submit()
        await changes.after(before)
        assert changes.number > before
        await answer(ticket)


async def test_pieces_of_an_answer_are_seen_while_it_runs_and_no_more_often_than_needed(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.default = Say("a" * 100, tokens=100, seconds_per_token=0.05)
        ticket = held.submit(stream=True)
        await trio.sleep(0.01)
        changes, seen = held.dispatcher.changes, 0
        while not ticket.job.state.ended:
            await changes.after(changes.number)
            seen += 1
        assert 5.0 / LOOKS - 2 <= seen <= 5.0 / LOOKS + 8
        await answer(ticket)


async def test_an_idle_line_changes_once_a_minute_for_its_last_hour_moves_on(autojump_clock: MockClock) -> None:
    async with line() as held:
        changes, began, seen = held.dispatcher.changes, trio.current_time(), 0
        while trio.current_time() < began + 10 * IDLE_GROWS_OLD:
            await changes.after(changes.number)
            seen += 1
        assert 9 <= seen <= 11


async def test_a_line_with_jobs_grows_old(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=60.0)
        await held.ask()
        ticket = held.submit()
        await trio.sleep(1.0)
        changes, began = held.dispatcher.changes, trio.current_time()
        await changes.after(changes.number)
        assert GROWS_OLD - 1.0 <= trio.current_time() - began <= GROWS_OLD + LOOKS
        await answer(ticket)


async def test_the_end_of_a_drain_is_the_last_change(autojump_clock: MockClock) -> None:
    async with line() as held:
        changes = held.dispatcher.changes
        ticket = held.submit()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.dispatcher.drain)
            await wait_all_tasks_blocked()
            assert not changes.ended
            await answer(ticket)
        assert changes.ended
        await changes.after(changes.number)  # whoever asks now need not wait


async def test_the_job_that_runs_shows_how_far_its_answer_is(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.default = Say("a" * 40, tokens=40, seconds_per_token=0.25, first_after=1.0)
        for stream in (True, False):
            ticket, waits = held.submit(stream=stream), held.submit()
            await trio.sleep(0.5)
            first, second = held.dispatcher.status().jobs
            assert (first.tokens, first.tokens_per_s, first.running_s, first.first_token_s) == (0, None, 0.5, None)
            assert {"tokens", "tokens_per_s", "running_s", "first_token_s"}.isdisjoint(second.as_dict())
            await trio.sleep(3.0)
            now = held.dispatcher.status().jobs[0]
            assert isinstance(now.tokens, int)
            assert now.tokens > 5
            assert isinstance(now.tokens_per_s, float)
            assert 3.0 <= now.tokens_per_s <= 4.0
            assert isinstance(now.first_token_s, float)
            assert 1.0 <= now.first_token_s <= 1.5
            await answer(ticket)
            await answer(waits)


async def test_the_status_shows_what_is_loaded_and_what_it_takes(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER], max_loaded=2)
    upstream.sizes = {MODEL.identity: Size(7_000, 5_000)}
    async with line(upstream) as held:
        assert held.dispatcher.status().models == ()
        await held.ask()
        await held.ask(model=OTHER)
        models = {one.name: (one.num_ctx, one.size_bytes, one.vram_bytes) for one in held.dispatcher.status().models}
        assert models == {"scripted": (8192, 7_000, 5_000), "other": (8192, None, None)}


async def test_the_status_shows_the_turn_as_it_is_used_up(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.default = Say(first_after=2.0)
        await held.ask()
        ticket = held.submit()
        await trio.sleep(1.5)
        turn = held.dispatcher.status().turn
        assert (turn.used_s, turn.length_s, turn.cost_s) == (3.5, 9.0, 1.0)
        await answer(ticket)


async def test_the_status_shows_the_last_hour_and_the_last_jobs(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=2.0)
        tickets = [held.submit(client="cron") for _ in range(25)]
        for ticket in tickets:
            await answer(ticket)
        status = held.dispatcher.status()
        assert [one.job for one in status.finished] == [ticket.job.id for ticket in tickets[:4:-1]]
        assert all("request_id" not in one.as_dict() for one in status.finished)  # a caller's own word
        (row,) = status.programs
        assert (row.client, row.model_s, row.load_s, row.jobs) == ("cron", 50.0, 1.0, 25)
        assert sum(one[3] for one in status.lanes["normal"].waits) == 25


async def test_the_jobs_that_wait_have_ranges_once_a_run_has_ended(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=2.0)
        tickets = [held.submit(client="cron") for _ in range(5)]
        await wait_all_tasks_blocked()
        assert [one.starts_in_low_s for one in held.dispatcher.status().jobs[1:]] == [None] * 4
        await answer(tickets[0])
        await answer(tickets[1])
        for one in held.dispatcher.status().jobs[1:]:
            assert one.starts_in_s is not None
            assert one.starts_in_low_s is not None
            assert one.starts_in_high_s is not None
            assert one.starts_in_low_s <= one.starts_in_s <= one.starts_in_high_s
        for ticket in tickets:
            await answer(ticket)
