"""The openai SDKs, in chat completions and in Responses."""

from __future__ import annotations

from tests.clients.features import Client, Features


class TestChat(Features):
    clients = (
        Client("openai, Python: chat", "openai_chat.py", "sdks"),
        Client("openai, Node: chat", "openai_chat.mjs"),
    )


class TestResponses(Features):
    clients = (
        Client("openai, Python: Responses", "openai_responses.py", "sdks"),
        Client("openai, Node: Responses", "openai_responses.mjs"),
    )
