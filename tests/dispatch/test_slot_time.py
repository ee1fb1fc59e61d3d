"""The slot's time: each second has one reason, and together they are all there is."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.pause import Pause
from llm_queue.core.seat import Occupant, Seat
from llm_queue.core.turn import Hold
from llm_queue.dispatch.slot_time import SlotState, SlotTime
from llm_queue.testing import Busy, Say
from tests.harness import OTHER, answer, line

KEY = RunnerKey("sha", 8192)


class Play:
    """A seat that is put into each state by hand."""

    def __init__(self) -> None:
        self.seat = Seat(ContextSizes(8192, 8192), now=0.0)
        self.time = SlotTime(self.seat, 0.0)

    def enter(self, state: SlotState, now: float) -> None:
        seat = self.seat
        seat.outage, seat.slot, seat.busy_until, seat.asking, seat.turn.hold = None, None, None, False, None
        self.seat.pause = Pause(0.0) if state is SlotState.PAUSED else None
        match state:
            case SlotState.RUNNING | SlotState.LOADING:
                job = Job("job", Lane.NORMAL, "cron", "sha", 8192, 0, now)
                seat.slot = Occupant(job, KEY, state is SlotState.LOADING, now)
            case SlotState.HOLD:
                seat.turn.hold = Hold(now + 9, "cron", KEY, Lane.NORMAL)
            case SlotState.OUTAGE:
                seat.begin_outage(now, "gone")
            case SlotState.ASKING:
                seat.asking = True
            case SlotState.BACK_OFF:
                seat.back_off(now)
        self.time.look(now)


def test_before_it_was_asked_the_upstream_is_away() -> None:
    assert Play().time.seconds(2.0)[SlotState.OUTAGE] == 2.0


def test_all_but_two_states_are_idle() -> None:
    assert {state for state in SlotState if state.busy} == {SlotState.RUNNING, SlotState.LOADING}


@given(st.lists(st.tuples(st.sampled_from(SlotState), st.integers(0, 10)), min_size=1))
def test_each_second_has_the_one_state_that_the_slot_was_in(entered: list[tuple[SlotState, int]]) -> None:
    play, expected, now = Play(), dict.fromkeys(SlotState, 0.0), 0.0
    for state, seconds in entered:
        play.enter(state, now)
        now += seconds
        expected[state] += seconds
    assert play.time.seconds(now) == expected


async def test_the_line_says_what_its_slot_s_time_went_to(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with line(switch_wait=60) as held:
        await held.ask(model=OTHER)
        held.upstream.default = Say(first_after=0.5)
        for _ in range(9):
            await held.ask(client="loop")
        waiting = held.submit(model=OTHER, client="other")
        await answer(waiting)
        held.upstream.then(Busy())
        await held.ask()
        held.upstream.down = True
        waiting = held.submit()
        await trio.sleep(2)
        held.upstream.down = False
        await answer(waiting)
        await trio.sleep(5)
        seconds = held.dispatcher.slot_seconds()
        assert sum(seconds.values()) == pytest.approx(trio.current_time() - began)
    assert seconds[SlotState.RUNNING] == pytest.approx(0.5 * 12)
    assert seconds[SlotState.LOADING] == pytest.approx(held.dispatcher.status().load_seconds)
    assert seconds[SlotState.HOLD] == pytest.approx(held.dispatcher.status().held_seconds)
    assert seconds[SlotState.BACK_OFF] == pytest.approx(0.1)
    assert 2 <= seconds[SlotState.OUTAGE] < 3
    assert seconds[SlotState.EMPTY] == pytest.approx(5)
    assert seconds[SlotState.PAUSED] == 0
