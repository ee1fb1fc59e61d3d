"""The page on OpenAI's dialect shows what a model is told of a call that it must make, word by word."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

from llm_queue.wire.shapes import ChatRequest, JsonObject, Message, ToolChoice
from llm_queue.wire.upstreams.ollama_request import chat_body

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "openai.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("### Calls that must be made\n")[2].partition("\n##")[0]

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: JsonObject = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather of a city.", "parameters": CITY},
}
TIME: JsonObject = {"type": "function", "function": {"name": "time"}}


def told(*tools: JsonObject) -> str:
    request = ChatRequest("m", (Message("user", "hi"),), tools=tools, tool_choice=ToolChoice("required"))
    text: str = json.loads(chat_body(request, 1))["messages"][0]["content"]
    return text


def test_what_the_model_is_told_is_what_the_page_shows() -> None:
    shown = [textwrap.dedent(block).strip() for block in re.findall(r"```text\n(.*?)```", SECTION, re.DOTALL)]
    assert shown == [told(WEATHER), told(WEATHER, TIME)]
