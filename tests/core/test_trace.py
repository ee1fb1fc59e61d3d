"""What a scheduler heard can be played again. The machine does so with all that it draws; here is what a trace says."""

from __future__ import annotations

import json

import pytest

from llm_queue.core.actions import Settle, StartAttempt
from llm_queue.core.events import AttemptEnded, Outcome, Resolved
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.trace import Step, WrongTrace, _event, _event_row, replay
from llm_queue.errors import Draining, LoadFailed, ModelNotFound, UpstreamRefused
from tests.core.driver import Driver, key


def recorded() -> list[str]:
    lines: list[str] = []
    driver = Driver(resident=(key("a"),), trace=lines)
    driver.submit("x", lane=Lane.BACKGROUND, max_wait=60.0)
    gone = driver.submit("y", "b")
    driver.run(1.0, Outcome.BROKEN, commit=True)
    driver.load(2.0)
    driver.cancel(gone)
    driver.run(0.5, Outcome.CANCELLED)
    unknown, missing = driver.submit("z", None), driver.submit("z", None)
    driver.probe(up=False)
    driver.wait(0.1)
    driver.probe(resolved={unknown.id: Resolved("c", 4096), missing.id: ModelNotFound()})
    driver.load(1.0, Outcome.REFUSED)
    driver.wait(100.0)
    driver.submit("y", "b")
    driver.answer([])
    driver.move(driver.submit("z", "c"), Lane.INTERACTIVE)
    driver.pause(unload=True)
    driver.load(1.0)
    driver.unload(error=LoadFailed(), left=(key("b"),))
    driver.resume()
    driver.drain()
    driver.stop(Draining())
    return lines


def test_a_trace_comes_out_the_same_when_it_is_played_again() -> None:
    lines = recorded()
    steps = list(replay(lines))
    assert len(steps) == len(lines) - 1
    starts = [action.job.client for step in steps for action in step.actions if isinstance(action, StartAttempt)]
    assert starts == ["x", "y", "y"]
    assert isinstance(steps[0], Step)


def test_a_job_that_may_be_tried_only_once_is_not_tried_again_in_the_replay() -> None:
    lines: list[str] = []
    driver = Driver(resident=(key("a"),), trace=lines)
    driver.submit(max_attempts=1)
    driver.run(1.0, Outcome.BROKEN)
    assert [type(action) for step in replay(lines) for action in step.actions][-1] is Settle


def test_who_has_a_larger_share_goes_first_as_often_in_the_replay() -> None:
    lines: list[str] = []
    driver = Driver(resident=(key("a"),), trace=lines)
    for _ in range(6):
        driver.submit("x", share=3.0)
        driver.submit("y")
    for _ in range(8):
        driver.run(1.0)
    started = [
        action.job.client for step in replay(lines) for action in step.actions if isinstance(action, StartAttempt)
    ]
    assert started == [name[0] for name in driver.ran]
    assert started[:8].count("x") == 6


def test_a_context_that_was_raised_after_a_refusal_is_raised_in_the_replay() -> None:
    lines: list[str] = []
    driver = Driver(resident=(key("a"),), trace=lines)
    driver.submit()
    driver.run(1.0, Outcome.REFUSED, needed_ctx=16384)
    driver.load()
    driver.run()
    starts = [action.key for step in replay(lines) for action in step.actions if isinstance(action, StartAttempt)]
    assert starts == [key("a"), key("a", 16384)]


def with_prompts() -> list[str]:
    """Two conversations of one program throw out each other's prompts, and then one is held for."""
    lines: list[str] = []
    driver = Driver(resident=(key("a"),), trace=lines)
    last = ""
    for label in [*["one"] * 3, *["two"] * 3] * 2 + ["one"] * 3:
        driver.wait(0.5 if label == last else 20.0)
        driver.submit("x", label=label)
        found = 900 if label == last else 0
        driver.run(
            3.0 + (1000 - found) / 100, prompt=PromptWork(1000, found, (1000 - found) / 100), ending=Ending.TOOLS
        )
        last = label
    driver.submit("x", label="two")
    assert driver.holding
    driver.wait(0.25)
    driver.submit("x", label="one")
    driver.submit("x", label="two")
    driver.work()
    return lines


