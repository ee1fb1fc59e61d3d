"""The page of a real service in a real Chromium: what really runs and waits, orders that are carried out, pictures."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.conftest import Ollama, Service, start_ollama, start_service, until
from tests.page import states
from tests.page.browser import PHONE, Seen
from tests.page.conftest import Open
from tests.page.crowd import LONG, MODELS, Crowd, have_history
from tests.page.stage import Stage

__all__ = ["start_ollama", "start_service"]

Start = Callable[..., Service]
MOST_BYTES = 150_000
"""Of a picture: the documents stay small."""
WIDE = (1280, 860)


@pytest.fixture
def ollama(start_ollama: Callable[..., Ollama]) -> Ollama:
    models = [word for model in MODELS for word in ("--model", model)]
    cache = ("--kept-prompts", "4", "--prompt-token-seconds", "0.0005")
    return start_ollama(*models, *cache, "--load-seconds", "0.4", "--token-seconds", "0.01")


@pytest.fixture
def service(start_service: Start) -> Service:
    return start_service("--max-waiting", "6000", environ={"OLLAMA_MODEL": MODELS[0]})


@pytest.fixture
def crowd(service: Service) -> Iterator[Crowd]:
    with Crowd(service) as crowd:
        yield crowd


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Seen, str], None]:
    """Takes a picture for the docs, if they are to be written."""
    folder: Path | None = request.config.getoption("--pictures")

    def take(seen: Seen, name: str) -> None:
        seen.page.mouse.move(0, 0)
        data = small(seen.page.screenshot())
        assert len(data) < MOST_BYTES
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(data)

    return take


def small(picture: bytes) -> bytes:
    """The same picture with a palette of its own: a third of the bytes, and nobody sees it."""
    shrunk = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as whole:
        whole.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(shrunk, "PNG", optimize=True)
    return shrunk.getvalue()


def seen_at(opened: Open, url: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> Seen:
    seen = opened(url, size=size, dark=dark)
    seen.live()
    return seen


@pytest.mark.parametrize("waiting", [0, 1, 50, 5000])
def test_it_shows_what_runs_and_who_waits(
    service: Service, crowd: Crowd, opened: Open, picture: Callable[[Seen, str], None], waiting: int
) -> None:
    if waiting:
        have_history(service)
        crowd.run_one()
        crowd.wait(waiting)
    seen = seen_at(opened, service.url)
    page = seen.page
    if waiting:
        counted = f"{waiting:,} jobs wait" if waiting > 1 else "1 job waits"
        expect(page.locator("#now .who")).to_have_text("Claude Code")
        expect(page.locator("#line")).to_contain_text(counted)
        first = next(job for job in service.line()["jobs"] if job["place"] == 1)
        expect(page.locator("#next .who")).to_have_text(first["client"])
        expect(page.locator("#now .why")).to_contain_text("It runs now")
        expect(page.locator("#next .why")).to_contain_text("Claude Code runs")
        expect(page.locator("#models")).to_contain_text(MODELS[0])
        expect(page.locator("#programs .part")).to_have_count(6)
        expect(page.locator("#waits svg")).to_have_count(3)
        expect(page.locator("#cold")).to_contain_text("nightly-index.py changed its prompt at character")
        expect(page.locator("#finished .rows > li")).to_have_count(6)
    else:
        expect(page.locator("#first code")).to_contain_text(f"curl {service.url}/v1/chat/completions")
    assert page.evaluate("document.querySelectorAll('*').length") < 2500
    assert seen.axe() == []
    if waiting:  # it may be another one's turn by now, who is asked about anew
        expect(page.locator("#next .why")).to_contain_text("Claude Code runs")
    picture(seen, f"page-{waiting}")
    if waiting == 50:
        for name, size, dark in (("page-50-dark", WIDE, True), ("page-50-phone", PHONE, False)):
            other = seen_at(opened, service.url, size, dark=dark)
            expect(other.page.locator("#next .why")).to_contain_text("Claude Code runs")
            expect(other.page.locator("#now .why")).to_contain_text("It runs now")
            picture(other, name)
        page.locator("#line summary").nth(3).click()
        expect(page.locator("#line .sentences").nth(3)).to_contain_text("It has waited")
        page.locator("#line").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('#line').scrollIntoView()")
        picture(seen, "page-why")


def test_an_hour_of_work_in_a_picture(stage: Stage, opened: Open, picture: Callable[[Seen, str], None]) -> None:
    stage.reports["job_0000"] = states.explained(states.job(0), "It runs now, and had waited 2.1 s.")
    stage.reports["job_0001"] = states.explained(
        states.job(1), "It has waited 4.0 s, and nothing has gone before it; now a job of Claude Code runs."
    )
    seen = seen_at(opened, stage.url, (1280, 1180))
    expect(seen.page.locator("#next .why")).to_contain_text("It has waited")
    picture(seen, "page-hour")


def test_the_first_call_works_as_it_is_shown_and_is_seen(service: Service, opened: Open) -> None:
    seen = seen_at(opened, service.url)
    call = seen.page.locator("#first code").text_content()
    assert call is not None
    told = subprocess.run(["sh", "-c", call.replace("curl", "curl --silent", 1)], capture_output=True, text=True)
    assert "The fake Ollama answers" in told.stdout, told
    expect(seen.page.locator("#first")).to_be_hidden()
    ended = seen.page.locator("#finished .rows > li")
    expect(ended).to_have_count(1)
    ended.locator("summary").click()
    expect(ended.locator(".sentences")).to_contain_text("It ")


def test_its_buttons_do_what_they_say(service: Service, crowd: Crowd, opened: Open) -> None:
    crowd.run_one()
    crowd.ask("cron", "background", MODELS[0])
    until(lambda: service.waiting() == 1)
    seen = seen_at(opened, service.url)
    page = seen.page
    row = page.locator("#line .rows > li").first
    row.locator("summary").click()
    row.get_by_role("button", name="interactive").click()
    expect(row.locator(".lane")).to_have_text("interactive")
    assert service.line()["waiting"] == {"interactive": 1, "normal": 0, "background": 0}
    page.locator("#pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#notices")).to_contain_text("Nothing starts until")
    page.locator("#now").get_by_role("button").click()
    expect(page.locator("#now .who")).to_have_text("Paused")
    page.locator("#notices").get_by_role("button", name="Resume").click()
    expect(page.locator("#now .who")).to_have_text("cron")
    page.locator("#now").get_by_role("button").click()
    expect(page.locator("#now .who")).to_have_text("Free")
    expect(page.locator("#finished .outcome").first).to_have_text("cancelled")
    page.get_by_role("button", name="Drain").click()
    page.get_by_role("button", name="Drain and stop").click()
    assert service.wait() == 0
    expect(page.locator("#connection")).to_contain_text("Not connected")


def test_a_program_may_have_any_name_and_the_page_shows_it_as_it_is(
    service: Service, crowd: Crowd, opened: Open
) -> None:
    name = '<img src=x onerror="window.canary=1">'
    crowd.ask(name, "interactive", MODELS[0])
    until(lambda: service.line()["slot"])
    crowd.ask(name, "normal", MODELS[0], LONG)
    seen = seen_at(opened, service.url)
    expect(seen.page.locator("#now .who")).to_have_text(name)
    expect(seen.page.locator("#line .client").first).to_have_text(name)
    assert seen.page.evaluate("window.canary") is None


def test_with_keys_nothing_is_shown_without_one_and_all_with_it(start_service: Start, opened: Open) -> None:
    keyed = start_service(environ={"OLLAMA_MODEL": MODELS[0], "LLM_QUEUE_API_KEYS": "desk=s3cret"})
    page = opened(keyed.url).page
    expect(page.get_by_text(re.compile("wants a key"))).to_be_visible()
    assert page.locator("main").is_hidden()
    page.get_by_label("API key").fill("s3cret")
    page.keyboard.press("Enter")
    expect(page.locator("#now .who")).to_have_text("Free")
