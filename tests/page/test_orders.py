"""What is ordered on the page, the key that it asks for, and what it does when nobody is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page import states
from tests.page.browser import Seen
from tests.page.conftest import Open
from tests.page.stage import Stage

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


# --- commands ---


def test_what_runs_is_cancelled_by_one_click(stage: Stage, seen: Seen) -> None:
    seen.page.get_by_role("button", name="Cancel what runs, of Claude Code").click()
    expect(seen.page.locator("#said")).to_have_text("Cancelled what Claude Code had asked.")
    assert stage.commands == [("/queue/jobs/job_0000/cancel", {})]


def test_a_job_that_waits_goes_to_another_lane_or_is_cancelled(stage: Stage, seen: Seen) -> None:
    row = seen.page.locator("#line .rows > li").first
    row.locator("summary").click()
    expect(row.get_by_role("button", name="interactive")).to_have_attribute("aria-pressed", "true")
    row.get_by_role("button", name="background").click()
    expect(seen.page.locator("#said")).to_have_text("The job of Open WebUI is background now.")
    row.get_by_role("button", name="Cancel the job of Open WebUI").click()
    expect(seen.page.locator("#said")).to_have_text("Cancelled what Open WebUI had asked.")
    assert stage.commands == [
        ("/queue/jobs/job_0001/lane", {"lane": "background"}),
        ("/queue/jobs/job_0001/cancel", {}),
    ]


@pytest.mark.parametrize(("choice", "unload"), [("Pause", False), ("Pause and free the GPU", True)])
def test_the_line_is_paused_with_or_without_the_gpu_and_resumed(
    stage: Stage, seen: Seen, choice: str, unload: bool
) -> None:
    page = seen.page
    page.locator("#pause").click()
    page.get_by_role("dialog").get_by_role("button", name=choice, exact=True).click()
    expect(page.locator("#said")).to_contain_text("Paused.")
    assert stage.commands == [("/queue/pause", {"unload": unload})]
    stage.show(states.busy(3) | {"paused": {"since_s": 1.0, "unloaded": unload}})
    expect(page.locator("#pause")).to_have_text("Resume")
    assert page.get_by_text("The GPU is free.").count() == unload
    stage.show(states.busy(3) | {"paused": {"since_s": 1.0, "unloaded": False, "kept": "Ollama said no."}})
    expect(page.locator("#notices")).to_contain_text("Something is still loaded: Ollama said no.")
    page.locator("#notices").get_by_role("button", name="Resume").click()
    expect(page.locator("#said")).to_have_text("The line goes on.")
    assert stage.commands[-1] == ("/queue/resume", {})


def test_a_drain_is_asked_about_first(stage: Stage, seen: Seen) -> None:
    page = seen.page
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("button", name="Keep as it is").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stage.commands == []
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("button", name="Drain and stop").click()
    expect(page.locator("#said")).to_contain_text("Draining.")
    assert stage.commands == [("/queue/drain", {})]


def test_a_refusal_is_shown_in_the_words_of_the_service(stage: Stage, seen: Seen) -> None:
    stage.answers["/queue/jobs/job_0000/cancel"] = (409, {"error": {"message": "It has ended already."}})
    seen.page.locator("#now").get_by_role("button").click()
    expect(seen.page.locator("#said")).to_have_text("It has ended already.")
    expect(seen.page.locator("#said")).to_have_attribute("data-bad", "true")


# --- the key ---


def test_a_key_is_asked_for_kept_in_this_tab_and_sent_with_everything(stage: Stage, opened: Open) -> None:
    stage.key = "s3cret"
    page = opened(stage.url).page
    expect(page.get_by_text("This service wants a key.")).to_be_visible()
    assert page.locator("main").is_hidden()
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Show the line").click()
    expect(page.get_by_text("That key was not taken.")).to_be_visible()
    page.get_by_label("API key").fill("s3cret")
    page.keyboard.press("Enter")
    expect(page.locator("#connection")).to_have_text("Live")
    page.locator("#now").get_by_role("button").click()
    expect(page.locator("#said")).to_contain_text("Cancelled")
    kept = page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])")
    assert json.loads(kept) == [{"llm-queue key": "s3cret"}, {}, "", f"{stage.url}/"]
    assert "s3cret" not in page.content()
    stage.show(states.empty())
    expect(page.locator("#first code")).to_contain_text("Authorization: Bearer YOUR-KEY")


# --- the connection ---


def test_a_lost_connection_is_said_since_when_and_comes_back_by_itself(stage: Stage, seen: Seen) -> None:
    page = seen.page
    stage.away = True
    stage.hang_up()
    expect(page.locator("#connection")).to_contain_text("Not connected")
    expect(page.locator("#notices")).to_contain_text("Not connected since")
    expect(page.locator("#pause")).to_be_disabled()
    expect(page.locator("#main")).to_have_attribute("data-stale", "true")
    stage.away = False
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#notices")).to_be_empty()
    expect(page.locator("#pause")).to_be_enabled()
    expect(page.locator("#drain")).to_be_enabled()
    expect(page.locator("#main")).not_to_have_attribute("data-stale", "true")
    assert stage.last_ids == [None, "0"]


def test_what_has_changed_while_it_was_not_connected_is_shown(stage: Stage, seen: Seen) -> None:
    stage.away = True
    stage.hang_up()
    expect(seen.page.locator("#connection")).to_contain_text("Not connected")
    stage.show(states.busy(7))
    stage.away = False
    seen.live()
    expect(seen.page.locator("#line")).to_contain_text("7 jobs wait")


def test_a_line_that_does_not_change_ends_the_count_of_tries(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    for _ in range(2):
        stage.away = True
        stage.hang_up()
        expect(seen.page.locator("#connection")).to_have_attribute("data-tries", "1")
        seen.page.clock.run_for(500)
        expect(seen.page.locator("#connection")).to_have_attribute("data-tries", "2")
        stage.away = False
        seen.page.clock.run_for(1000)
        seen.live()


def test_it_waits_longer_each_time_and_no_longer_than_fifteen_seconds(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    asked: list[str] = []
    seen.page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/events") else None)
    stage.away = True
    stage.hang_up()
    for tries, longest in enumerate((500, 1000, 2000, 4000, 8000, 15000, 15000), start=1):
        expect(seen.page.locator("#connection")).to_have_attribute("data-tries", str(tries))
        count = len(asked)
        seen.page.clock.run_for(int(0.74 * longest))
        assert len(asked) == count, "it asks too often"
        with seen.page.expect_response("**/queue/events"):
            seen.page.clock.run_for(int(0.27 * longest))
    assert len(asked) == tries


def test_try_now_tries_now(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    stage.hang_up()
    expect(seen.page.locator("#connection")).to_contain_text("Not connected")
    seen.page.get_by_role("button", name="Try now").click()
    seen.live()


def test_a_service_that_says_nothing_for_long_is_asked_anew(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    seen.page.clock.run_for(40_001)
    expect(seen.page.locator("#connection")).to_contain_text("Not connected")
    seen.page.clock.run_for(600)
    seen.live()


def test_a_page_that_nobody_sees_lets_its_connection_go(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    seen.page.evaluate(HIDE, True)
    seen.page.clock.run_for(5_001)
    expect(seen.page.locator("#connection")).to_have_text("Resting")
    seen.page.clock.run_for(60_000)
    assert len(stage.last_ids) == 1
    seen.page.evaluate(HIDE, False)
    seen.live()
    expect(seen.page.locator("#pause")).to_be_enabled()
    assert stage.last_ids == [None, "0"]  # nothing has changed, and no snapshot comes


# --- its words, and how it reads events ---


def run(seen: Seen, module: str, code: str) -> Any:
    return seen.page.evaluate(f"import('/ui/{module}').then((module) => {{ {code} }})")


def test_ranges_are_short_and_never_more_exact_than_they_are(seen: Seen) -> None:
    ranges = {
        (None, None): "start not known",
        (12.2, 20.4): "in 12\u201320 s",
        (0.2, 2.2): "within 3 s",
        (0.0, 0.4): "at once",
        (-3.0, 8.0): "within 8 s",
        (5.1, 5.3): "in 5 s",
        (7.0, None): "in about 7 s",
        (40.0, 130.0): "in 1\u20132 min",
        (20.0, 130.0): "within 3 min",
        (100.0, 110.0): "in about 2 min",
        (70.0, 260.0): "in 1\u20134 min",
        (3700.0, 9000.0): "in 1\u20132.5 h",
    }
    code = "return " + json.dumps(list(ranges)) + ".map(([low, high]) => module.range(low, high));"
    assert run(seen, "words.js", code) == list(ranges.values())


def test_lengths_of_time_and_sizes_have_words(seen: Seen) -> None:
    code = "return [0, 9.94, 59.6, 200, 600, 7500, null].map((value) => module.seconds(value));"
    assert run(seen, "words.js", code) == ["0.0 s", "9.9 s", "1 min", "3 min 20 s", "10 min", "2 h 5 min", "\u2013"]
    code = "return [0.84, 59.4, 59.6, 200, 3700, null].map((value) => module.figure(value));"
    assert run(seen, "words.js", code) == ["0.8 s", "59 s", "1:00", "3:20", "1:01:40", "\u2013"]
    code = "return [59.6, 61].map((value) => module.figure(value, { whole: true }));"
    assert run(seen, "words.js", code) == ["59 s", "1:01"]
    code = "return [0, 999, 1500, 6_120_000_000, 91_000_000].map(module.bytes);"
    assert run(seen, "words.js", code) == ["0 B", "999 B", "1.5 kB", "6.1 GB", "91 MB"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_the_same_wherever_the_stream_is_cut(seen: Seen, end: str) -> None:
    lines = [": here", "", "id: 7", "event: snapshot", 'data: {"a":', "data: 1}", "", "data:x", "", "event: change", ""]
    stream = end.join([*lines, "data: last", "", ""])
    code = f"""
        const stream = {json.dumps(stream)}, found = new Set();
        for (let at = 0; at <= stream.length; at += 1) {{
            const reader = new module.EventReader();
            const pieces = [stream.slice(0, at), stream.slice(at), "\\n"];
            const events = pieces.flatMap((piece) => [...reader.read(piece)]);
            found.add(JSON.stringify([events, reader.lastId]));
        }}
        return [...found];
    """
    (found,) = run(seen, "service.js", code)
    events, last_id = json.loads(found)
    assert [event["data"] for event in events] == ['{"a":\n1}', "x", "last"]
    assert [event["name"] for event in events] == ["snapshot", "message", "message"]
    assert last_id == "7"
