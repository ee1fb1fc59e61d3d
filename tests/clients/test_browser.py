"""A browser extension of Manifest V3 in Chromium: its service worker, and a content script in a foreign page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.alone import is_alone
from tests.clients.browser import Reports, browsing, chromium
from tests.clients.features import Client, Features, Place
from tests.e2e.conftest import Ollama, Service, until

LIFETIME = 40.0
"""Seconds: a worker that nothing keeps alive is dead after 30."""
NOT_BUILT_IN = "a browser has fetch, and no more"


@pytest.fixture(scope="module")
def reports(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    command = chromium()
    if command is None:
        pytest.skip("Chromium is not installed")
    if not is_alone():
        pytest.skip("there is no network namespace: python -m tests.clients.alone makes one where it may")
    with browsing(command, service.url, tmp_path_factory.mktemp("browser")) as reports:
        yield reports


class TestExtension(Features):
    clients = (Client("Chromium extension", "", without={"tools": NOT_BUILT_IN, "structured": NOT_BUILT_IN}),)

    @pytest.fixture(autouse=True)
    def reported(self, reports: Reports) -> None:
        self.reports = reports

    def test_plain(self, client: Client, place: Place) -> None:
        seen = self.reports.wait_for("plain")
        assert (seen["status"], seen["text"]) == (200, "Paris."), seen

    def test_stream(self, client: Client, place: Place) -> None:
        seen = self.reports.wait_for("stream")
        assert seen["text"].strip() == "token0 token1 token2 token3 token4", seen
        assert seen["pieces"] == 5, seen

    def test_wrong_model(self, client: Client, place: Place) -> None:
        seen = self.reports.wait_for("wrong")
        assert seen["status"] == 404, seen
        assert "unheard-of" in seen["error"], seen

    def test_hang_up(self, client: Client, place: Place) -> None:
        assert self.reports.wait_for("left")["status"] == 200
        until(lambda: [request["outcome"] for request in place.work("says the extension")] == ["aborted"])

    def test_a_worker_that_calls_an_api_lives_through_a_long_wait(self, place: Place) -> None:
        seen = self.reports.wait_for("kept-alive")
        assert seen.get("text") == "I have waited.", seen
        assert seen["seconds"] > LIFETIME

    def test_a_worker_that_is_waited_for_lives_through_a_long_wait(self, place: Place) -> None:
        seen = self.reports.wait_for("messaged")
        assert seen.get("text") == "You have waited.", seen
        assert seen["seconds"] > LIFETIME

    def test_a_content_script_is_refused_as_its_page_and_can_read_why(self, place: Place, ollama: Ollama) -> None:
        seen = self.reports.wait_for("refused")
        assert seen["status"] == 403, seen
        assert "LLM_QUEUE_ORIGINS" in seen["error"], seen
        assert place.work("This must not be") == []
