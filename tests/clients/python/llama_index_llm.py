"""LlamaIndex; the variant says by which of its packages: ``openai-like`` or ``ollama``."""

from __future__ import annotations

import gc
from typing import Any

from client import left, run, weather
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel


class Answer(BaseModel):
    """The answer."""

    answer: int


def connect(order: Any) -> Any:
    if order.variant == "ollama":
        from llama_index.llms.ollama import Ollama

        return Ollama(base_url=order.url, model=order.model, request_timeout=60, context_window=8192)
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        api_base=order.url,
        api_key="any",
        model=order.model,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        context_window=8192,
    )


def plain(order: Any) -> dict[str, Any]:
    return {"text": connect(order).complete(order.prompt).text}


def stream(order: Any) -> dict[str, Any]:
    pieces = [part.delta for part in connect(order).stream_chat([ChatMessage(order.prompt)]) if part.delta]
    return {"text": "".join(pieces), "pieces": len(pieces)}


def tools(order: Any) -> dict[str, Any]:
    called: list[dict[str, Any]] = []

    def noted(place: str) -> str:
        """The weather in a town."""
        called.append({"place": place})
        return weather(place)

    answer = connect(order).predict_and_call([FunctionTool.from_defaults(noted, name="weather")], order.prompt)
    return {"tool": answer.sources[0].tool_name, "arguments": called[0], "text": answer.response}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": connect(order).structured_predict(Answer, PromptTemplate(order.prompt)).model_dump()}


def leave(order: Any) -> dict[str, Any]:
    parts = connect(order).stream_chat([ChatMessage(order.prompt)])
    next(parts)
    del parts  # as when a function is left: its close() does not reach the connection, the last reference's end does
    gc.collect()
    return left()


run(plain, stream, tools, structured, leave)
