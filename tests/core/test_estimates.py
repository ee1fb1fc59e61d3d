"""Between which seconds a job will probably start."""

from __future__ import annotations

import pytest
from hypothesis import given

from llm_queue.core.jobs import Lane
from llm_queue.core.rules import OrderRules
from tests.core.driver import Driver, key
from tests.core.test_forecast import Step, rules, steps, work_as_usual

PICKS = 60


def between(driver: Driver, picks: int = PICKS) -> dict[str, tuple[float, float]]:
    found = driver.scheduler.estimates(driver.now, picks)
    return {job: (round(one.low, 3), round(one.high, 3)) for job, one in found.items()}


@pytest.fixture
def driver() -> Driver:
    return Driver(resident=(key("a"),))


def usual(driver: Driver, client: str, seconds: list[float], *, model: str = "a", think: float = 40.0) -> None:
    for each in seconds:
        driver.submit(client, model)
        driver.work(load=2.0, run=each)
        driver.wait(think)


def test_of_runs_of_which_nothing_is_known_nothing_is_told(driver: Driver) -> None:
    driver.submit()
    driver.submit()
    assert between(driver) == {}


def test_runs_that_always_take_as_long_make_a_narrow_range(driver: Driver) -> None:
    usual(driver, "x", [2.0] * 8)
    for _ in range(3):
        driver.submit("x")
    assert between(driver) == {"x10": (2.0, 2.0), "x11": (4.0, 4.0)}


def test_runs_that_vary_make_it_wide_and_wider_with_each_before_it(driver: Driver) -> None:
    usual(driver, "x", [1.0, 3.0] * 4)
    jobs = [driver.submit("x") for _ in range(4)]
    widths = [high - low for low, high in (between(driver)[job.id] for job in jobs[1:])]
    assert widths[0] > 1.0
    assert widths == sorted(widths)
    for number, job in enumerate(jobs[1:], start=1):
        low, high = between(driver)[job.id]
        assert low <= 2.0 * number <= high


def test_no_range_begins_before_now(driver: Driver) -> None:
    usual(driver, "x", [0.125, 9.0] * 4)
    driver.submit("x")
    job = driver.submit("x")
    assert between(driver)[job.id][0] == 0.0


def test_a_run_that_lasts_longer_than_any_before_may_end_now_or_much_later(driver: Driver) -> None:
    usual(driver, "x", [2.0] * 8)
    driver.submit("x")
    job = driver.submit("x")
    driver.wait(10.0)
    low, high = between(driver)[job.id]
    assert low == 0.0
    assert high > 5.0


def test_a_program_that_asks_again_at_once_keeps_its_turn(driver: Driver) -> None:
    usual(driver, "other", [1.0], model="b")
    usual(driver, "loop", [1.0] * 6, think=0.125)
    driver.submit("loop")
    job = driver.submit("other", "b")
    forecast = {one.job.id: one.start_in for one in driver.scheduler.forecast(driver.now, 10)}[job.id]
    assert forecast is not None
    low, high = between(driver)[job.id]
    assert low > forecast + 3.0  # the turn of 18 s is not over, and the loop goes on in it
    assert high < 18.0 + 1.0 + 3.0


def test_a_program_that_may_ask_again_or_not_makes_both_possible(driver: Driver) -> None:
    usual(driver, "other", [1.0], model="b")
    for think in (0.125, 4.0, 0.125, 4.0, 0.125, 0.125):
        usual(driver, "loop", [1.0], think=think)
    driver.submit("loop")
    job = driver.submit("other", "b")
    low, high = between(driver)[job.id]
    assert low < 4.0  # none comes, but a hold: a run and a load
    assert high > 9.0


def test_one_that_may_come_does_not_make_one_unsure_that_always_comes(driver: Driver) -> None:
    usual(driver, "other", [1.0], model="b")
    for think in (2.0, 9.0, 2.0, 2.0):
        usual(driver, "maybe", [1.0], think=think)
    usual(driver, "loop", [1.0] * 6, think=0.125)
    driver.submit("loop")
    job = driver.submit("other", "b")
    forecast = {one.job.id: one.start_in for one in driver.scheduler.forecast(driver.now, 10)}[job.id]
    assert forecast is not None
    assert between(driver)[job.id][0] > forecast + 2.0


def test_a_load_that_was_never_measured_is_hardly_known(driver: Driver) -> None:
    usual(driver, "x", [1.0] * 8)
    known, new = driver.submit("x", "a"), driver.submit("x", "new")
    low, high = between(driver)[new.id]
    assert high - low > 3.0
    assert known.id not in between(driver)


def test_those_that_are_too_far_off_are_not_told(driver: Driver) -> None:
    usual(driver, "x", [1.0] * 8)
    for _ in range(50):
        driver.submit("x")
    assert len(between(driver, 10)) == 10


def test_a_job_whose_load_is_under_way_is_told_of_its_rest(driver: Driver) -> None:
    usual(driver, "x", [1.0], model="b")
    usual(driver, "x", [1.0], model="a")
    job = driver.submit("x", "b")
    driver.wait(1.5)
    low, high = between(driver)[job.id]
    assert low <= 0.5 <= high < 2.0


def test_a_job_of_a_lane_that_waits_is_told_as_well(driver: Driver) -> None:
    for client in "xy":
        usual(driver, client, [1.0] * 8)
    driver.submit("x")
    slow, click = driver.submit("x", lane=Lane.BACKGROUND), driver.submit("y", lane=Lane.INTERACTIVE)
    found = between(driver)
    assert found[click.id][0] < found[slow.id][0]


@given(rules=rules, steps=steps)
def test_estimating_changes_nothing(rules: OrderRules, steps: list[Step]) -> None:
    drivers = []
    for looking in (True, False):
        driver = Driver(rules=rules, resident=(key("a"),))
        for step in steps:
            step(driver)
            if looking:
                found = driver.scheduler.estimates(driver.now, PICKS)
                waiting = {job.id for job in driver.scheduler.waiting_jobs()}
                assert set(found) <= waiting
                assert all(0.0 <= one.low <= one.high for one in found.values())
        work_as_usual(driver)
        drivers.append(driver)
    looked, plain = drivers
    assert looked.ran == plain.ran
    assert looked.loads == plain.loads
