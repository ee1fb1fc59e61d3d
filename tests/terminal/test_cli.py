"""The commands of the terminal as the command line has them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from llm_queue import cli
from llm_queue.terminal import run as terminal
from llm_queue.terminal.desk import Asked


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Asked]]:
    """What would have been run."""
    ran: list[tuple[str, Asked]] = []

    def run(command: str, settings: Any, asked: Asked, environ: Any) -> int:
        ran.append((command, asked))
        return 0

    monkeypatch.setattr(terminal, "run", run)
    return ran


@pytest.mark.parametrize(
    ("arguments", "command", "asked"),
    [
        (["top"], "top", Asked()),
        (["status", "--json"], "status", Asked(json=True)),
        (["--json", "status"], "status", Asked(json=True)),
        (["why", "abc"], "why", Asked(("abc",))),
        (["why", "-abc", "--json"], "why", Asked(("-abc",), json=True)),
        (["why", "--json", "abc"], "why", Asked(("abc",), json=True)),
        (["cancel", "--port", "1", "abc"], "cancel", Asked(("abc",))),
        (["ask", "why is", "this?"], "ask", Asked(("why is", "this?"))),
        (["ask", "--lane", "normal", "why?"], "ask", Asked(("why?",), lane="normal")),
        (["ask", "--model", "m", "--", "--why?"], "ask", Asked(("--why?",))),
        (["ask"], "ask", Asked()),
        (["pause", "--unload"], "pause", Asked(unload=True)),
        (["doctor"], "doctor", Asked()),
    ],
)
def test_a_command_gets_its_words_and_flags_in_any_order(
    arguments: list[str], command: str, asked: Asked, ran: list[tuple[str, Asked]]
) -> None:
    assert cli.main(arguments, {}) == 0
    assert ran == [(command, asked)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["why"], "a job's id"),
        (["cancel"], "a job's id"),
        (["why", "a", "b"], "takes no b"),
        (["status", "now"], "takes no now"),
        (["serve", "now"], "takes no now"),
        (["service", "instal"], "did you mean install?"),
        (["statsu"], "did you mean status?"),
        (["ask", "--lane", "fast", "?"], "--lane"),
    ],
)
def test_what_a_command_does_not_take_is_code_2(
    arguments: list[str], said: str, ran: list[tuple[str, Asked]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments, {})
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not ran


def test_every_command_of_the_terminal_is_one_of_the_command_line() -> None:
    assert set(terminal.COMMANDS) <= set(cli._COMMANDS)


def test_a_service_that_starts_loads_nothing_of_the_terminal() -> None:
    tree = ast.parse(Path(cli.__file__).read_text(encoding="utf-8"))
    at_start = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert at_start
    assert not [line for line in at_start if "terminal" in line]
