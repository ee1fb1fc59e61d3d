"""JavaScript frameworks, each with the packages that it speaks to a local model with."""

from __future__ import annotations

from tests.clients.features import Client, Features


class TestAI(Features):
    clients = (
        Client("AI SDK: openai-compatible", "ai_sdk.mjs", variant="openai-compatible"),
        Client("AI SDK: openai (Responses)", "ai_sdk.mjs", variant="responses"),
    )


class TestLangChain(Features):
    clients = (
        Client("LangChain.js: openai", "langchain_chat.mjs", variant="openai"),
        Client("LangChain.js: openai (Responses)", "langchain_chat.mjs", variant="responses"),
        Client("LangChain.js: ollama", "langchain_chat.mjs", variant="ollama", address=""),
    )
