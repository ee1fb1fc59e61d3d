"""Debian's Chromium, driven by Playwright: pages of it, what they complain about, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.clients.browser import FLAGS

DESKTOP = (1280, 900)
PHONE = (360, 740)
PATIENCE = 10_000
"""Milliseconds after which what should be on the page never will be."""


@contextmanager
def started(command: str) -> Iterator[Browser]:
    """The browser, for all pages of a session."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=list(FLAGS[1:]))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """A page, and what its browser had to complain about."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        """Keep warnings and errors; a refusal that the test has asked for is none."""
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def live(self) -> None:
        """Return once the line is shown."""
        expect(self.page.locator("#connection")).to_have_text("Live")

    def axe(self) -> list[str]:
        """What axe finds, with the element that it finds it in."""
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]

    def fits(self) -> bool:
        """True if nothing has to be scrolled sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@contextmanager
def open_page(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    dark: bool = False,
    calm: bool = True,
    frozen: bool = False,
) -> Iterator[Seen]:
    """A page in a profile of its own. Its clock goes on as the test says, if it is ``frozen``."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce" if calm else "no-preference",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    if frozen:
        page.clock.install(time=0)
        page.clock.pause_at(1)
    seen = Seen(page)
    page.on("console", seen.heard)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(url)
    try:
        yield seen
    finally:
        context.close()
