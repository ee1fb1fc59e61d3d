"""The line as a screen: what stands where, and what does not fit."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.terminal.paper import Paper, width_of
from llm_queue.terminal.screen import screen, span, starts
from llm_queue.terminal.shapes import JobView, Paused, Queue
from tests.terminal.desks import LINE


def queue(**fields: Any) -> Queue:
    return msgspec.json.decode(json.dumps({**LINE, **fields}), type=Queue)


def shown(line: Queue, **paper: Any) -> str:
    sheet = Paper(**paper)
    return sheet.lines(screen(line, "http://127.0.0.1:11500", sheet))


def test_it_tells_who_runs_who_is_next_and_when() -> None:
    rows = shown(queue()).splitlines()
    (runs,) = [row for row in rows if "▶" in row]
    assert "Claude Code" in runs
    assert "212 tokens, 31/s" in runs
    (following,) = [row for row in rows if " 1 Hd8_wP" in row]
    assert "interactive" in following
    assert "in 2.1 to 9.4 s" in following
    assert "and 39 more" in shown(queue())


def test_it_tells_what_is_loaded_the_turn_and_the_bypass() -> None:
    text = shown(queue())
    assert "qwen3-coder:30b 32768 20.0 GiB" in text
    assert "7.5 s of 20 s left" in text
    assert "a model was loaded past the line, by /usr/local/bin/ollama" in text
    assert "from character 79 on: 22 s" in text


def test_what_an_older_service_does_not_say_is_left_out() -> None:
    older = {name: LINE[name] for name in ("upstream", "waiting", "jobs", "loads", "ended")}
    older["jobs"] = [{**LINE["jobs"][0], "tokens": None}, {**LINE["jobs"][2], "starts_in_low_s": None}]
    text = shown(msgspec.json.decode(json.dumps(older), type=Queue))
    assert "runs" in text
    assert "in 21 s" in text
    for word in ("loaded", "turn", "hour", "bypass"):
        assert word not in text


def test_an_empty_line_says_how_to_make_the_first_call() -> None:
    assert "llm-queue ask" in shown(Queue())


def test_a_pause_a_drain_and_an_outage_are_said_first() -> None:
    assert "paused" in shown(queue(paused={"since_s": 5.0, "unloaded": False})).splitlines()[2]
    assert "all models unloaded" in shown(queue(paused={"since_s": 5.0, "unloaded": True})).splitlines()[2]
    assert "still loaded: it decides" in shown(queue(paused={"since_s": 5.0, "unloaded": False, "kept": "it decides"}))
    assert "no new work" in shown(queue(draining=True)).splitlines()[2]
    assert "Ollama is not there" in shown(queue(upstream={"name": "Ollama", "away": "Ollama is not there"}))


def test_a_hold_says_for_whom_and_for_how_long() -> None:
    hold = {"client": "Claude Code", "model": "m", "until_in_s": 2.5}
    assert "Claude Code is about to ask again: the slot is kept free for 2.5 s more" in shown(queue(hold=hold))
    assert "cron is about to ask again" in shown(queue(held=True, held_for="cron"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"place": 0, "state": "loading"}, "its model loads"),
        ({"place": 0, "state": "running"}, "runs"),
        ({"place": 0, "state": "running", "running_s": 2.0}, "runs 2.0 s"),
        ({"place": 0, "state": "running", "tokens": 1}, "1 token"),
        ({"place": 1, "starts_in_s": 0.0}, "next"),
        ({"place": 2, "resident": False}, "needs a load"),
        ({"place": 2}, ""),
    ],
)
def test_the_last_column_says_how_far_a_job_is(fields: dict[str, Any], said: str) -> None:
    assert starts(JobView(**fields), Queue()) == said


def test_nothing_starts_while_the_line_is_paused() -> None:
    assert starts(JobView(place=1, starts_in_s=3.0), Queue(paused=Paused())) == "paused"


def test_a_range_is_as_short_as_it_is_exact() -> None:
    assert [span(1.0, 1.04), span(1.0, 9.0), span(8.0, 40.0), span(60.0, 600.0)] == [
        "1.0 s",
        "1.0 to 9.0 s",
        "8 to 40 s",
        "1 to 10 min",
    ]


@given(st.integers(10, 60), st.integers(40, 200), st.integers(0, 50))
def test_it_fits_every_terminal(height: int, width: int, jobs: int) -> None:
    rows = [{**LINE["jobs"][3], "place": place} for place in range(jobs)]
    paper = Paper(width=width, height=height)
    lines = paper.lines(screen(queue(jobs=rows), "http://127.0.0.1:11500", paper)).split("\n")
    assert len(lines) < height
    assert max(map(width_of, lines)) <= width


def test_the_last_hour_gives_way_to_the_jobs() -> None:
    assert "hour" not in shown(queue(), height=20)
    assert "hour" in shown(queue(), height=40)


def test_what_is_not_loaded_has_no_turn() -> None:
    turn = {"used_s": 1.0, "length_s": 20.0, "cost_s": 3.0}
    assert "turn" in shown(queue(turn=turn))
    assert "turn" not in shown(queue(turn=turn, models=[]))
