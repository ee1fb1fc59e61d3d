"""What goes wrong upstream, and what callers see of it, on the autojump clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from llm_queue.core.jobs import State
from llm_queue.dispatch.attempts import ASK_TIMEOUT
from llm_queue.errors import (
    EngineDied,
    EngineOutOfMemory,
    EngineStuck,
    LoadFailed,
    LoopDetected,
    ModelNotFound,
    QueueError,
    Unfinished,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.testing import Break, Busy, Hang, Refuse, Say, ScriptedUpstream
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import Completion, Delta, Piece, Request
from tests.harness import MODEL, OTHER, answer, line

Emit = Callable[[Piece], None]

# --- failures and the one retry ---


async def test_a_broken_attempt_is_repeated_once(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break())
        ticket = held.submit()
        await answer(ticket)
        assert ticket.job.attempts == 2


async def test_an_answer_that_breaks_twice_is_an_error(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(after_tokens=3), Break(text="it died"))
        with pytest.raises(UpstreamBroke, match="it died"):
            await held.ask()
        assert len(held.upstream.runs) == 2


async def test_half_an_answer_of_a_failed_attempt_is_not_part_of_the_next(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(after_tokens=3), Say("whole"))
        assert (await held.ask()).message.content == "whole"


async def test_a_retried_job_keeps_its_place(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(after=1.0))
        tickets = [held.submit(f"job {number}") for number in range(3)]
        for ticket in tickets:
            await answer(ticket)
        assert held.prompts() == ["job 0", "job 0", "job 1", "job 2"]


async def test_a_refusal_is_passed_on_and_not_repeated(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Refuse(422, "no tools here"))
        with pytest.raises(UpstreamRefused, match="no tools here") as caught:
            await held.ask()
        assert caught.value.http_status == 422
        assert len(held.upstream.runs) == 1


async def test_nothing_is_repeated_once_the_caller_has_read_a_part(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(after_tokens=1))
        ticket = held.submit(stream=True)
        assert isinstance((await ticket.receive())[0], Delta)
        with pytest.raises(UpstreamBroke):
            await ticket.receive()
        assert len(held.upstream.runs) == 1


async def test_a_busy_upstream_is_waited_for(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(*[Busy()] * 10)
        ticket = held.submit()
        await answer(ticket)
        assert ticket.job.attempts == 1


async def test_a_bug_in_an_attempt_fails_that_job_only(autojump_clock: MockClock) -> None:
    async with line() as held:

        def explode(_: object) -> Say:
            raise ZeroDivisionError

        held.upstream.by_request = explode
        with pytest.raises(QueueError, match="report it"):
            await held.ask()
        held.upstream.by_request = None
        await held.ask()


# --- an engine that its requests end ---


class Mortal(ScriptedUpstream):
    """An engine of ours: what breaks its answer has ended it, and what does not stop is killed."""

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Emit) -> Completion:
        if not self.resident_keys:
            raise UpstreamUnreachable("It is started again.")
        try:
            return await super().run(model, num_ctx, request, emit)
        except UpstreamBroke:
            self.resident_keys = []
            raise EngineOutOfMemory from None
        except trio.Cancelled:
            self.resident_keys = []
            raise EngineStuck from None


def mortal() -> ScriptedUpstream:
    return Mortal(known=[MODEL, OTHER])


async def test_an_attempt_that_ended_its_engine_is_not_repeated(autojump_clock: MockClock) -> None:
    async with line(mortal()) as held:
        held.upstream.then(Break())
        ticket = held.submit()
        with pytest.raises(EngineOutOfMemory, match="--engine-memory"):
            await answer(ticket)
        assert ticket.job.attempts == len(held.upstream.runs) == 1


async def test_an_attempt_that_timed_out_and_did_not_stop_is_not_repeated(autojump_clock: MockClock) -> None:
    async with line(mortal(), attempt_timeout=30) as held:
        held.upstream.then(Hang())
        ticket = held.submit()
        with pytest.raises(EngineStuck) as raised:
            await answer(ticket)
        assert ticket.job.attempts == len(held.upstream.runs) == 1
        assert raised.value.http_status == 504
        assert not raised.value.retryable


async def test_the_next_caller_is_served_by_an_engine_that_was_started_again(autojump_clock: MockClock) -> None:
    async with line(mortal(), attempt_timeout=30) as held:
        held.upstream.then(Hang(), Break())
        for _ in range(2):
            with pytest.raises(EngineDied):
                await held.ask("it kills")
        ticket = held.submit("next")
        await answer(ticket)
        assert ticket.job.attempts == 1
        assert held.prompts() == ["it kills", "it kills", "next"]
        assert len(held.upstream.loads) == 3


async def test_a_caller_that_left_has_left_even_if_its_engine_had_to_be_killed(autojump_clock: MockClock) -> None:
    async with line(mortal()) as held:
        held.upstream.then(Hang())
        gone, following = held.submit("gone"), held.submit("next")
        await trio.sleep(30)
        gone.close()
        await answer(following)
        assert gone.job.state is State.CANCELLED
        assert held.prompts() == ["gone", "next"]


async def test_a_stop_is_told_as_a_stop_even_if_the_engine_had_to_be_killed(autojump_clock: MockClock) -> None:
    async with line(mortal(), drain_timeout=5) as held:
        held.upstream.then(Hang())
        ticket = held.submit()
        await trio.sleep(30)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.dispatcher.drain)
            with pytest.raises(Unfinished):
                await answer(ticket)


# --- outages ---


async def test_an_outage_is_not_the_jobs_fault(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.down = True
        tickets = [held.submit(f"job {number}") for number in range(20)]
        await trio.sleep(30)
        assert held.dispatcher.readiness() is not None
        held.upstream.down = False
        for ticket in tickets:
            await answer(ticket)
            assert ticket.job.attempts == 1
        assert held.prompts()[1:] == [f"job {number}" for number in range(20)]
        assert held.dispatcher.readiness() is None


async def test_an_attempt_that_broke_with_the_engine_is_repeated_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=5.0)
        ticket = held.submit()
        await trio.sleep(3)
        held.upstream.down = True
        await trio.sleep(30)
        held.upstream.down = False
        await answer(ticket)
        assert ticket.job.attempts == 2


async def test_no_attempt_is_wasted_on_an_engine_that_is_still_dying(autojump_clock: MockClock) -> None:
    class Dying(ScriptedUpstream):
        """It takes connections until it is gone, and drops them."""

        gone_at = 0.0

        def drop(self) -> None:
            if trio.current_time() < self.gone_at:
                raise UpstreamBroke("connection reset by peer")

        async def probe(self) -> None:
            await super().probe()
            self.drop()

        async def run(self, model: Model, num_ctx: int, request: Request, emit: Emit) -> Completion:
            self.drop()
            return await super().run(model, num_ctx, request, emit)

    upstream = Dying(known=[MODEL, OTHER])
    async with line(upstream) as held:
        await held.ask()
        upstream.gone_at = trio.current_time() + 0.3
        ticket = held.submit()
        await answer(ticket)
        assert ticket.job.attempts == 2


async def test_an_outage_that_lasts_is_told_to_everybody(autojump_clock: MockClock) -> None:
    async with line(outage_wait=60.0) as held:
        await held.ask()
        held.upstream.down = True
        started = trio.current_time()
        waiting = held.submit()
        with pytest.raises(UpstreamUnreachable, match="the script has switched it off"):
            await answer(waiting)
        assert trio.current_time() - started == pytest.approx(60.0, abs=0.1)
        with pytest.raises(UpstreamUnreachable, match="the script has switched it off"):
            held.submit()
        held.upstream.down = False
        await trio.sleep(2)
        await held.ask()


class Loop(ScriptedUpstream):
    """An engine whose address leads back to us, from the moment on that the test says so."""

    found = False
    work_only = False

    def _check_up(self) -> None:
        super()._check_up()
        if self.found and not self.work_only:
            raise LoopDetected("it is us")

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Emit) -> Completion:
        if self.found:
            raise LoopDetected("it is us")
        return await super().run(model, num_ctx, request, emit)


@pytest.mark.parametrize("model", [MODEL, OTHER], ids=["an attempt", "a load"])
async def test_an_upstream_that_turns_out_to_be_ourselves_fails_its_jobs_at_once(
    model: Model, autojump_clock: MockClock
) -> None:
    upstream = Loop(known=[MODEL, OTHER])
    async with line(upstream) as held:
        await held.ask()
        upstream.found = True
        started = trio.current_time()
        tickets = [held.submit(model=model) for _ in range(3)]
        for ticket in tickets:
            with pytest.raises(LoopDetected, match="it is us"):
                await answer(ticket)
        assert sum(ticket.job.attempts for ticket in tickets) <= 1
        assert trio.current_time() == started
        assert held.dispatcher.readiness() == "it is us"
        upstream.found = False
        await trio.sleep(2)
        await held.ask(model=model)


async def test_a_loop_behind_an_outage_is_told_to_those_who_wait_and_those_who_come(autojump_clock: MockClock) -> None:
    upstream = Loop(known=[MODEL])
    async with line(upstream) as held:
        await held.ask()
        upstream.down = True
        waiting = held.submit()
        await trio.sleep(3)
        upstream.found, upstream.down = True, False
        started = trio.current_time()
        with pytest.raises(LoopDetected, match="it is us"):
            await answer(waiting)
        assert trio.current_time() - started <= 1.0
        with pytest.raises(LoopDetected, match="it is us"):
            held.submit()
        assert held.dispatcher.readiness() == "it is us"
        upstream.found = False
        await trio.sleep(2)
        await held.ask()


async def test_the_first_look_says_whether_the_upstream_is_ourselves(autojump_clock: MockClock) -> None:
    upstream = Loop(known=[MODEL])
    async with line(upstream) as held:
        assert await held.dispatcher.watch.first_look() is None
    upstream.found = True
    async with line(upstream) as held:
        found = await held.dispatcher.watch.first_look()
        assert found is not None
        assert found.message == "it is us"


async def test_a_loop_for_work_alone_is_not_asked_again_and_again(autojump_clock: MockClock) -> None:
    """As behind a proxy that leads questions to the engine, and work to us."""
    upstream = Loop(known=[MODEL])
    upstream.work_only = True
    async with line(upstream) as held:
        await held.ask()
        upstream.found = True
        with pytest.raises(LoopDetected):
            await held.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert len(upstream.runs) == 1
        assert held.dispatcher.readiness() is None  # a question is answered, so the next job may try


async def test_an_upstream_that_was_never_seen_is_given_less_time(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL])
    upstream.down = True
    async with line(upstream, first_outage_wait=10.0) as held:
        started = trio.current_time()
        with pytest.raises(UpstreamUnreachable):
            await held.ask(model=None)
        assert trio.current_time() - started <= 10.0


async def test_a_job_taken_on_trust_during_an_outage_is_checked_when_it_is_over(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL])
    upstream.down = True
    async with line(upstream) as held:
        good = held.submit(model=None)
        await trio.sleep(5)
        upstream.known = [OTHER]
        bad = held.submit(model=None)
        upstream.down = False
        for ticket in (good, bad):
            with pytest.raises(ModelNotFound, match="other"):
                await answer(ticket)
        upstream.known = [MODEL, OTHER]
        await held.dispatcher.catalog.refresh()
        assert (await held.ask(model=None)).completion.finish_reason == "stop"


async def test_a_model_that_the_upstream_cannot_describe_fails_its_own_job_only(autojump_clock: MockClock) -> None:
    class HalfBroken(ScriptedUpstream):
        async def describe(self, model: Model) -> Model:
            if model.name == MODEL.name:
                raise UpstreamBroke("its manifest is damaged")
            return await super().describe(model)

    upstream = HalfBroken(known=[MODEL, OTHER])
    upstream.down = True
    async with line(upstream) as held:
        damaged, whole = held.submit(model=None), held.submit(model=OTHER)
        await trio.sleep(5)
        upstream.down = False
        with pytest.raises(UpstreamBroke, match="damaged"):
            await answer(damaged)
        assert (await answer(whole)).completion.finish_reason == "stop"


async def test_a_model_that_went_with_an_outage_is_not_found_and_served_as_soon_as_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        await held.ask(model=OTHER)
        held.upstream.down = True
        waiting = held.submit("one")
        await trio.sleep(5)
        held.upstream.known = [OTHER]
        held.upstream.resident_keys = []
        held.upstream.then_load(Break(text="no such model"))
        held.upstream.down = False
        with pytest.raises(ModelNotFound, match=r"'scripted' not found\. There are: other"):
            await answer(waiting)
        held.upstream.known = [MODEL, OTHER]
        await held.ask("two")


async def test_a_load_that_fails_while_nobody_says_which_models_there_are_is_no_more_than_that(
    autojump_clock: MockClock,
) -> None:
    class Mute(ScriptedUpstream):
        async def models(self) -> list[Model]:
            if self.loads:
                await trio.sleep_forever()
            return await super().models()

    async with line(Mute(known=[MODEL])) as held:
        held.upstream.then_load(Break(text="no room"))
        started = trio.current_time()
        with pytest.raises(LoadFailed, match="no room"):
            await held.ask()
        assert trio.current_time() - started <= ASK_TIMEOUT


async def test_what_is_loaded_after_an_outage_is_adopted(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.down = True
        ticket = held.submit()
        await trio.sleep(5)
        held.upstream.down = False
        held.upstream.resident_keys = [held.upstream.runs[0].key]
        await answer(ticket)
        assert len(held.upstream.loads) == 1
