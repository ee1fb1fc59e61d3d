"""What is remembered of the last hour."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_queue.core.prompts import PromptWork
from llm_queue.dispatch.history import COLD_PROMPTS, MINUTE, MINUTES, MOST_PROGRAMS, MOST_WAITS, OTHERS, SHOWN, History
from llm_queue.dispatch.moments import DrainStarted, JobEnded, PromptComputed
from llm_queue.dispatch.status import JobReport


class Told(History):
    """A history whose clock the test holds."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now)

    def end(self, wait: float = 0.0, *, client: str = "cron", lane: str = "normal", **fields: Any) -> None:
        fields = dict[str, Any](remote=msgspec.UNSET, attempts=1) | fields
        report = JobReport(
            job="j",
            request_id="r",
            client=client,
            lane=lane,
            model="m",
            num_ctx=8192,
            state="succeeded",
            wait_s=wait,
            load_s=0.0,
            run_s=0.0,
            **fields,
        )
        self(JobEnded(report, None))

    def answer(
        self, client: str, seconds: float, prompt: PromptWork | None, changed_at: tuple[int, int] | None = None
    ) -> None:
        """An attempt has ended, and this is what its prompt took."""
        self.ran(client, seconds)
        if prompt is not None:
            self(PromptComputed("j", client, "m", *prompt, prompt.cold, new=False, changed_at=changed_at))

    def waits(self, lane: str = "normal") -> tuple[tuple[float, float, float, int], ...]:
        return self.lanes()[lane].waits


@pytest.fixture
def told() -> Told:
    return Told()


def test_each_lane_has_a_row_for_each_minute_with_waits(told: Told) -> None:
    for wait in range(1, 101):
        told.end(float(wait))
    told.end(7.0, lane="interactive")
    assert told.waits() == ((0.0, 50.0, 95.0, 100),)
    assert told.waits("interactive") == ((0.0, 7.0, 7.0, 1),)
    assert told.waits("background") == ()
    told.now = 2.5 * MINUTE
    told.end(3.0)
    assert told.waits() == ((1.5 * MINUTE, 50.0, 95.0, 100), (0.0, 3.0, 3.0, 1))


def test_after_an_hour_a_minute_is_forgotten(told: Told) -> None:
    told.end(1.0)
    told.answer("cron", 2.0, None)
    told.now = MINUTE * MINUTES - 0.001
    assert len(told.waits()) == 1
    assert [one.model_s for one in told.programs()] == [2.0]
    told.now = MINUTE * MINUTES
    assert told.waits() == ()
    assert told.programs() == ()


def test_jobs_that_never_started_have_no_wait_and_remote_ones_do_not_count(told: Told) -> None:
    told.end(5.0, attempts=0)
    told.end(5.0, remote=True, client="cloud")
    told(DrainStarted(1))
    assert told.waits() == ()
    assert [(one.client, one.jobs) for one in told.programs()] == [("cron", 1)]


def test_programs_are_added_up_over_the_hour_and_the_busiest_is_first(told: Told) -> None:
    told.answer("cron", 2.0, PromptWork(1000, 900, 0.1))
    told.loaded("cron", 3.0)
    told.end(client="cron")
    told.now = 5 * MINUTE
    told.answer("cron", 1.0, PromptWork(1000, 100, 4.0))
    told.answer("editor", 9.0, None)
    editor, cron = told.programs()
    assert (editor.client, editor.model_s, editor.prompt_tokens) == ("editor", 9.0, 0)
    assert cron.as_dict() == {
        "client": "cron",
        "model_s": 3.0,
        "load_s": 3.0,
        "jobs": 1,
        "cold_prompts": 1,
        "cached_tokens": 1000,
        "prompt_tokens": 2000,
    }


def test_many_programs_are_one_row_behind_those_that_are_shown(told: Told) -> None:
    for number in range(MOST_PROGRAMS + 50):
        told.answer(f"p{number}", 1000.0 - number, None)
    rows = told.programs()
    assert [one.client for one in rows] == [*(f"p{number}" for number in range(SHOWN)), OTHERS]
    total = sum(1000.0 - number for number in range(MOST_PROGRAMS + 50))
    assert sum(one.model_s for one in rows) == pytest.approx(total)


def test_the_last_cold_prompts_are_told_the_latest_first(told: Told) -> None:
    for number in range(COLD_PROMPTS + 3):
        told.now = float(number)
        told.answer(f"p{number}", 1.0, PromptWork(100, 0, 0.5), (64, 128))
    told.answer("warm", 1.0, PromptWork(100, 99, 0.5))
    told.now += 2.0
    found = told.cold_prompts()
    assert len(found) == COLD_PROMPTS
    latest = found[0]
    assert (latest.client, latest.tokens, latest.seconds, latest.seconds_ago, latest.at_character) == (
        f"p{COLD_PROMPTS + 2}",
        100,
        0.5,
        2.0,
        64,
    )


def test_it_is_bounded_whatever_comes(told: Told) -> None:
    for number in range(3 * MOST_WAITS):
        told.end(float(number), client=f"p{number}")
    assert told.waits()[0][3] == 3 * MOST_WAITS
    for minute in range(3 * MINUTES):
        told.now = minute * MINUTE
        told.end(1.0)
    assert len(told._minutes) <= MINUTES
    assert len(told._minutes[0].work) <= MOST_PROGRAMS + 1
    assert all(not minute.waits for minute in list(told._minutes)[:-1])