def test_what_prompts_took_is_played_again_and_the_same_follows_from_it() -> None:
    lines = with_prompts()
    starts = [action.job for step in replay(lines) for action in step.actions if isinstance(action, StartAttempt)]
    assert [job.label for job in starts[-3:]] == ["one", "two", "two"]
    rows = [json.loads(line)["event"] for line in lines[1:]]
    ended = next(row for row in rows if row and row["is"] == "AttemptEnded")
    assert (ended["prompt"], ended["ending"]) == ([1000, 0, 10.0], "tools")


def test_a_trace_from_before_prompts_were_reported_can_still_be_played() -> None:
    old = []
    for line in recorded():
        row = json.loads(line)
        event = row.get("event") or {}
        if event.get("is") == "Submitted":
            del event["job"]["label"]
        assert "prompt" not in event
        old.append(json.dumps(row))
    assert len(list(replay(old))) == len(old) - 1


def test_each_kind_of_event_is_in_the_trace_under_its_name() -> None:
    rows = [json.loads(line) for line in recorded()[1:]]
    assert {row["event"]["is"] for row in rows if row["event"]} == {
        *("Submitted", "Left", "LoadEnded", "AttemptEnded", "ProbeEnded", "ResidentReported", "DrainBegan", "Stopped"),
        *("Moved", "Paused", "Resumed", "UnloadEnded"),
    }


def test_time_that_changes_nothing_is_not_recorded() -> None:
    lines: list[str] = []
    driver = Driver(trace=lines)
    before = len(lines)
    assert driver.scheduler.tick(driver.now) == []
    assert len(lines) == before


def test_no_message_of_an_error_is_in_a_trace() -> None:
    lines: list[str] = []
    driver = Driver(resident=(key("a"),), trace=lines)
    driver.submit()
    driver.run(1.0, Outcome.REFUSED, error=UpstreamRefused("what the upstream says of a secret prompt"))
    assert "upstream_refused" in "".join(lines)
    assert "secret" not in "".join(lines)


def test_a_trace_that_the_scheduler_would_not_answer_so_is_told_with_its_line() -> None:
    lines = recorded()
    number, line = next((number, line) for number, line in enumerate(lines, 1) if "StartLoad" in line)
    lines[number - 1] = line.replace("StartLoad", "StartAttempt")
    with pytest.raises(WrongTrace, match=f"Line {number}: "):
        list(replay(lines))


@pytest.mark.parametrize("first", ["", "{}", "[]", "no JSON", '{"trace": 99}'])
def test_what_is_no_trace_is_told_so(first: str) -> None:
    with pytest.raises(WrongTrace, match="no trace"):
        list(replay([first] if first else []))


@pytest.mark.parametrize(
    "line",
    [
        "half a li",
        "{}",
        '{"at": 1.0, "event": {"is": "Guessed"}, "actions": []}',
        '{"at": 1.0, "event": {"is": "Left", "job": "never seen", "error": "cancelled"}, "actions": []}',
    ],
)
def test_a_line_that_cannot_be_read_is_told_with_its_number(line: str) -> None:
    with pytest.raises(WrongTrace, match="Line 2 cannot be read"):
        list(replay([recorded()[0], line]))


@pytest.mark.parametrize("prompt", [None, PromptWork(900, 0, 4.5)])
@pytest.mark.parametrize("ending", [None, *Ending])
def test_what_a_prompt_took_and_how_its_answer_ended_come_out_of_a_trace(
    prompt: PromptWork | None, ending: Ending | None
) -> None:
    job = Job("id", Lane.NORMAL, "x", "a", 4096, 1, 0.0)
    event = AttemptEnded(job, Outcome.SUCCEEDED, prompt=prompt, ending=ending)
    assert _event(json.loads(json.dumps(_event_row(event))), {job.id: job}) == event
