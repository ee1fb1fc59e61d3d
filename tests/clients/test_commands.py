"""Commands of a terminal."""

from __future__ import annotations

from tests.clients.features import Client, Features


class TestCurl(Features):
    clients = (Client("curl", "curl_command.py", address="/v1/chat/completions"),)


class TestLlm(Features):
    clients = (
        Client(
            "llm with llm-ollama", "llm_command.py", "llm", model="ollama/fake", address="", unknown="Unknown model"
        ),
    )
