"""The ollama SDKs, in chat and in generate."""

from __future__ import annotations

from tests.clients.features import Client, Features

NO_TOOLS = {"tools": "generate takes no tools"}


class TestChat(Features):
    clients = (
        Client("ollama, Python: chat", "ollama_sdk.py", "sdks", address=""),
        Client("ollama, Node: chat", "ollama_sdk.mjs", address=""),
    )


class TestGenerate(Features):
    clients = (
        Client("ollama, Python: generate", "ollama_sdk.py", "sdks", "generate", address="", without=NO_TOOLS),
        Client("ollama, Node: generate", "ollama_sdk.mjs", "", "generate", address="", without=NO_TOOLS),
    )
