"""The tools of an OpenAI chat, and which of them the model may call.

Upstreams know functions alone. A custom tool, which takes text of any form, becomes a function of one text, ``input``;
its calls are turned back on the way out, and those of earlier answers on the way in.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.callers import openai_shapes as shapes
from llm_queue.wire.shapes import JsonObject, ToolChoice

INPUT: Final = "input"
"""The one argument of the function that stands for a custom tool."""


class Tools(NamedTuple):
    """Functions in OpenAI's form, how to choose among them, and the names of those that are custom tools."""

    functions: tuple[JsonObject, ...] = ()
    choice: ToolChoice | None = None
    custom: frozenset[str] = frozenset()


def tools_of(chat: shapes.ChatBody) -> Tools:
    """The tools of a request. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
    if not chat.tools and chat.functions:  # the older function calling
        for index, function in enumerate(chat.functions):
            strict_json.converted(function, shapes.Named, f"functions[{index}]")
        functions: tuple[JsonObject, ...] = tuple({"type": "function", "function": one} for one in chat.functions)
        return Tools(*_choice(chat.function_call, functions, "function_call"))
    custom: set[str] = set()
    given: list[JsonObject] = []
    for index, tool in enumerate(chat.tools or ()):
        checked = strict_json.converted(tool, shapes.Tool | shapes.CustomTool, f"tools[{index}]")
        if isinstance(checked, shapes.CustomTool):
            custom.add(checked.custom.name)
            tool = _function(checked.custom)
        given.append(tool)
    return Tools(*_choice(chat.tool_choice, tuple(given), "tool_choice"), frozenset(custom))


def arguments_of(text: str) -> str:
    """The arguments of the function that stands for a custom tool, from the text that the tool was given."""
    return msgspec.json.encode({INPUT: text}).decode()


def input_of(arguments: str) -> str:
    """The text for a custom tool, from the arguments of the function that stands for it.

    A model that did not keep to the one text gets through with what it wrote, as JSON.
    """
    said = strict_json.object_in(arguments) or {}
    if len(said) == 1 and isinstance(text := said.get(INPUT), str):
        return text
    return arguments


def _function(custom: shapes.Custom) -> JsonObject:
    function: JsonObject = {"name": custom.name}
    form = custom.format
    grammar = (
        f"The input must follow this {form.grammar.syntax} grammar:\n{form.grammar.definition}"
        if (form and form.grammar)
        else None
    )
    if said := [text for text in (custom.description, grammar) if text]:
        function["description"] = "\n\n".join(said)
    function["parameters"] = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]}
    return {"type": "function", "function": function}


def _choice(
    said: str | shapes.Choice | shapes.Named | None, tools: tuple[JsonObject, ...], field: str
) -> tuple[tuple[JsonObject, ...], ToolChoice | None]:
    """Which tools there are to choose from, and how. A word that is not known leaves the choice to the model."""
    match said:
        case "none":
            return tools, ToolChoice("none")
        case "auto":
            return tools, ToolChoice("auto")
        case "required" | "any":
            return tools, ToolChoice("required")
        case (
            shapes.Named(name=name)
            | shapes.Choice(function=shapes.Named(name=name))
            | shapes.Choice(custom=shapes.Named(name=name))
        ):
            if all(tool["function"]["name"] != name for tool in tools):
                raise BadRequest(f"{field}: there is no tool of the name {name[:100]!r}.", param=field)
            return tools, ToolChoice("function", name)
        case shapes.Choice(allowed_tools=shapes.AllowedTools(mode=mode, tools=allowed)):
            named = [one.function or one.custom for one in allowed or ()]
            names = {one.name for one in named if one is not None}
            left = tuple(tool for tool in tools if tool["function"]["name"] in names)
            return left, ToolChoice("required" if mode == "required" else "auto")
        case _:
            return tools, None
