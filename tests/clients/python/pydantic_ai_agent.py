"""pydantic-ai; the variant is its kind of model: ``chat`` or ``responses``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from client import left, run, weather
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Answer(BaseModel):
    answer: int


def connect(order: Any, **more: Any) -> Any:
    kind = OpenAIResponsesModel if order.variant == "responses" else OpenAIChatModel
    return Agent(kind(order.model, provider=OpenAIProvider(base_url=order.url, api_key="any")), **more)


def plain(order: Any) -> dict[str, Any]:
    return {"text": connect(order).run_sync(order.prompt).output}


def stream(order: Any) -> dict[str, Any]:
    async def read() -> list[str]:
        async with connect(order).run_stream(order.prompt) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None) if piece]

    pieces = asyncio.run(read())
    return {"text": "".join(pieces), "pieces": len(pieces)}


def tools(order: Any) -> dict[str, Any]:
    result = connect(order, tools=[weather]).run_sync(order.prompt)
    call = next(part for part in result.all_messages()[1].parts if part.part_kind == "tool-call")
    arguments = json.loads(call.args) if isinstance(call.args, str) else call.args
    return {"tool": call.tool_name, "arguments": arguments, "text": result.output}


def structured(order: Any) -> dict[str, Any]:
    return {"structured": connect(order, output_type=Answer).run_sync(order.prompt).output.model_dump()}


def leave(order: Any) -> dict[str, Any]:
    async def begin() -> None:
        async with connect(order).run_stream(order.prompt) as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                break
        await asyncio.to_thread(left)

    asyncio.run(begin())
    return {}


run(plain, stream, tools, structured, leave)
