"""The page in a real Chromium, on a stage: what it shows of each state, and what it never does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import until
from tests.page import states
from tests.page.browser import Seen
from tests.page.conftest import Open
from tests.page.stage import Stage

CANARY = '<img src=x onerror="window.canary=1"><script>window.canary=1</script>'


def rows(page: Page) -> Any:
    return page.locator("#line .rows > li")


def poisoned(value: Any) -> Any:
    """The same with the canary for every text."""
    if isinstance(value, dict):
        return {key: poisoned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one) for one in value]
    return f"{CANARY} {value}" if isinstance(value, str) else value


# --- what it shows ---


def test_one_look_tells_who_runs_who_is_next_and_why(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    now, following = seen.page.locator("#now"), seen.page.locator("#next")
    for text in ("Runs now", "Claude Code", "interactive", "granite4.1:8b, 16,384 tokens of context", "412", "38.2"):
        expect(now).to_contain_text(text)
    reason = "Interactive goes before normal and background, and its model is loaded already."
    for text in ("Next", "Open WebUI", "in 4\u201310 s", reason):
        expect(following).to_contain_text(text)
    stage.reports["job_0001"] = states.explained(states.job(1), "Its program has had the least.")
    stage.reports["job_0000"] = states.explained(states.job(0), "Nobody else waited.")
    stage.show(states.empty())
    expect(now).to_contain_text("Free")
    stage.show(states.busy(2))
    expect(now).to_contain_text("Claude Code")
    seen.page.clock.run_for(400)
    expect(now).to_contain_text("Nobody else waited.")
    expect(following).to_contain_text("Its program has had the least.")


def test_why_is_asked_once_for_what_stays_and_again_after_ten_seconds(stage: Stage, opened: Open) -> None:
    stage.reports["job_0000"] = states.explained(states.job(0), "It began at once.")
    seen = opened(stage.url, frozen=True)
    seen.live()
    seen.page.clock.run_for(399)
    stage.show(states.busy(50))
    assert stage.asked_about() == []
    seen.page.clock.run_for(1)
    expect(seen.page.locator("#now .why")).to_have_text("It began at once.")
    stage.show(states.busy(49))
    expect(seen.page.locator("#line")).to_contain_text("49 jobs wait")
    until(lambda: stage.asked_about() == ["job_0000", "job_0001"])
    stage.reports["job_0000"] = states.explained(states.job(0), "It goes on.")
    seen.page.clock.run_for(10_000)
    expect(seen.page.locator("#now .why")).to_have_text("It goes on.")


def test_why_one_is_next_is_said_only_where_it_is_plain(stage: Stage, seen: Seen) -> None:
    following = seen.page.locator("#next .because")
    stage.show(states.busy(1))
    expect(following).to_have_text("Nobody else waits.")
    over = {"turn": {"used_s": 20.5, "length_s": 20.0, "cost_s": 6.1}}
    changing = states.busy(8)
    changing["jobs"][1]["resident"] = False
    stage.show(changing | over)
    expect(following).to_contain_text("goes before normal and background, and the turn of what is loaded is over.")
    expect(seen.page.locator("#turn")).to_contain_text("Over: the model that has waited longest is next")
    stage.show(states.busy(5) | over)  # all of them for what is loaded
    expect(seen.page.locator("#turn")).to_contain_text("Used up: it goes on until somebody wants another model")
    stage.show(states.busy(5) | {"models": []})
    expect(seen.page.locator("#turn")).to_contain_text("Begins when a model is loaded")
    passed_over = states.busy(3)
    passed_over["jobs"][1]["lane"] = "background"
    stage.show(passed_over)  # by a rule that the state does not show
    expect(following).to_be_hidden()
    alike = states.busy(6)
    alike["jobs"] = [job | {"lane": "normal"} for job in alike["jobs"]]
    stage.show(alike | {"waiting": {"interactive": 0, "normal": 6, "background": 0}, "accepted": 1})
    expect(seen.page.locator("#line")).to_contain_text("6 normal")
    expect(following).to_be_hidden()


def test_the_line_is_in_the_order_of_the_forecast_with_ranges(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    first = rows(seen.page).first
    for text in ("1", "Open WebUI", "interactive", "granite4.1:8b", "in 4\u201310 s", "waited"):
        expect(first).to_contain_text(text)
    expect(rows(seen.page).nth(8)).to_contain_text("qwen3-coder:30b + load")
    lefts = seen.page.eval_on_selector_all("#line .span", "all => all.map(one => parseFloat(one.style.left))")
    assert lefts == sorted(lefts)
    assert len(set(lefts)) == len(lefts)


def test_five_thousand_who_wait_are_counted_and_few_are_drawn(stage: Stage, opened: Open) -> None:
    stage.state = states.busy(5000, listed=1001)  # more than a service lists by itself
    seen = opened(stage.url)
    seen.live()
    expect(seen.page.locator("#line")).to_contain_text("5,000 jobs wait")
    expect(rows(seen.page)).to_have_count(12)
    seen.page.get_by_role("button", name="Show the first 50").click()
    expect(rows(seen.page)).to_have_count(50)
    expect(seen.page.locator("#line")).to_contain_text("4,950 more wait behind these 50.")
    assert seen.page.evaluate("document.querySelectorAll('*').length") < 2500
    assert seen.page.title() == "(5000) llm-queue"


def test_an_empty_line_says_how_to_make_the_first_call_to_this_very_address(stage: Stage, seen: Seen) -> None:
    stage.show(states.empty())
    call = seen.page.locator("#first code")
    expect(call).to_contain_text(f"curl {stage.url}/v1/chat/completions")
    seen.page.get_by_role("button", name="Copy").click()
    expect(seen.page.get_by_role("button", name="Copied")).to_be_visible()
    assert seen.page.evaluate("navigator.clipboard.readText()") == call.text_content()
    stage.show(states.busy(1))
    expect(seen.page.locator("#first")).to_be_hidden()


@pytest.mark.parametrize(
    "used",
    [
        {"accepted": 1},
        {"remote": {"running": 1, "ended": {}}},
        {"remote": {"running": 0, "ended": {"succeeded": 1}}},
        {"finished": [states.finished(0)]},
    ],
)
def test_who_has_asked_is_not_told_how_to_ask_though_the_model_runs_elsewhere(
    stage: Stage, seen: Seen, used: dict[str, Any]
) -> None:
    stage.show(states.empty())
    expect(seen.page.locator("#first")).to_be_visible()
    stage.show(states.empty() | used)
    expect(seen.page.locator("#first")).to_be_hidden()
    expect(seen.page.locator("#finished")).to_be_visible()


def test_time_goes_on_between_two_events_and_the_turn_empties(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    now, words = seen.page.locator("#now"), seen.page.locator("#turn .words")
    expect(now).to_contain_text("10 s")
    expect(words).to_contain_text("13 s of 20 s left of granite4.1:8b")
    seen.page.clock.run_for(5_000)
    expect(now).to_contain_text("15 s")
    expect(words).to_contain_text("8 s of 20 s left")
    scale = seen.page.evaluate("new DOMMatrix(getComputedStyle(document.querySelector('.fill')).transform).a")
    assert 0.3 < scale < 0.4


def test_what_was_grows_older_though_the_line_does_not_change(stage: Stage, opened: Open) -> None:
    seen = opened(stage.url, frozen=True)
    seen.live()
    stage.show(states.busy(1) | {"lanes": {"normal": {"waits": [[0.0, 2.0, 3.0, 1]]}}})
    expect(seen.page.locator("#waits svg")).to_have_count(1)
    box = "(() => { const box = document.querySelector('#waits .band').getBBox(); return [box.x, box.width]; })()"
    assert seen.page.evaluate(box) == [295, 5]  # the last of sixty minutes
    expect(seen.page.locator("#cold li .quiet").first).to_contain_text("2 min 10 s ago")
    seen.page.clock.run_for(10_000)
    expect(seen.page.locator("#cold li .quiet").first).to_contain_text("2 min 20 s ago")
    seen.page.clock.run_for(20_000)
    assert seen.page.evaluate(box) == [pytest.approx(293.3), 5]  # it is drawn anew when it has moved by half a minute


def test_what_is_loaded_kept_read_anew_and_counted_is_shown(stage: Stage, seen: Seen) -> None:
    page = seen.page
    expect(page.locator("#models")).to_contain_text("16,384 tokens of context · 6.1 GB · all of it on the GPU")
    expect(page.locator("#models")).to_contain_text("none of it on the GPU")
    expect(page.locator("#cold")).to_contain_text("Claude Code changed its prompt at character 79")
    expect(page.locator("#cold")).to_contain_text("Zed had its prompt read anew")
    expect(page.locator("#counts")).to_contain_text("418")
    expect(page.locator("#waits svg")).to_have_count(3)
    expect(page.locator("#waits")).to_contain_text("up to")
    expect(page.locator("#programs .part")).to_have_count(6)
    expect(page.locator("#programs")).to_contain_text("2 others")
    hold = {"client": "Zed", "model": "granite4.1:8b", "until_in_s": 2.5}
    stage.show(states.busy(0) | {"slot": None, "jobs": [], "held": True, "held_for": "Zed", "hold": hold})
    expect(page.locator("#now")).to_contain_text("Kept for Zed")
    stage.show(states.busy(0) | {"slot": None, "jobs": []})
    expect(page.locator("#now")).to_contain_text("Free")
    expect(page.locator("#next")).to_contain_text("Nobody")


def test_nobody_is_told_to_start_at_once_while_others_wait_or_it_drains(stage: Stage, seen: Seen) -> None:
    now, waiting = seen.page.locator("#now"), states.busy(2)
    waiting |= {"slot": None, "jobs": waiting["jobs"][1:]}
    bypass = {"reason": "It holds a connection.", "program": None, "since_s": 1.0}
    stage.show(waiting)  # the engine is asked what it has loaded, or was busy and is left alone for a moment
    expect(now.locator(".who")).to_have_text("In a moment")
    stage.show(waiting | {"bypass": bypass})
    expect(now).to_contain_text("The engine may be busy with what comes past the line.")
    stage.show(states.empty() | {"accepted": 1, "draining": True})
    expect(now).to_contain_text("nothing new is taken")
    stage.show(states.empty() | {"accepted": 1})
    expect(now).to_contain_text("Free")


def test_work_of_less_than_a_second_is_work_and_fills_the_bar(stage: Stage, seen: Seen) -> None:
    quick = [states.program("indexer", 0.2, 0.0, 9, 0, None), states.program("reader", 0.1, 0.0, 3, 0, None)]
    stage.show(states.busy(1) | {"programs": quick})
    programs = seen.page.locator("#programs")
    for text in ("indexer", "0.2 s", "67 %", "reader", "0.1 s", "33 %"):
        expect(programs).to_contain_text(text)
    widths = "[...document.querySelectorAll('#programs .part')].reduce((sum, part) => sum + part.offsetWidth, 0)"
    assert seen.page.evaluate(f"{widths} > 0.95 * document.querySelector('#programs .stack').offsetWidth")


def test_what_is_not_as_usual_stands_above_all_else(stage: Stage, seen: Seen) -> None:
    away = states.busy(1) | {"upstream": {"name": "ollama", "url": "u", "away": "Ollama is not there."}}
    stage.show(away | {"slot": None, "draining": True})
    notices = seen.page.locator("#notices")
    expect(notices).to_contain_text("Draining.")
    expect(notices).to_contain_text("Ollama is not there.")
    expect(seen.page.get_by_role("button", name="Drain")).to_be_disabled()
    stage.show(
        states.busy(1) | {"bypass": {"reason": "It holds a connection.", "program": "llama-cli", "since_s": 1.0}}
    )
    expect(notices).to_contain_text("llama-cli asks the model past the line")
    expect(notices).not_to_contain_text("Draining.")


def test_a_job_that_has_ended_explains_itself_one_click_away(stage: Stage, seen: Seen) -> None:
    report = states.finished(3) | {"cached_tokens": 3000, "prompt_s": 1.25}
    paid = states.pick("cron", "qwen3-coder:30b", "fair_share", load_s=6.1, cold_prompt_s=2.0, hold_s=0.5)
    stage.reports["done_0003"] = states.explained(report, "It waited for a load.", picks=(paid,))
    ended = seen.page.locator("#finished .rows > li")
    expect(ended).to_have_count(6)
    ended.nth(3).locator("summary").click()
    for text in (
        "It waited for a load.",
        "cron",
        "less of the slot so far",
        "load 6.1 s, cold prompt 2.0 s, kept free 0.5 s",
    ):
        expect(ended.nth(3)).to_contain_text(text)
    for text in ("75 %", "1.3 s", "The job was cancelled."):
        expect(ended.nth(3)).to_contain_text(text)
    expect(ended.nth(3).get_by_role("button")).to_have_count(0)


def test_a_failure_is_told_once_however_often_its_row_is_opened(stage: Stage, seen: Seen) -> None:
    stage.reports["done_0003"] = states.explained(states.finished(3), "It was cancelled.")
    row = seen.page.locator("#finished .rows > li").nth(3)
    for times in range(1, 4):
        row.locator("summary").click()
        until(lambda: stage.asked_about().count("done_0003") == times)  # noqa: B023  # it is asked now
        expect(row.locator(".problem")).to_have_text("The job was cancelled.")
        row.locator("summary").click()
    stage.reports["done_0003"] |= {"error": None}
    row.locator("summary").click()
    expect(row.locator(".problem")).to_be_hidden()


def test_a_row_keeps_its_focus_and_stays_open_when_the_line_moves_on(stage: Stage, seen: Seen) -> None:
    stage.reports["job_0003"] = states.explained(states.job(3), "It waits.")
    third = rows(seen.page).nth(2)
    third.locator("summary").click()
    expect(third).to_contain_text("It waits.")
    moved = states.busy(50)
    del moved["jobs"][1:3]
    stage.show(moved)
    expect(rows(seen.page).first).to_contain_text("It waits.")
    assert seen.page.evaluate("document.activeElement.closest('li') === document.querySelector('#line .rows > li')")


@pytest.mark.parametrize("name", sorted(states.busy(2)))
def test_a_field_that_is_not_there_breaks_nothing_else(stage: Stage, seen: Seen, name: str) -> None:
    less = states.busy(2)
    del less[name]
    less["upstream"] = {"name": "the next state", "url": "u"}
    stage.show(less)
    expect(seen.page.locator("#upstream")).to_have_text("the next state at u")


def test_jobs_and_reports_of_an_older_service_are_shown_as_far_as_they_go(stage: Stage, seen: Seen) -> None:
    bare = {"job": "j", "client": "cron", "lane": "normal", "model": "m", "num_ctx": None, "wait_s": 1.0}
    state = states.busy(0)
    state["jobs"] = [state["jobs"][0] | {"tokens": None, "tokens_per_s": None, "running_s": None}, bare]
    stage.reports["j"] = bare | {"state": "queued"}
    stage.show(state | {"turn": None, "lanes": {"normal": {"waits": [[30.0, None, None, 0]]}}})
    expect(rows(seen.page)).to_have_count(1)
    expect(rows(seen.page).first).to_contain_text("start not known")
    rows(seen.page).first.locator("summary").click()
    expect(rows(seen.page).first).to_contain_text("Nothing more is known of it.")


# --- what it never does ---


def test_no_name_and_no_text_of_the_service_is_taken_for_html(stage: Stage, seen: Seen) -> None:
    stage.show(poisoned(states.busy(5)) | {"slot": states.busy(5)["slot"] | {"job": f"{CANARY} job_0000"}})
    page = seen.page
    for part in ("#upstream", "#now", "#next", "#line", "#finished", "#models", "#programs", "#cold"):
        expect(page.locator(part)).to_contain_text("<img src=x")
    report = poisoned(states.explained(states.finished(1), "s", picks=(states.pick("c", "m", "r"),), bound="b"))
    stage.reports.update({name: copy.deepcopy(report) for name in ("job_0001", "done_0000")})
    stage.show(states.busy(3) | {"bypass": poisoned({"reason": "r", "program": "p", "since_s": 1.0})})
    expect(page.locator("#notices")).to_contain_text("<img src=x")
    for part in ("#line", "#finished"):
        page.locator(f"{part} summary").first.click()
        expect(page.locator(f"{part} .sentences").first).to_contain_text("<img src=x")
    stage.answers["/queue/jobs/job_0000/cancel"] = (409, {"error": {"message": CANARY}})
    page.locator("#now").get_by_role("button").click()
    expect(page.locator("#said")).to_have_text(CANARY)
    assert page.evaluate("window.canary") is None
    assert page.locator("img:not(.name img), main script").count() == 0


def test_the_policy_holds_in_this_browser(stage: Stage, seen: Seen) -> None:
    tried = seen.page.evaluate(
        """() => new Promise((resolve) => {
            addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.canary = 1";
            document.body.append(script);
        })"""
    )
    assert tried == "script-src-elem"
    assert seen.page.evaluate("window.canary") is None
    seen.complaints = [one for one in seen.complaints if "Content Security Policy" not in one]  # this one was wanted
