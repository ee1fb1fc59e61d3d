"""docs/programs.md tells the truth: what it calls tried has a test, and its table has each client and feature."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from tests.clients.features import FEATURES, Client, Features, feature_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
TESTS = sorted((ROOT / "tests" / "clients").glob("test_*.py"))


def clients() -> list[Client]:
    found: list[Client] = []
    for path in TESTS:
        for value in vars(importlib.import_module(f"tests.clients.{path.stem}")).values():
            if isinstance(value, type) and issubclass(value, Features):
                found += value.clients
    return found


def rows(part: str) -> dict[str, list[str]]:
    """The rows of a table: the other cells by the first."""
    found = {}
    for line in part.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            first, *others = line.strip("| ").split(" | ")
            found[first] = others
    return found


def test_each_program_is_marked_as_tried_by_a_test_that_is_there_or_as_read() -> None:
    listed = rows(PAGE.partition("## The lines for each")[2].partition("### ")[0])
    marks = {program: cells[-1] for program, cells in listed.items() if program != "program"}
    assert len(marks) > 20
    tried = [re.fullmatch(r"tried: \[(\w+)\]\(\.\./tests/clients/(\w+)\.py\)", mark) for mark in marks.values()]
    assert {match.group(2) for match in tried if match} == {path.stem for path in TESTS}
    assert all(match.group(1) == match.group(2) for match in tried if match)
    assert {mark for mark, match in zip(marks.values(), tried, strict=True) if not match} == {"read"}


def test_what_was_seen_has_each_client_and_each_feature() -> None:
    table = rows(PAGE.partition("<!-- seen -->")[2].partition("<!-- end of seen -->")[0])
    assert table.pop("client") == list(FEATURES)
    assert set(table) == {client.name for client in clients()}
    for client in clients():
        expected = ["has none" if feature in client.without else "yes" for feature in FEATURES]
        assert table[client.name] == expected


def test_each_feature_of_the_table_has_a_test() -> None:
    tests = {feature_of(name) for name in vars(Features) if name.startswith("test_")}
    assert tests == set(FEATURES)
