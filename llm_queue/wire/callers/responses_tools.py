"""Tools of the Responses dialect, as the functions that models know, and back from a call to the tool that is meant.

A function stays one. A custom tool, which takes any text, becomes a function with one argument, ``input``. The tools of
a namespace become functions with the namespace's name in front. Tools that OpenAI would run itself (a web search, a
sandbox) are not here, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from llm_queue.errors import BadRequest
from llm_queue.wire import strict_json
from llm_queue.wire.callers import responses_shapes as shapes
from llm_queue.wire.callers.openai_tools import INPUT
from llm_queue.wire.shapes import JsonObject, ToolChoice

NAMESPACE_SEPARATOR: Final = "__"
"""Between a namespace and a name: every engine's rules for names allow it, which a dot is not."""

_NO_PARAMETERS: Final[JsonObject] = {"type": "object", "properties": {}}


class Tool(Struct, frozen=True):
    """One tool as the caller knows it, and the function that stands for it."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str | None
    function: JsonObject

    @property
    def flat(self) -> str:
        """The name that the model knows."""
        return flat_name(self.name, self.namespace)

    @property
    def chat(self) -> JsonObject:
        """In the form of :attr:`~llm_queue.wire.shapes.ChatRequest.tools`."""
        return {"type": "function", "function": self.function}


class ToolBox(Struct, frozen=True):
    """All tools of one request.

    ``by_name`` has them by the name that the model knows; ``kept`` is what the caller sent of them, and ``dropped``
    names those that were left out.
    """

    by_name: dict[str, Tool]
    kept: tuple[JsonObject, ...]
    dropped: tuple[str, ...]


def flat_name(name: str, namespace: str | None) -> str:
    """The name of a tool as the model knows it."""
    return f"{namespace}{NAMESPACE_SEPARATOR}{name}" if namespace else name


def tools_of(given: list[JsonObject]) -> ToolBox:
    """The tools that can be used. Raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong."""
    by_name: dict[str, Tool] = {}
    kept: list[JsonObject] = []
    dropped: list[str] = []
    for index, tool in enumerate(given):
        place = f"tools[{index}]"
        for one in _known(tool, place):
            if isinstance(one, str):
                dropped.append(one)
                continue
            if one.flat in by_name:
                raise BadRequest(f"{place}: there is another tool of the name {one.flat[:100]!r}.", param=place)
            by_name[one.flat] = one
        if tool.get("type") in ("function", "custom", "namespace"):
            kept.append(tool)
    return ToolBox(by_name, tuple(kept), tuple(dropped))


def _known(tool: JsonObject, place: str, namespace: str | None = None, about: str = "") -> Iterator[Tool | str]:
    """The tool, or those of a namespace; of what is left out, its type."""
    match tool.get("type"):
        case "function":
            function = strict_json.converted(tool, shapes.FunctionTool, place)
            body: JsonObject = {"name": flat_name(function.name, namespace)}
            if description := function.description or about:
                body["description"] = description
            body["parameters"] = function.parameters or _NO_PARAMETERS
            if function.strict is not None:
                body["strict"] = function.strict
            yield Tool("function", function.name, namespace, body)
        case "custom":
            custom = strict_json.converted(tool, shapes.CustomTool, place)
            yield Tool("custom", custom.name, namespace, _wrapped(custom, namespace, about))
        case "namespace" if namespace is None:
            group = strict_json.converted(tool, shapes.NamespaceTool, place)
            for index, inner in enumerate(group.tools):
                yield from _known(inner, f"{place}.tools[{index}]", group.name, group.description or "")
        case kind:
            yield str(kind)


def _wrapped(custom: shapes.CustomTool, namespace: str | None, about: str) -> JsonObject:
    """A function that takes the input of a custom tool. A grammar can only be told: nobody here enforces one."""
    rule = "The input of the tool, as plain text."
    if custom.format is not None and custom.format.definition:
        syntax = f"{custom.format.syntax} " if custom.format.syntax else ""
        rule = f"The input of the tool. It must follow this {syntax}grammar:\n{custom.format.definition}"
    parameters = {
        "type": "object",
        "properties": {INPUT: {"type": "string", "description": rule}},
        "required": [INPUT],
    }
    body: JsonObject = {"name": flat_name(custom.name, namespace)}
    if description := custom.description or about:
        body["description"] = description
    return body | {"parameters": parameters}


# --- which of them may be called --------------------------------------------------------------------------------------


def choice_of(said: str | shapes.Choice | None, box: ToolBox) -> tuple[list[Tool], ToolChoice | None]:
    """The tools that are left to choose from, and how. A tool that is not here leaves the choice to the model.

    Raises :class:`~llm_queue.errors.BadRequest` for a function or a custom tool that there is not.
    """
    every = list(box.by_name.values())
    match said:
        case "none":
            return every, ToolChoice("none")
        case "auto":
            return every, ToolChoice("auto")
        case "required":
            return every, ToolChoice("required")
        case shapes.Choice(type="function" | "custom", name=name):
            found = [tool for tool in every if name in (tool.name, tool.flat)]
            if not found:
                raise BadRequest(
                    f"tool_choice: there is no tool of the name {(name or '')[:100]!r}.", param="tool_choice"
                )
            return every, ToolChoice("function", found[0].flat)
        case shapes.Choice(type="allowed_tools", mode=mode, tools=allowed):
            left = [tool for tool in every if any(_allows(one, tool) for one in allowed or ())]
            return left, ToolChoice("required" if mode == "required" else "auto")
        case _:
            return every, None


def _allows(allowed: shapes.AllowedTool, tool: Tool) -> bool:
    if allowed.type == "namespace":
        return allowed.name == tool.namespace
    return allowed.name in (tool.name, tool.flat)
