"""What is tried with each client, the same with all; one class per family of clients inherits it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients.alone import is_alone
from tests.clients.install import Installed
from tests.clients.order import Order, Running
from tests.e2e.conftest import Ollama, Service, until

FEATURES = ("plain", "stream", "tools", "structured", "wrong model", "hang up")
"""The columns of the table, in its order."""


@dataclass(frozen=True)
class Client:
    """One client: a row of the table.

    ``script`` lies in ``tests/clients/python`` or ``tests/clients/node``; ``environment`` is the Python environment
    that it runs in; ``address`` is what stands behind the service's URL in its settings; ``without`` names features
    that it does not have, and why. ``structured`` is what the model is told where structured output is asked for by a
    tool instead of a schema, and ``calls`` what it is told so that it calls the client's tool. ``unknown`` is a pattern
    of what its user reads about the model ``unheard-of``. An ``agent`` is a command among the Node clients that would
    talk to its vendor, so it runs only where nobody can be reached.
    """

    name: str
    script: str
    environment: str = ""
    variant: str = ""
    address: str = "/v1"
    structured: str = "What is the answer?"
    model: str = "fake"
    calls: str = '!tool weather {"place": "Paris"}'
    unknown: str = r"(?s)(?=.*unheard-of).*not found"
    agent: bool = False
    without: dict[str, str] = field(default_factory=dict)

    def command(self, installed: Installed) -> list[str]:
        """What starts it. Skips the test where it is not installed, or could reach others that it must not."""
        if self.agent:
            installed.node()
            if not is_alone():
                pytest.skip("there is no network namespace: python -m tests.clients.alone makes one where it may")
        if self.script.endswith(".mjs"):
            return [*installed.node(), str(installed.node_folder / self.script)]
        return [str(installed.python(self.environment)), str(Path(__file__).parent / "python" / self.script)]


class Place:
    """A service in front of a fake Ollama, and a folder for what a client writes."""

    def __init__(self, ollama: Ollama, service: Service, installed: Installed, folder: Path) -> None:
        self.ollama = ollama
        self.service = service
        self.installed = installed
        self._folder = folder

    def start(self, client: Client, feature: str, prompt: str, model: str | None = None) -> Running:
        """Start the client with something to do."""
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        url = self.service.url + client.address
        order = Order(feature, url, model or client.model, prompt, str(home), client.variant)
        return Running(client.command(self.installed), order, self._folder / "log", self.installed.node_commands)

    def ask(self, client: Client, feature: str, prompt: str, model: str | None = None) -> dict[str, Any]:
        """What the client says in the end."""
        with self.start(client, feature, prompt, model) as running:
            return running.answer()

    def work(self, mark: str) -> list[dict[str, Any]]:
        """The model work upstream whose prompt has this in it."""
        return [request for request in self.ollama.work() if mark in request["prompt"]]

    def idle(self) -> bool:
        """True if nothing runs upstream and nobody is in line."""
        line = self.service.line()
        return self.ollama.log()["in_flight"] == 0 and line["slot"] is None and not any(line["waiting"].values())


class Features:
    """One test for each feature. ``clients`` are those that each test runs with."""

    clients: tuple[Client, ...] = ()

    def test_plain(self, client: Client, place: Place) -> None:
        said = place.ask(client, "plain", "!say Paris is the capital.")
        assert said.get("text") == "Paris is the capital.", said

    def test_stream(self, client: Client, place: Place) -> None:
        said = place.ask(client, "stream", "!slow 0.05 !tokens 5 go")
        assert said.get("text", "").strip() == "token0 token1 token2 token3 token4", said
        assert said["pieces"] >= 3, said

    def test_tools(self, client: Client, place: Place) -> None:
        said = place.ask(client, "tools", client.calls)
        assert "sunny in Paris" in said.get("text", ""), said
        assert "Paris" in json.dumps(said["arguments"]), said

    def test_structured(self, client: Client, place: Place) -> None:
        said = place.ask(client, "structured", client.structured)
        assert said.get("structured") == {"answer": 42}, said

    def test_wrong_model(self, client: Client, place: Place) -> None:
        said = place.ask(client, "plain", "Hello?", model="unheard-of")
        assert re.search(client.unknown, said.get("error", "")), said

    def test_hang_up(self, client: Client, place: Place) -> None:
        mark = uuid.uuid4().hex
        with place.start(client, "leave", f"!slow 0.1 !tokens 1000 go {mark}") as running:
            said = running.answer()
            assert said == {"left": True}, said
            until(lambda: [request["outcome"] for request in place.work(mark)] == ["aborted"])
            until(place.idle)
            assert place.service.chat("!say next").json()["choices"][0]["message"]["content"] == "next"


def feature_of(test: Callable[..., Any] | str) -> str:
    """The column that a test fills."""
    name = test if isinstance(test, str) else test.__name__
    return name.removeprefix("test_").replace("_", " ")


def missing(client: Client, feature: str) -> None:
    """Skip what the client does not have."""
    if feature in client.without:
        pytest.skip(f"{client.name}: {client.without[feature]}")
