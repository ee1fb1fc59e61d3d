"""The page for everybody: light and dark, on a desk and on a phone, by keyboard alone, and without motion."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page import states
from tests.page.browser import DESKTOP, PHONE, Seen
from tests.page.conftest import Open
from tests.page.stage import Stage

STATES = {"empty": states.empty(), "one": states.busy(1), "fifty": states.busy(50), "many": states.busy(5000)}
LOOKS = [
    pytest.param({"size": DESKTOP, "dark": False}, id="desk-light"),
    pytest.param({"size": DESKTOP, "dark": True}, id="desk-dark"),
    pytest.param({"size": PHONE, "dark": False}, id="phone-light"),
    pytest.param({"size": PHONE, "dark": True}, id="phone-dark"),
]
INK = """(parts) => parts.map((part) => {
    const range = document.createRange();
    range.selectNodeContents(part);
    const text = range.getBoundingClientRect(), box = part.getBoundingClientRect();
    const hidden = getComputedStyle(part).overflowX === "hidden";
    return [text.left, hidden ? Math.min(text.right, box.right) : text.right, text.bottom];
})"""
"""From where to where the text of each part goes, and how far down."""


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    stage: Stage, opened: Open, look: dict[str, Any], state: str
) -> None:
    stage.state = STATES[state]
    seen = opened(stage.url, **look)
    seen.live()
    assert seen.axe() == []
    assert seen.fits()


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_where_something_is_open_or_not_as_usual(
    stage: Stage, opened: Open, look: dict[str, Any]
) -> None:
    stage.reports["job_0001"] = states.explained(
        states.job(1),
        "It has waited.",
        picks=(states.pick("Zed", "granite4.1:8b", "turn_over", load_s=2.0),),
        bound="B.",
    )
    bad = {"reason": "a load was seen that is not ours", "program": "llama-cli", "since_s": 4.0}
    stage.state = states.busy(5) | {"paused": {"since_s": 5.0, "unloaded": True}, "bypass": bad}
    seen = opened(stage.url, **look)
    seen.live()
    seen.page.locator("#line summary").first.click()
    expect(seen.page.locator("#line .sentences").first).to_have_text("It has waited.")
    assert seen.axe() == []
    assert seen.fits()
    seen.page.get_by_role("button", name="Drain").click()
    assert seen.axe() == []
    seen.page.keyboard.press("Escape")
    stage.away = True
    stage.hang_up()
    expect(seen.page.get_by_text("Not connected since")).to_be_visible()
    assert seen.axe() == []


@pytest.mark.parametrize("look", LOOKS)
def test_large_figures_stand_beside_each_other(stage: Stage, opened: Open, look: dict[str, Any]) -> None:
    long = states.busy(1)
    long["jobs"][0] |= {"tokens": 123_456, "tokens_per_s": 138.2, "running_s": 3_723.0, "first_token_s": 75.3}
    long["programs"] = [states.program("a-program-with-a-long-name.py", 35_940.0, 0.0, 12_345, 0, 1.0)]
    stage.state = long
    seen = opened(stage.url, **look)
    seen.live()
    expect(seen.page.locator("#now")).to_contain_text("1:02:0")
    for parts in ("#now dd", "#programs tbody > tr > *"):
        boxes = seen.page.eval_on_selector_all(parts, INK)
        for (_, right, bottom), (left, _, next_bottom) in pairwise([box for box in boxes if box[1] > box[0]]):
            assert right < left or bottom < next_bottom
    assert seen.fits()


def test_the_keyboard_reaches_everything_and_opens_what_opens(stage: Stage, seen: Seen) -> None:
    stage.reports["job_0001"] = states.explained(states.job(1), "Its lane goes first.")
    page, walked = seen.page, []
    for _ in range(7):
        page.keyboard.press("Tab")
        walked.append(page.evaluate("document.activeElement.innerText.trim().split('\\n')[0]"))
    assert walked[:4] == ["Skip to the line", "Pause", "Drain", "Cancel"]
    page.locator("#line summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#line .sentences").first).to_have_text("Its lane goes first.")
    for name in ("interactive", "normal", "background", "Cancel the job of Open WebUI"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
    page.get_by_role("link", name="Skip to the line").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "line"


def test_a_dialog_keeps_the_focus_and_escape_gives_it_back_and_does_nothing(stage: Stage, seen: Seen) -> None:
    page = seen.page
    page.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Pause the line?")).to_be_visible()
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "pause"
    assert stage.commands == []


def test_nothing_moves_for_those_who_want_no_motion(stage: Stage, opened: Open) -> None:
    moving = "getComputedStyle(document.querySelector('.fill')).transitionDuration"
    for calm, duration in ((True, "0s"), (False, "0.5s")):
        seen = opened(stage.url, calm=calm)
        seen.live()
        assert seen.page.evaluate(moving) == duration
