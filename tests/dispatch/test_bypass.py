"""Programs that use the upstream past the line: the signs of it, and what is said of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import structlog.testing
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import ProbeEnded, ResidentReported
from llm_queue.core.keys import RunnerKey
from llm_queue.core.seat import STALE_AFTER, Seat
from llm_queue.dispatch.bypass import BUSY, LOADED, LOOK_EVERY, QUIET, RELOADED, Bypasses
from llm_queue.dispatch.dispatcher import Dispatcher
from llm_queue.dispatch.moments import BypassSeen, Moment
from llm_queue.dispatch.observe import JobLog, Observers
from llm_queue.settings import Settings
from llm_queue.testing import ScriptedUpstream
from llm_queue.testing.scripts import Break, Busy, Refuse
from llm_queue.upstream.protocol import Native
from tests.harness import MODEL, OTHER, Endings, Harness

THEIRS = RunnerKey(OTHER.identity, 4096)


class Watched:
    """What was seen, and how often the system was asked."""

    def __init__(self) -> None:
        self.signs: list[BypassSeen] = []
        self.asked = 0
        self.connected: str | None = "/usr/bin/ollama"

    def __call__(self, moment: Moment) -> None:
        if isinstance(moment, BypassSeen):
            self.signs.append(moment)

    async def neighbours(self) -> str | None:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return self.connected

    @property
    def reasons(self) -> list[str]:
        return [sign.reason for sign in self.signs]


@asynccontextmanager
async def watched(
    upstream: ScriptedUpstream | None = None,
    neighbours: Callable[[], Awaitable[str | None]] | None = None,
    *,
    shared: bool = True,
    **settings: Any,
) -> AsyncIterator[tuple[Harness, Watched]]:
    """A line in front of an upstream that others may use too; ``shared`` is false for one that is ours alone."""
    upstream = upstream or ScriptedUpstream(known=[MODEL, OTHER])
    upstream.native = cast(Native, object()) if shared else None
    found, endings = Watched(), Endings()
    async with trio.open_nursery() as nursery:
        log = JobLog(upstream.name, upstream.url)
        dispatcher = Dispatcher(
            Settings(**settings), upstream, [endings, found, log], neighbours=neighbours or found.neighbours
        )
        await nursery.start(dispatcher.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Harness(dispatcher, upstream, endings), found
        nursery.cancel_scope.cancel()


async def test_a_line_that_has_the_upstream_for_itself_sees_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        for _ in range(3):
            await harness.ask()
            await harness.ask(model=OTHER)
            await trio.sleep(STALE_AFTER + 1)
        assert found.signs == []
        assert found.asked == 0
        assert harness.dispatcher.status().bypass is None


async def test_a_model_that_somebody_else_loaded_is_seen(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        await harness.ask()
        await trio.sleep(STALE_AFTER + 1)
        harness.upstream.resident_keys = [THEIRS]
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert found.signs == [BypassSeen(LOADED, "/usr/bin/ollama")]
        bypass = harness.dispatcher.status().bypass
        assert bypass is not None
        assert (bypass.reason, bypass.program) == (LOADED, "/usr/bin/ollama")
        assert bypass.since_s == pytest.approx(2, abs=1.5), "the seconds that its load and run took"


async def test_another_context_size_of_our_own_model_is_seen(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        await harness.ask()
        await trio.sleep(STALE_AFTER + 1)
        harness.upstream.resident_keys = [RunnerKey(MODEL.identity, 4096)]
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert found.reasons == [LOADED]


async def test_what_was_loaded_before_us_is_nobodys_fault(autojump_clock: trio.testing.MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER])
    upstream.resident_keys = [THEIRS]
    async with watched(upstream) as (harness, found):
        await harness.ask()
        assert found.signs == []


async def test_a_load_of_ours_that_outlived_its_connection_is_ours(autojump_clock: trio.testing.MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER])
    async with watched(upstream) as (harness, found):
        await harness.ask(model=OTHER)
        ticket = harness.submit()
        await trio.testing.wait_all_tasks_blocked()
        upstream.down = True
        await trio.sleep(2)
        upstream.resident_keys = [RunnerKey(MODEL.identity, 4096)]  # it came back with what it was told, clamped
        upstream.down = False
        await ticket.whole()
        assert found.reasons == []


async def test_a_model_of_ours_that_is_gone_is_seen(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        await harness.ask()
        harness.upstream.resident_keys = [THEIRS]
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert found.reasons == [RELOADED]


async def test_a_short_keep_alive_makes_models_go_without_anybody(autojump_clock: trio.testing.MockClock) -> None:
    async with watched(keep_alive="30s") as (harness, found):
        await harness.ask()
        harness.upstream.resident_keys = []
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert found.signs == []


async def test_after_a_break_the_model_is_gone_without_anybody(autojump_clock: trio.testing.MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER])
    async with watched(upstream) as (harness, found):
        await harness.ask()
        upstream.then(Break(after=1.0))
        ticket = harness.submit()
        await trio.sleep(0.5)
        upstream.resident_keys = []
        await ticket.whole()
        assert found.signs == []
        assert harness.dispatcher.status().surprise_loads == 1


async def test_an_upstream_that_is_ours_alone_loads_what_it_likes(autojump_clock: trio.testing.MockClock) -> None:
    async with watched(shared=False) as (harness, found):
        await harness.ask()
        harness.upstream.resident_keys = [THEIRS]
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert found.signs == []


@pytest.mark.parametrize("in_a_load", [False, True])
async def test_an_upstream_that_is_busy_is_seen(in_a_load: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        (harness.upstream.then_load if in_a_load else harness.upstream.then)(Busy())
        await harness.ask()
        assert found.signs == [BypassSeen(BUSY, "/usr/bin/ollama")]


async def test_other_failures_are_no_sign(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        harness.upstream.then(Refuse())
        with pytest.raises(Exception, match="refused by the script"):
            await harness.ask()
        assert found.signs == []


async def test_it_is_logged_once_until_it_was_quiet_and_counted_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as (harness, found):
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                harness.upstream.then(Busy())
                await harness.ask()
            assert [sign.again for sign in found.signs] == [False, True, True]
            warned = [one for one in lines if "past the line" in one["event"]]
            assert [(one["reason"], one["program"]) for one in warned] == [(BUSY, "/usr/bin/ollama")]
            await trio.sleep(QUIET + 1)
            assert harness.dispatcher.status().bypass is None
            harness.upstream.then(Busy())
            await harness.ask()
            assert [sign.again for sign in found.signs] == [False, True, True, False]
            assert len([one for one in lines if "past the line" in one["event"]]) == 2


async def test_the_system_is_asked_at_most_once_a_minute_and_what_it_said_stays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as (harness, found):
        for _ in range(4):
            harness.upstream.then(Busy())
            await harness.ask()
        assert found.asked == 1
        found.connected = None
        await trio.sleep(LOOK_EVERY + 1)
        harness.upstream.then(Busy())
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert found.asked == 2
        assert {sign.program for sign in found.signs} == {"/usr/bin/ollama"}


async def test_a_system_that_refuses_to_tell_stops_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async def refuse() -> str | None:
        raise PermissionError("no")

    async with watched(neighbours=refuse) as (harness, found):
        harness.upstream.then(Busy())
        await harness.ask()
        assert found.signs == [BypassSeen(BUSY, None)]


KEYS = st.frozensets(st.builds(RunnerKey, st.sampled_from("abc"), st.sampled_from((4096, 8192))), max_size=3)


@given(st.lists(KEYS, max_size=6))
def test_what_only_goes_is_never_a_sign(reports: list[frozenset[RunnerKey]]) -> None:
    """Whatever is reported: only what was not there before can have been loaded by somebody."""
    seat = Seat(ContextSizes(4096, 8192), 0.0)
    bypasses = Bypasses(seat, Observers([]), None, "1h", shared=True)
    signs: list[str] = []
    bypasses._saw = signs.append  # type: ignore[assignment]
    bypasses.heard(ProbeEnded(None, reports[0] if reports else frozenset()))
    seat.know_resident(reports[0] if reports else (), 0.0)
    for report in reports:
        before, expected = len(signs), bool(report - seat.resident)
        bypasses.heard(ResidentReported(report))
        assert (len(signs) > before) is expected
        seat.know_resident(report, 0.0)


async def test_what_was_unloaded_in_a_pause_by_hand_is_no_sign(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as (harness, found):
        await harness.ask()
        await harness.dispatcher.commands.pause(unload=True)
        await trio.sleep(2 * STALE_AFTER)
        await harness.dispatcher.commands.resume()
        await harness.ask()
        await trio.sleep(2 * STALE_AFTER)
        await harness.ask()
    assert found.reasons == []


async def test_a_model_that_went_after_its_keep_alive_is_no_sign_even_while_others_are_busy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched(keep_alive="5m") as (harness, found):
        upstream = harness.upstream
        await harness.ask()
        upstream.resident_keys = [*upstream.resident_keys, RunnerKey(OTHER.identity, 8192)]
        for _ in range(10):
            await harness.ask(model=OTHER)
            await trio.sleep(40)  # the line never asks what is loaded: it works all the time
        upstream.resident_keys = [key for key in upstream.resident_keys if key.model == OTHER.identity]
        await harness.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert RELOADED not in found.reasons
