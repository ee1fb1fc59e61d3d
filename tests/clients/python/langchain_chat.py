"""LangChain; the variant says by which of its packages: ``openai``, ``responses`` or ``ollama``."""

from __future__ import annotations

from typing import Any

from client import left, run, weather
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel


class Answer(BaseModel):
    """The answer."""

    answer: int


def connect(order: Any) -> Any:
    if order.variant == "ollama":
        from langchain_ollama import ChatOllama

        return ChatOllama(base_url=order.url, model=order.model)
    from langchain_openai import ChatOpenAI

    responses = order.variant == "responses"
    return ChatOpenAI(base_url=order.url, api_key="any", model=order.model, use_responses_api=responses)


def plain(order: Any) -> dict[str, Any]:
    return {"text": connect(order).invoke(order.prompt).text}


def stream(order: Any) -> dict[str, Any]:
    pieces = [chunk.text for chunk in connect(order).stream(order.prompt) if chunk.text]
    return {"text": "".join(pieces), "pieces": len(pieces)}


def tools(order: Any) -> dict[str, Any]:
    model = connect(order).bind_tools([tool(weather)])
    question = HumanMessage(order.prompt)
    first = model.invoke([question])
    (call,) = first.tool_calls
    second = model.invoke([question, first, ToolMessage(weather(**call["args"]), tool_call_id=call["id"])])
    return {"tool": call["name"], "arguments": call["args"], "text": second.text}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": connect(order).with_structured_output(Answer).invoke(order.prompt).model_dump()}


def leave(order: Any) -> dict[str, Any]:
    chunks = connect(order).stream(order.prompt)
    next(chunk for chunk in chunks if chunk.text)
    chunks.close()
    return left()


run(plain, stream, tools, structured, leave)
