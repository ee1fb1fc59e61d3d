"""Tools of the Responses dialect, and the functions that stand for them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_queue.errors import BadRequest
from llm_queue.wire.callers.openai_tools import arguments_of, input_of
from llm_queue.wire.callers.responses_shapes import AllowedTool, Choice
from llm_queue.wire.callers.responses_tools import (
    ToolBox,
    choice_of,
    flat_name,
    tools_of,
)
from llm_queue.wire.shapes import ToolChoice

WEATHER = {"type": "function", "name": "weather", "description": "It.", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "patch", "description": "Patches."}
MAIL = {
    "type": "namespace",
    "name": "mail",
    "description": "All about mail.",
    "tools": [
        {"type": "function", "name": "send", "parameters": {"type": "object", "properties": {"to": {}}}},
        {"type": "custom", "name": "draft"},
        {"type": "namespace", "name": "deeper", "tools": []},
    ],
}


def box(*tools: dict[str, Any]) -> ToolBox:
    return tools_of(list(tools))


def functions(*tools: dict[str, Any]) -> list[Any]:
    return [tool.chat["function"] for tool in box(*tools).by_name.values()]


def test_a_function_is_the_same_one_level_deeper() -> None:
    [tool] = box(WEATHER | {"strict": True, "defer_loading": True}).by_name.values()
    function = {name: value for name, value in WEATHER.items() if name != "type"} | {"strict": True}
    assert tool.chat == {"type": "function", "function": function}


def test_a_function_without_parameters_takes_none() -> None:
    [function] = functions({"type": "function", "name": "now"})
    assert function == {"name": "now", "parameters": {"type": "object", "properties": {}}}


def test_a_custom_tool_becomes_a_function_of_its_input() -> None:
    [function] = functions(PATCH)
    assert (function["name"], function["description"]) == ("patch", "Patches.")
    assert function["parameters"]["required"] == ["input"]
    assert function["parameters"]["properties"]["input"]["type"] == "string"


def test_the_grammar_of_a_custom_tool_is_told() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    for form, word in ((grammar, "lark"), ({**grammar, "syntax": None}, "grammar")):
        [function] = functions(PATCH | {"format": form})
        rule = function["parameters"]["properties"]["input"]["description"]
        assert word in rule
        assert "start: /.+/" in rule
    [function] = functions(PATCH | {"format": {"type": "text"}})
    assert "text" in function["parameters"]["properties"]["input"]["description"]


def test_a_namespace_is_the_beginning_of_its_tools_names() -> None:
    send, draft = functions(MAIL)
    assert (send["name"], draft["name"]) == ("mail__send", "mail__draft")
    assert send["description"] == draft["description"] == "All about mail."
    tools = box(MAIL).by_name
    assert [(tool.kind, tool.name, tool.namespace) for tool in tools.values()] == [
        ("function", "send", "mail"),
        ("custom", "draft", "mail"),
    ]


def test_a_tool_that_only_openai_can_run_is_left_out_and_named() -> None:
    tools = box({"type": "web_search", "external_web_access": True}, WEATHER, {"type": "shell"}, MAIL | {"tools": []})
    assert list(tools.by_name) == ["weather"]
    assert tools.kept == (WEATHER, MAIL | {"tools": []})
    assert tools.dropped == ("web_search", "shell")


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "function"}], "tools[0].name"),
        ([WEATHER, {"type": "function", "name": "x", "parameters": []}], "tools[1].parameters"),
        ([{"type": "custom"}], "tools[0].name"),
        ([{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}], "tools[0].tools[0].name"),
        ([WEATHER, WEATHER], "tools[1]"),
    ],
)
def test_a_tool_that_is_wrong_is_named(tools: list[Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        tools_of(tools)
    assert caught.value.param == param


EVERY = ["weather", "patch", "mail__send", "mail__draft"]


@pytest.mark.parametrize(
    ("said", "left", "choice"),
    [
        (None, EVERY, None),
        ("odd", EVERY, None),
        ("none", EVERY, ToolChoice("none")),
        ("auto", EVERY, ToolChoice("auto")),
        ("required", EVERY, ToolChoice("required")),
        (Choice("function", "weather"), EVERY, ToolChoice("function", "weather")),
        (Choice("function", "send"), EVERY, ToolChoice("function", "mail__send")),
        (Choice("function", "mail__send"), EVERY, ToolChoice("function", "mail__send")),
        (Choice("custom", "patch"), EVERY, ToolChoice("function", "patch")),
        (Choice("web_search_preview"), EVERY, None),
        (
            Choice("allowed_tools", mode="required", tools=[AllowedTool("function", "weather")]),
            ["weather"],
            ToolChoice("required"),
        ),
        (
            Choice("allowed_tools", mode="auto", tools=[AllowedTool("namespace", "mail"), AllowedTool("image_gen")]),
            ["mail__send", "mail__draft"],
            ToolChoice("auto"),
        ),
        (Choice("allowed_tools"), [], ToolChoice("auto")),
    ],
)
def test_which_tools_may_be_called(said: Any, left: list[str], choice: ToolChoice | None) -> None:
    tools, how = choice_of(said, box(WEATHER, PATCH, MAIL))
    assert [tool.flat for tool in tools] == left
    assert how == choice


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_a_choice_of_a_tool_that_there_is_not_is_refused(kind: str) -> None:
    with pytest.raises(BadRequest, match="no tool of the name 'other'") as caught:
        choice_of(Choice(kind, "other"), box(WEATHER))
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize("text", ["", '*** Begin Patch\n+"é"\n', '{"input": 1}'])
def test_the_input_of_a_custom_tool_survives_the_way_there_and_back(text: str) -> None:
    assert input_of(arguments_of(text)) == text


@pytest.mark.parametrize("arguments", ['{"input": "half', "{}", '{"input": 5}', "", "just text"])
def test_arguments_that_are_no_input_stay_as_they_are(arguments: str) -> None:
    assert input_of(arguments) == arguments


def test_a_name_without_a_namespace_is_that_name() -> None:
    assert flat_name("f", None) == flat_name("f", "") == "f"


def test_what_is_left_out_of_a_namespace_is_named() -> None:
    inner = [{"type": "web_search"}, {"type": "namespace", "name": "deeper", "tools": [WEATHER]}, WEATHER]
    found = box({"type": "namespace", "name": "all", "tools": inner})
    assert (list(found.by_name), found.dropped) == (["all__weather"], ("web_search", "namespace"))


def test_a_grammar_is_told_as_a_sentence() -> None:
    custom = {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}}
    function = box(custom).by_name["c"].function
    rule = function["parameters"]["properties"]["input"]["description"]
    assert rule == "The input of the tool. It must follow this lark grammar:\nstart: X"
