"""Requests that load or unload a model, and what they may do to others."""

from __future__ import annotations

import trio.testing

from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.testing import Say, ScriptedUpstream
from llm_queue.wire.shapes import ChatRequest, LoadRequest, Message
from tests.harness import MODEL, OTHER, Harness, answer, line


def load(harness: Harness, *, unload: bool = False) -> Ticket:
    request = LoadRequest(MODEL.name, 600.0, unload=unload)
    return harness.dispatcher.submit(Submission(request=request, model=MODEL))


def work(upstream: ScriptedUpstream) -> list[str]:
    return [type(run.request).__name__ for run in upstream.runs]


async def test_a_load_goes_through_the_line(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as harness:
        ahead, ticket = harness.submit(), load(harness)
        assert (await answer(ticket)).completion.finish_reason == "load"
        assert ahead.job.ended_at is not None
        assert work(harness.upstream) == ["ChatRequest", "LoadRequest"]
        assert len(harness.upstream.loads) == 1
        await harness.dispatcher.catalog.refresh()
        assert [(model.name, num_ctx) for model, num_ctx in harness.dispatcher.models.loaded()] == [(MODEL.name, 8192)]


async def test_what_nobody_else_wants_is_unloaded(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as harness:
        assert not harness.dispatcher.models.may_unload(MODEL), "it is not there"
        await harness.ask()
        assert harness.dispatcher.models.may_unload(MODEL)
        assert not harness.dispatcher.models.may_unload(OTHER)
        assert (await answer(load(harness, unload=True))).completion.finish_reason == "unload"
        assert harness.upstream.resident_keys == []
        assert not harness.dispatcher.models.may_unload(MODEL)
        await harness.ask()
        assert [record.implicit for record in harness.upstream.loads] == [False, False], "the line loads it again"


async def test_what_runs_or_waits_keeps_its_model(autojump_clock: trio.testing.MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER], default=Say("a b c", seconds_per_token=1.0))
    async with line(upstream) as harness:
        await harness.ask()
        running = harness.submit()
        await trio.testing.wait_all_tasks_blocked()
        assert not harness.dispatcher.models.may_unload(MODEL)
        assert harness.dispatcher.models.may_unload(OTHER) is False
        await answer(running)


async def test_who_came_while_an_unload_waited_keeps_the_model(autojump_clock: trio.testing.MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER], default=Say("a b c", seconds_per_token=1.0), max_loaded=2)
    async with line(upstream) as harness:
        await harness.ask()
        await harness.ask(model=OTHER)
        running = harness.submit(model=OTHER)
        unload, later = load(harness, unload=True), harness.submit()
        assert (await answer(unload)).completion.finish_reason == "unload"
        assert MODEL.identity in {key.model for key in upstream.resident_keys}
        await answer(running)
        await answer(later)
        assert len(upstream.loads) == 2
        assert "LoadRequest" not in work(upstream), "nothing was asked of the upstream"


async def test_to_unload_what_is_gone_loads_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as harness:
        await harness.dispatcher.watch.ready()
        assert (await answer(load(harness, unload=True))).completion.finish_reason == "unload"
        assert harness.upstream.loads == []
        assert not harness.dispatcher.models.may_unload(MODEL)
        await harness.ask()


async def test_what_a_caller_is_granted(autojump_clock: trio.testing.MockClock) -> None:
    async with line(num_ctx=4096) as harness:
        assert harness.dispatcher.models.granted_ctx(MODEL) == 4096
        await harness.ask(num_ctx=16384)
        assert harness.dispatcher.models.granted_ctx(MODEL) == 16384
        assert harness.dispatcher.models.granted_ctx(OTHER) == 4096
        assert harness.dispatcher.models.native is None
    async with line(ScriptedUpstream(known=[MODEL], chooses_context=False)) as harness:
        assert harness.dispatcher.models.granted_ctx(MODEL) == 0
        assert (await harness.ask(num_ctx=16384)).completion.finish_reason == "stop"


async def test_a_lifetime_reaches_the_upstream(autojump_clock: trio.testing.MockClock) -> None:
    async with line() as harness:
        request = ChatRequest(MODEL.name, (Message("user", "hello"),), keep_alive=600.0)
        await answer(harness.dispatcher.submit(Submission(request=request, model=MODEL)))
        assert harness.upstream.runs[0].request == request
