"""Commands of a terminal."""

from __future__ import annotations

import shutil

import pytest

from tests.clients.features import Client, Features
from tests.real.install_ollama import installation

BUILT = installation().binary
"""The one that ``nox -s real`` builds; one on the PATH goes first."""


class TestCurl(Features):
    clients = (Client("curl", "curl_command.py", address="/v1/chat/completions"),)


class TestLlm(Features):
    clients = (
        Client(
            "llm with llm-ollama",
            "llm_command.py",
            "llm",
            model="ollama/fake",
            address="",
            unknown="Unknown model: unheard-of",
        ),
    )


class TestOllama(Features):
    clients = (
        Client(
            "ollama run",
            "ollama_command.py",
            variant=str(BUILT.parent),
            address="",
            unknown="ollama pull",
            without={"tools": "ollama run takes none"},
        ),
    )

    @pytest.fixture(autouse=True)
    def there(self) -> None:
        if not shutil.which("ollama") and not BUILT.is_file():
            pytest.skip("there is no ollama command: nox -s real builds one")
