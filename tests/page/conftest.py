"""One browser for all, and a page of the stage, or of a real service, for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.clients.browser import chromium
from tests.page import states
from tests.page.browser import Seen, open_page, started
from tests.page.stage import Stage, playing

Open = Callable[..., Seen]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, default=None, help="the folder in which the pictures of the docs are")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    command = chromium()
    if command is None:
        pytest.fail("There is no Chromium here. Debian has it in the package chromium.")
    with started(command) as browser:
        yield browser


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage on which fifty jobs wait."""
    with playing(Stage(states.busy(50))) as stage:
        yield stage


@contextmanager
def no_complaints(seen: Seen) -> Iterator[Seen]:
    yield seen
    assert seen.complaints == []


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens an address; at the end no page may have had anything to complain about."""
    with ExitStack() as pages:

        def open_one(url: str, **how: Any) -> Seen:
            return pages.enter_context(no_complaints(pages.enter_context(open_page(browser, url, **how))))

        yield open_one


@pytest.fixture
def seen(opened: Open, stage: Stage) -> Seen:
    """The stage, seen on a desk, with its line on it."""
    seen = opened(stage.url)
    seen.live()
    return seen
