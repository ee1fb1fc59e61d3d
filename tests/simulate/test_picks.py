"""A recorded line as a table."""

from __future__ import annotations

from llm_queue.core.jobs import Lane
from llm_queue.simulate.picks import picks
from tests.core.driver import Driver


def test_every_pick_has_a_row_that_says_when_for_whom_and_after_how_long() -> None:
    lines: list[str] = []
    driver = Driver(trace=lines)
    driver.submit("editor", "large")
    driver.submit("cron", "small", lane=Lane.BACKGROUND)
    driver.wait(0.5)
    driver.work(load=2.0, run=1.0)
    assert [line.split() for line in picks(lines).splitlines()] == [
        ["start", "job", "client", "lane", "model", "waited", "load"],
        ["2.500", "editor1", "editor", "normal", "large", "2.500", "2.500"],
        ["5.500", "cron2", "cron", "background", "small", "5.500", "2.000"],
        ["2", "picks,", "the", "same", "as", "when", "they", "were", "recorded."],
    ]
