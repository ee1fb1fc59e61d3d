"""Python frameworks, each with the packages that it speaks to a local model with."""

from __future__ import annotations

from tests.clients.features import Client, Features

BY_TOOL = '!tool final_result {"answer": 42}'
"""pydantic-ai asks for structured output by a tool of this name."""


class TestLangChain(Features):
    clients = (
        Client("langchain-openai", "langchain_chat.py", "langchain", "openai"),
        Client("langchain-openai: Responses", "langchain_chat.py", "langchain", "responses"),
        Client("langchain-ollama", "langchain_chat.py", "langchain", "ollama", address=""),
    )


class TestLiteLLM(Features):
    clients = (
        Client("litellm: openai", "litellm_sdk.py", "litellm", "openai"),
        Client("litellm: ollama_chat", "litellm_sdk.py", "litellm", "ollama_chat", address=""),
        Client("litellm: anthropic", "litellm_sdk.py", "litellm", "anthropic", address=""),
    )


class TestLlamaIndex(Features):
    clients = (
        Client("llama-index: openai-like", "llama_index_llm.py", "llama-index", "openai-like"),
        Client("llama-index: ollama", "llama_index_llm.py", "llama-index", "ollama", address=""),
    )


class TestPydanticAI(Features):
    clients = (
        Client("pydantic-ai: chat", "pydantic_ai_agent.py", "pydantic-ai", "chat", structured=BY_TOOL),
        Client("pydantic-ai: Responses", "pydantic_ai_agent.py", "pydantic-ai", "responses", structured=BY_TOOL),
    )
