"""Any script of the upstream, any callers, any order of tasks: the promises of the line hold."""

from __future__ import annotations

import random
from dataclasses import dataclass

import hypothesis.strategies as st
import trio
import trio.testing
from hypothesis import given

from llm_queue.core.jobs import Lane, State
from llm_queue.dispatch.tickets import Ticket
from llm_queue.errors import QueueError
from llm_queue.testing import Break, Busy, Garble, Hang, Refuse, Say, Stall
from llm_queue.testing.scripts import Script
from llm_queue.wire.shapes import Completion
from tests.harness import MODEL, OTHER, Harness, line

scripts = st.sampled_from(
    [
        *(Say(), Say("a longer answer of several words", seconds_per_token=0.5), Say(first_after=2.0)),
        *(Hang(), Stall(1), Stall(3), Refuse(after=0.1), Break(), Break(after_tokens=2, after=0.2), Garble(), Busy()),
    ]
)
loads = st.sampled_from([Say(), Say(), Say(), Break(after=0.1), Busy(), Hang()])


@dataclass(frozen=True)
class Caller:
    """Asks after ``start`` seconds and leaves ``patience`` seconds later, if it has no answer by then."""

    start: float
    patience: float
    lane: Lane
    client: str
    second: bool
    stream: bool
    max_wait: float | None


callers = st.builds(
    Caller,
    start=st.sampled_from([0.0, 0.0, 0.5, 3.0]),
    patience=st.sampled_from([0.0, 0.3, 2.0, 1000.0, 1000.0, 1000.0]),
    lane=st.sampled_from(Lane),
    client=st.sampled_from("abc"),
    second=st.booleans(),
    stream=st.booleans(),
    max_wait=st.sampled_from([None, None, 0.0, 5.0]),
)


async def call(held: Harness, caller: Caller, endings: list[str], tickets: list[Ticket]) -> None:
    await trio.sleep(caller.start)
    model = OTHER if caller.second else MODEL
    try:
        ticket = held.submit(
            model=model, lane=caller.lane, client=caller.client, stream=caller.stream, max_wait=caller.max_wait
        )
    except QueueError:
        endings.append("rejected")
        return
    tickets.append(ticket)
    ending = "left"
    with trio.move_on_after(caller.patience):
        try:
            while not isinstance((await ticket.receive())[-1], Completion):
                pass
            ending = "answered"
        except QueueError:
            ending = "error"
    ticket.close()
    endings.append(ending)


@given(
    callers=st.lists(callers, min_size=1, max_size=6),
    runs=st.lists(scripts, max_size=8),
    loading=st.lists(loads, max_size=3),
    outage=st.sampled_from([None, None, 0.2, 2.0]),
    drain_at=st.sampled_from([None, None, None, 1.0]),
    schedule=st.randoms(use_true_random=False),
)
def test_every_caller_has_one_ending_and_nothing_is_left(
    callers: list[Caller],
    runs: list[Script],
    loading: list[Script],
    outage: float | None,
    drain_at: float | None,
    schedule: random.Random,
) -> None:
    async def main() -> None:
        endings: list[str] = []
        tickets: list[Ticket] = []
        async with line(attempt_timeout=10.0, load_timeout=20.0, drain_timeout=15.0) as held:
            held.upstream.then(*runs)
            held.upstream.then_load(*loading)
            async with trio.open_nursery() as nursery:
                for caller in callers:
                    nursery.start_soon(call, held, caller, endings, tickets)
                if outage is not None:
                    await trio.sleep(outage)
                    held.upstream.down = True
                    await trio.sleep(3.0)
                    held.upstream.down = False
                if drain_at is not None:
                    await trio.sleep(drain_at)
                    await held.dispatcher.drain()
            await trio.sleep(1000)  # a load goes on when its caller has left
            assert held.dispatcher.live_jobs == 0
            status = held.dispatcher.status()
        assert len(endings) == len(callers)
        assert status.slot is None
        assert sum(status.waiting.values()) == 0
        assert sum(status.ended.values()) == len(tickets) == len(callers) - endings.count("rejected")
        assert status.ended.get("succeeded", 0) >= endings.count("answered")
        assert all(ticket.job.state.ended for ticket in tickets)
        assert all(ticket.job.attempts <= 2 for ticket in tickets)
        answered = [ticket for ticket in tickets if ticket.job.state is State.SUCCEEDED]
        assert all(ticket.job.run_seconds <= 600 for ticket in answered)

    trio._core._run._r.seed(schedule.randrange(2**32))
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
