"""The page on Anthropic's dialect holds what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import msgspec

from llm_queue.wire.callers import anthropic, anthropic_answer, anthropic_content, anthropic_messages
from llm_queue.wire.callers.anthropic_shapes import MessagesBody

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "anthropic.md").read_text(encoding="utf-8")


def names_in(section: str) -> set[str]:
    """What stands between backticks in the first column of a section's table."""
    text = PAGE.partition(f"# {section}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def cases_in(*functions: object) -> set[str]:
    """The texts that a function's ``match`` tells apart."""
    trees = [ast.parse(inspect.getsource(function).lstrip()) for function in functions]  # type: ignore[arg-type]
    return {
        str(pattern.value.value)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.match_case)
        for pattern in ast.walk(node.pattern)
        if isinstance(pattern, ast.MatchValue) and isinstance(pattern.value, ast.Constant)
    }


def test_the_fields_of_a_request_are_those_of_the_page() -> None:
    assert names_in("The request") == {field.encode_name for field in msgspec.structs.fields(MessagesBody)}


def test_the_blocks_of_content_are_those_of_the_page() -> None:
    known = cases_in(anthropic_content.said_by) | cases_in(anthropic_messages.Conversation._add_assistant)
    assert names_in("Content") | {"tool_reference"} == known | {"tool_result"}


def test_the_reasons_of_an_end_are_those_of_the_page() -> None:
    source = inspect.getsource(anthropic_answer.MessagesEncoder._reason)
    assert names_in("The answer") - {"stop_reason"} == set(re.findall(r'return "([a-z_]+)"', source))


def test_the_types_of_errors_are_those_of_the_page() -> None:
    section = PAGE.partition("## Errors\n")[2]
    source = inspect.getsource(anthropic)
    made = set(re.findall(r'"([a-z_]+_error|request_too_large)"', source))
    assert set(re.findall(r"`([a-z_]+_error|request_too_large)`", section)) == made
