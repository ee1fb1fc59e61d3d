"""Who goes next: every rule of docs/scheduling.md as a sentence."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.core.costs import FIRST_GUESS
from llm_queue.core.events import Outcome, Resolved
from llm_queue.core.jobs import Lane
from llm_queue.core.rules import OrderRules
from tests.core.driver import FLOOR, Driver, key

INTERACTIVE, NORMAL, BACKGROUND = Lane


def turns(ran: list[str]) -> list[tuple[str, int]]:
    """Runs of the same client: who, and how many in a row."""
    return [(who, len(list(group))) for who, group in itertools.groupby(name[0] for name in ran)]


def loaded_before(driver: Driver, *models: str, seconds: float = 3.0) -> None:
    """Load each of these models once, so that none of them is new; the last one stays loaded."""
    for model in models:
        driver.submit("k", model)
        driver.load(seconds)
        driver.run(0.0)


def looping(
    driver: Driver,
    client: str,
    model: str,
    *,
    think: float = 0.1,
    run: float = 1.0,
    times: int = 3,
    share: float = 1.0,
) -> None:
    """Make the client known for asking again at once; it ends in the moment of its last answer.

    A load of model b was tried before, so that a job for it has no first turn.
    """
    loaded_before(driver, "b")
    for _ in range(times):
        driver.submit(client, model, share=share)
        if driver.loading:
            driver.load()
        driver.run(run)
        driver.wait(think)
    driver.submit(client, model, share=share)
    driver.run(run)


# --- lanes ---


def test_a_higher_lane_goes_before_all_that_wait_in_lower_ones() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("first")
    for lane in (BACKGROUND, NORMAL, INTERACTIVE, BACKGROUND, NORMAL, INTERACTIVE):
        driver.submit(lane.label[0], lane=lane)
    driver.work()
    assert turns(driver.ran[1:]) == [("i", 2), ("n", 2), ("b", 2)]


def test_what_runs_is_never_preempted() -> None:
    driver = Driver(resident=(key("a"),))
    low = driver.submit("b", lane=BACKGROUND)
    driver.submit("i", lane=INTERACTIVE)
    assert driver.run() is low
    assert driver.aborting is None


def test_after_a_burst_of_higher_picks_a_waiting_lower_lane_has_one() -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=3))
    driver.submit("first")
    for _ in range(12):
        driver.submit("i", lane=INTERACTIVE)
    for _ in range(3):
        driver.submit("b", lane=BACKGROUND)
    driver.work(run=0.1)
    assert turns(driver.ran[1:]) == [("i", 3), ("b", 1), ("i", 3), ("b", 1), ("i", 3), ("b", 1), ("i", 3)]


def test_a_lane_that_was_empty_starts_to_count_anew() -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=2))
    for _ in range(6):
        driver.submit("i", lane=INTERACTIVE)
    gone = driver.submit("b", lane=BACKGROUND)
    driver.run(0.1)
    driver.cancel(gone)
    driver.submit("b", lane=BACKGROUND)
    driver.work(run=0.1)
    assert turns(driver.ran) == [("i", 4), ("b", 1), ("i", 2)]


@given(
    mixture=st.lists(st.integers(0, 6), min_size=3, max_size=3),
    burst=st.integers(1, 9),
    arrivals=st.lists(st.sampled_from(list(Lane)), max_size=80),
)
def test_in_every_mixture_no_lane_waits_longer_than_its_burst_and_one_pick_of_each_other_lane(
    mixture: list[int], burst: int, arrivals: list[Lane]
) -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=burst))
    for lane, jobs in zip(Lane, mixture, strict=True):
        for _ in range(jobs):
            driver.submit(lane.label, lane=lane)
    passed = dict.fromkeys(Lane, 0)
    coming = iter(arrivals)
    while driver.running:
        for lane in itertools.islice(coming, 2):
            driver.submit(lane.label, lane=lane)
        driver.run(0.01)
        if driver.running is None:
            break
        picked = driver.running.job.lane
        waiting = {job.lane for job in driver.scheduler.waiting_jobs()}
        for lane in Lane:
            passed[lane] = (
                passed[lane] + 1 if lane in waiting and lane > picked else 0 if lane >= picked else passed[lane]
            )
            assert passed[lane] <= burst + 1


def test_an_overdue_lane_that_can_not_go_yet_does_not_stand_before_one_that_can() -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=2))
    for _ in range(9):
        driver.submit("i", lane=INTERACTIVE)
    driver.submit("b", "other", lane=BACKGROUND)
    driver.run(0.1)
    driver.submit("n", lane=NORMAL)
    driver.work(run=0.1)
    assert turns(driver.ran) == [("i", 4), ("n", 1), ("i", 5), ("b", 1)]


def test_an_overdue_lane_waits_for_the_end_of_the_turn_only_if_it_needs_a_load() -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=2, turn_factor=2.0))
    for _ in range(20):
        driver.submit("i", lane=INTERACTIVE)
    driver.submit("n", "other")
    turn = driver.turn_length()
    driver.work(run=1.0)
    assert turn == 2 * FIRST_GUESS
    assert turns(driver.ran)[:2] == [("i", 6), ("n", 1)]


def test_background_is_not_starved_by_interactive_jobs_that_change_the_model_each_time() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("b", "c", lane=BACKGROUND)
    driver.cancel(driver.submit("b", "c", lane=BACKGROUND))
    for number in range(40):
        driver.submit("i", "ab"[number % 2], lane=INTERACTIVE)
        driver.submit("i", "ba"[number % 2], lane=INTERACTIVE)
        if driver.loading:
            driver.load()
        if driver.running:
            driver.run(0.1)
        if "b1" in driver.ran:
            break
    assert "b1" in driver.ran
    assert len(driver.ran) <= 30


def test_a_normal_job_for_the_model_that_long_interactive_jobs_use_is_not_starved_by_another_model() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("c", "c")
    for _ in range(30):
        driver.submit("c", "c")
    starving = driver.submit("s", "a")
    for _ in range(20):
        driver.submit("i", "a", lane=INTERACTIVE)
        while not driver.running or driver.running.job.lane is not INTERACTIVE:
            driver.load() if driver.loading else driver.run(1.0)
        driver.run(25.0)
        if starving.id in driver.ran:
            break
    assert starving.id in driver.ran
    assert driver.ran.index(starving.id) <= 10


# --- turns ---


def test_twenty_jobs_each_queued_a_b_a_b_need_one_load_per_turn() -> None:
    driver = Driver()
    loaded_before(driver, "b", "a")
    driver.submit("a", "a")
    for _ in range(20):
        driver.submit("a", "a")
        driver.submit("b", "b")
    driver.work(run=1.0)
    assert turns(driver.ran) == [("k", 2), ("a", 20), ("b", 20), ("a", 1)]
    assert driver.loads[2:] == [key("b"), key("a")]


def test_a_turn_ends_when_its_time_is_used_up() -> None:
    driver = Driver(rules=OrderRules(turn_factor=3.0))
    loaded_before(driver, "b", "a", seconds=2.0)
    for _ in range(30):
        driver.submit("a", "a")
        driver.submit("b", "b")
    driver.work(load=2.0, run=1.0)
    assert {jobs for _, jobs in turns(driver.ran)[1:]} == {6}


@pytest.mark.parametrize(
    ("cost", "factor", "switch_wait", "turn"),
    [
        (0.5, 9.0, 20.0, 4.5),
        (6.0, 9.0, 20.0, 20.0),
        (30.0, 9.0, 20.0, 30.0),
        (6.0, 0.0, 20.0, 6.0),
        (6.0, 9.0, 0.0, 6.0),
    ],
)
def test_a_turn_is_as_long_as_its_rule_says(cost: float, factor: float, switch_wait: float, turn: float) -> None:
    driver = Driver(rules=OrderRules(turn_factor=factor, switch_wait=switch_wait))
    driver.submit("a", "a")
    driver.load(cost)
    assert driver.turn_length() == turn


def test_the_largest_cost_among_the_wanted_counts_and_a_guess_before_one_was_measured() -> None:
    driver = Driver()
    driver.submit("a", "a")
    assert driver.switch_cost() == FIRST_GUESS
    driver.load(0.5)
    assert driver.switch_cost() == 0.5
    driver.submit("b", "b")
    assert driver.switch_cost() == FIRST_GUESS
    driver.run()
    driver.load(7.0)
    assert driver.switch_cost() == 7.0


def test_after_a_turn_the_key_that_waited_longest_is_next() -> None:
    driver = Driver(resident=(key("a"),))
    for model in "abcd":
        for _ in range(3):
            driver.submit(model, model)
    driver.work(run=30.0)
    assert [who for who, _ in turns(driver.ran)] == list("abcd" * 3)


def test_newly_wanted_keys_do_not_overtake_one_that_has_waited_longer() -> None:
    driver = Driver(resident=(key("b"),))
    driver.submit("b", "b")
    driver.run(30.0)
    for _ in range(3):
        driver.submit("a", "a")
    driver.load()
    waiting = driver.submit("b", "b")
    for number in range(5):
        driver.submit("n", f"new {number}")
        driver.run(30.0)
        if driver.loading:
            driver.load()
        if waiting.id in driver.ran:
            break
    assert len(driver.ran) <= 4


def test_several_resident_keys_alternate_freely_and_share_their_turn() -> None:
    driver = Driver(resident=(key("a"), key("b")), room=2)
    for _ in range(4):
        driver.submit("a", "a")
        driver.submit("b", "b")
    driver.work(run=1.0)
    assert turns(driver.ran) == [("a", 1), ("b", 1)] * 4
    assert driver.loads == []


def test_a_turn_of_several_resident_keys_ends_too() -> None:
    driver = Driver(resident=(key("a"), key("b")), room=2)
    for _ in range(40):
        driver.submit("a", "a")
        driver.submit("b", "b")
    driver.submit("c", "c")
    while not driver.loading:
        driver.run(1.0)
    assert driver.loads == [key("c")]
    assert len(driver.ran) <= 20 + 2


def test_a_raise_merges_the_jobs_of_both_sizes_and_costs_one_load() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    for _ in range(5):
        driver.submit("x")
        driver.submit("y", wanted_ctx=16384)
    driver.work(run=1.0)
    assert driver.loads == [key("a", 16384)]
    assert len(driver.ran) == 11


def test_a_raise_does_not_put_a_model_behind_one_that_has_waited_for_less_time() -> None:
    driver = Driver(resident=(key("z"),))
    driver.submit("z", "z")
    driver.submit("a", "a")
    late = driver.submit("c", "c")
    driver.turn.resident = frozenset([key("z")])
    driver.contexts.adopt([key("a", 16384)])
    driver.line.rekey("a")
    driver.run(30.0)
    assert driver.loads == [key("a", 16384)]
    assert late.id not in driver.ran


def test_a_raise_while_a_job_of_the_smaller_size_runs_bills_it_where_it_was_served() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    waiting = driver.submit("y")
    unknown = driver.submit("z", None)
    driver.reported = [key("a", 16384)]
    driver.probe(resolved={unknown.id: Resolved("a", FLOOR)})
    assert waiting.key == key("a", 16384)
    driver.work()
    assert driver.loads == []
    assert len(driver.ran) == 3
    assert driver.line.idle


def test_an_interactive_job_is_not_held_back_by_a_turn_of_lower_lanes() -> None:
    driver = Driver(resident=(key("a"),))
    for _ in range(10):
        driver.submit("a", "a")
    driver.submit("i", "b", lane=INTERACTIVE)
    driver.run(0.1)
    assert driver.loads == [key("b")]


# --- models that were never loaded ---


def test_a_model_that_was_never_loaded_goes_as_soon_as_the_turn_has_lasted_one_load_of_the_resident_ones() -> None:
    driver = Driver()
    loaded_before(driver, "a", seconds=2.0)
    for _ in range(20):
        driver.submit("a", "a")
    driver.submit("new", "new")
    driver.work(load=0.5, run=0.5)
    assert turns(driver.ran)[:3] == [("k", 1), ("a", 4), ("n", 1)]


def test_where_no_load_was_measured_it_goes_after_the_first_guess() -> None:
    driver = Driver(resident=(key("a"),))
    for _ in range(20):
        driver.submit("a", "a")
    driver.submit("new", "new")
    driver.work(load=0.5, run=0.5)
    assert turns(driver.ran)[:2] == [("a", int(2 * FIRST_GUESS)), ("n", 1)]


def test_a_model_that_was_never_loaded_goes_first_only_once() -> None:
    driver = Driver()
    loaded_before(driver, "a", seconds=1.0)
    for _ in range(40):
        driver.submit("a", "a")
        driver.submit("b", "b")
    driver.work(load=1.0, run=0.5)
    # The turn of a that b ended was short; all turns after it have their full nine seconds.
    assert turns(driver.ran)[:5] == [("k", 1), ("a", 2), ("b", 18), ("a", 18), ("b", 18)]


def test_a_model_of_which_a_load_failed_does_not_go_first_again() -> None:
    driver = Driver()
    loaded_before(driver, "a", seconds=1.0)
    for _ in range(3):
        driver.submit("a", "a")
    driver.submit("b", "b")
    driver.run(0.5)
    driver.run(0.5)
    assert driver.loads[-1] == key("b")
    driver.load(1.0, Outcome.REFUSED)
    driver.run(0.5)
    driver.wait(31.0)  # until it is no longer refused
    driver.submit("a", "a")
    driver.submit("a", "a")
    driver.submit("b", "b")
    driver.run(0.5)
    assert driver.running is not None
    assert driver.running.job.client == "a"


def test_a_model_that_was_never_loaded_does_not_go_before_a_higher_lane() -> None:
    driver = Driver(resident=(key("a"),))
    for _ in range(8):
        driver.submit("i", "a", lane=INTERACTIVE)
    driver.submit("new", "new")
    driver.work(run=1.0)
    assert turns(driver.ran) == [("i", 8), ("n", 1)]


def test_a_hold_ends_when_a_model_that_was_never_loaded_may_go() -> None:
    driver = Driver()
    loaded_before(driver, "b", "a", seconds=3.0)
    for _ in range(2):
        driver.wait(0.1)
        driver.submit("x", "a")
        driver.run(1.4)
    driver.submit("y", "new")
    assert driver.holding
    assert driver.turn.used == pytest.approx(2.8)
    driver.wait(0.21)
    assert driver.loading is not None


def test_held_time_counts_to_the_time_after_which_it_may_go() -> None:
    driver = Driver()
    loaded_before(driver, "b", "a", seconds=3.0)
    for _ in range(2):
        driver.wait(0.1)
        driver.submit("x", "a")
        driver.run(1.25)
    driver.submit("y", "b")
    assert driver.holding
    driver.wait(0.25)
    driver.submit("y", "new")
    driver.wait(0.3)
    assert driver.holding
    driver.submit("x", "a")
    assert driver.loads[-1] == key("new")


# --- holds ---


def test_the_slot_is_kept_for_a_program_that_is_about_to_ask_again() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("y", "b")
    assert driver.holding
    assert driver.free
    driver.wait(0.1)
    driver.submit("x", "a")
    assert not driver.holding
    assert driver.running is not None
    assert driver.running.job.client == "x"
    assert driver.turn.holds == 1
    assert driver.turn.held_seconds == pytest.approx(0.1)


def test_a_hold_ends_after_three_quarters_of_a_switch() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    answered = driver.now
    driver.submit("y", "b")
    while driver.holding:
        driver.wait(0.05)
    assert driver.loading is not None
    assert driver.now - answered == pytest.approx(2.25, abs=0.06)


def test_a_hold_never_lasts_longer_than_the_turn() -> None:
    driver = Driver(rules=OrderRules(turn_factor=1.0))
    looping(driver, "x", "a", run=0.7, think=0.1, times=3)
    left = driver.turn_length() - driver.turn.used
    assert 0 < left < 0.5
    driver.submit("y", "b")
    assert driver.holding
    driver.wait(left + 0.01)
    assert driver.loading is not None


def test_there_is_no_hold_after_the_turn() -> None:
    driver = Driver(rules=OrderRules(turn_factor=1.0))
    looping(driver, "x", "a", times=5)
    driver.submit("y", "b")
    assert driver.loading is not None


def test_held_time_counts_to_the_turn() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    used = driver.turn.used
    driver.submit("y", "b")
    driver.wait(0.5)
    driver.submit("x", "a")
    assert driver.turn.used == pytest.approx(used + 0.5)


def test_held_time_is_billed_to_the_client_that_was_waited_for() -> None:
    driver = Driver()
    looping(driver, "x", "a", run=2.0)
    driver.submit("y", "b")
    driver.wait(0.7)
    driver.submit("x", "a")
    for client in "xyx":
        driver.submit(client, "a")
    queue = driver.line._lanes[NORMAL].queues[key("a")]
    assert queue._clients["x"].tag == pytest.approx(0.7)


def test_held_time_is_billed_by_the_share_of_who_was_waited_for() -> None:
    driver = Driver()
    looping(driver, "x", "a", run=2.0, share=0.5)
    driver.submit("y", "b")
    driver.wait(0.7)
    driver.submit("z", "a")
    queue = driver.line._lanes[NORMAL].queues[key("a")]
    assert queue._away["x"] == pytest.approx(1.4)


def test_nobody_is_held_for_who_thinks_longer_than_it_saves() -> None:
    driver = Driver()
    looping(driver, "x", "a", think=1.6)
    driver.submit("y", "b")
    assert driver.loading is not None


def test_a_backlog_is_not_held_back_for_who_thinks_longer_than_it_runs() -> None:
    driver = Driver()
    looping(driver, "x", "a", think=0.8, run=0.5)
    driver.submit("y", "b")
    assert driver.holding
    driver.submit("y", "b")
    assert driver.loading is not None


def test_nobody_is_held_when_only_a_larger_context_is_wanted() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("y", "a", wanted_ctx=2 * FLOOR)
    assert driver.loading is not None
    assert driver.loading.key == key("a", 2 * FLOOR)


def test_an_interactive_job_is_not_held_back_for_a_program_of_a_lower_lane() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("y", "b")
    assert driver.holding
    driver.submit("i", "c", lane=INTERACTIVE)
    assert driver.loads[-1] == key("c")


def test_there_is_no_hold_while_draining() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("y", "b")
    assert driver.holding
    driver.drain()
    assert driver.loading is not None


def test_there_is_no_hold_where_it_is_switched_off() -> None:
    driver = Driver(rules=OrderRules(hold=False))
    looping(driver, "x", "a")
    driver.submit("y", "b")
    assert driver.loading is not None


def test_there_is_no_hold_for_a_key_that_is_no_longer_resident() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.wait(61.0)
    driver.submit("y", "b")
    driver.answer([])
    assert driver.loading is not None


def test_an_outage_that_comes_into_a_hold_is_not_counted_as_held() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("y", "b")
    assert driver.holding
    new = driver.submit("new", None)
    driver.wait(30.0)
    driver.probe(resolved={new.id: Resolved("b", FLOOR)})
    assert driver.loading is not None
    assert 0 < driver.turn.held_seconds <= 2.25


def test_a_job_for_the_resident_key_ends_a_hold_whoever_sent_it() -> None:
    driver = Driver()
    looping(driver, "x", "a")
    driver.submit("y", "b")
    driver.submit("z", "a")
    assert driver.running is not None
    assert driver.running.job.client == "z"


# --- fair share ---


def test_behind_three_hundred_jobs_of_one_program_another_runs_after_at_most_one_more() -> None:
    driver = Driver(resident=(key("a"),))
    for _ in range(300):
        driver.submit("m")
    for _ in range(7):
        driver.run(1.0)
    driver.submit("o")
    before = len(driver.ran)
    driver.run(1.0)
    driver.run(1.0)
    assert "o" in {name[0] for name in driver.ran[before:]}


def test_a_load_is_billed_to_who_caused_it() -> None:
    driver = Driver()
    driver.submit("x")
    for _ in range(10):
        driver.submit("x")
        driver.submit("y")
    driver.load(5.0)
    for _ in range(6):
        driver.run(1.0)
    assert turns(driver.ran)[:2] == [("x", 1), ("y", 6)]


def test_an_attempt_that_failed_is_billed_like_any_other() -> None:
    driver = Driver(resident=(key("a"),))
    driver.submit("x")
    for _ in range(10):
        driver.submit("x")
        driver.submit("y")
    driver.run(5.0, Outcome.BROKEN)
    for _ in range(5):
        driver.run(1.0)
    assert turns(driver.ran)[:2] == [("x", 1), ("y", 5)]


# --- loads are bound ---


def test_the_job_that_caused_a_load_runs_next() -> None:
    driver = Driver(resident=(key("a"),))
    low = driver.submit("b", "b", lane=BACKGROUND)
    driver.submit("n", "b")
    driver.submit("i", "a", lane=INTERACTIVE)
    driver.load()
    assert driver.running is not None
    assert driver.running.job is low


def test_only_interactive_jobs_of_the_same_key_go_before_it_and_only_a_burst_of_them() -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=3))
    driver.submit("b", "b", lane=BACKGROUND)
    for _ in range(9):
        driver.submit("i", "b", lane=INTERACTIVE)
        driver.submit("n", "b")
    driver.load()
    for _ in range(4):
        driver.run(0.1)
    assert turns(driver.ran)[:2] == [("i", 3), ("b", 1)]


def test_interactive_jobs_on_one_model_never_throw_away_the_load_of_another() -> None:
    driver = Driver(resident=(key("a"),))
    low = driver.submit("b", "b", lane=BACKGROUND)
    driver.submit("i", "a", lane=INTERACTIVE)
    driver.load()
    driver.run(1.0)
    assert driver.ran == [low.id]
    assert driver.loads == [key("b"), key("a")]


def test_if_its_caller_left_meanwhile_somebody_is_picked_anew() -> None:
    driver = Driver(resident=(key("a"),))
    gone = driver.submit("b", "b")
    other = driver.submit("i", "a", lane=INTERACTIVE)
    driver.cancel(gone)
    driver.load()
    assert driver.loading is not None
    driver.load()
    assert driver.running is not None
    assert driver.running.job is other


# --- memory ---


def test_the_line_forgets_whoever_is_gone() -> None:
    driver = Driver(room=3)
    for number in range(300):
        driver.submit(f"c{number}", f"model {number % 7}", lane=Lane(number % 3), wanted_ctx=8192 + number % 5)
        driver.work(load=0.1, run=0.1)
    line = driver.line
    assert len(line) == 0
    assert line.idle
    assert len(driver.turn.costs) == 7
    assert driver.turn.bound is None


def test_a_job_with_an_own_size_each_leaves_nothing_behind() -> None:
    driver = Driver()
    for size in range(8192, 8392):
        driver.submit("x", "a", wanted_ctx=size)
        driver.work(load=0.1, run=0.1)
    assert len(driver.turn.costs) == 1
    assert driver.line.idle


def switching(*first_runs: float) -> Driver:
    """Two models in turn, four jobs each: a load of 1 s, a first run of so long, and then half a second each."""
    driver = Driver(rules=OrderRules(hold=False))
    for first in first_runs:
        for model in "ab":
            for run in (first, 0.5, 0.5, 0.5):
                driver.submit(model, model)
                if driver.loading:
                    driver.load(1.0)
                driver.run(run)
    return driver


def test_what_every_first_run_after_a_load_loses_belongs_to_the_cost_of_the_switch() -> None:
    driver = switching(1.4, 1.4, 1.4, 1.4, 1.4)
    assert driver.switch_cost() == pytest.approx(1.9)
    assert driver.turn_length() == pytest.approx(9 * 1.9)


def test_a_long_job_is_no_cold_start() -> None:
    assert switching(0.5, 0.5, 30.0, 0.5, 30.0).switch_cost() == pytest.approx(1.0)


def test_a_cold_start_counts_no_more_than_its_load() -> None:
    assert switching(0.5, 30.0, 30.0, 30.0).switch_cost() == pytest.approx(2.0)


def test_a_late_lane_gets_its_pick_though_a_model_that_was_never_loaded_waits_in_it_too() -> None:
    driver = Driver(resident=(key("a"),), rules=OrderRules(lane_burst=2))
    for _ in range(12):
        driver.submit("x", "a")
    ready = driver.submit("y", "a", lane=Lane.BACKGROUND)
    new = driver.submit("z", "b", lane=Lane.BACKGROUND)
    for _ in range(4):
        driver.run(4.0)  # longer than a first load is taken to last, and four of them shorter than a turn
    assert ready.id in driver.ran
    driver.work()
    assert driver.error(new) is None
