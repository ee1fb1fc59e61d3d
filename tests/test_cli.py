"""The command line: what it says, and with which code it ends."""

from __future__ import annotations

import errno
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trio

from llm_queue import cli, log
from llm_queue.exits import Exit
from llm_queue.settings import Settings, knobs, load
from tests.core.driver import Driver

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What would have been served, without serving it."""
    served: list[Settings] = []

    def run(serve: object, settings: Settings) -> Exit:
        served.append(settings)
        return Exit.DRAINED

    monkeypatch.setattr(trio, "run", run)
    monkeypatch.setattr(log, "configure", lambda log_format: None)
    return served


def test_help_names_every_setting_with_its_variable_and_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"], {})
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for knob in knobs():
        value = "[VALUE]" if isinstance(knob.default, bool) else "VALUE"
        assert f"{knob.flag} {value} {knob.help} [{knob.env}; default: " in text


def test_a_switch_alone_is_on() -> None:
    for said, on in ((["--allow-ollama-admin"], True), (["--allow-ollama-admin", "no"], False), ([], False)):
        wanted = vars(cli.parser().parse_args(["serve", *said]))
        assert load({"allow_ollama_admin": wanted["allow_ollama_admin"]}, {}).allow_ollama_admin is on


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"], {})
    assert ended.value.code == 0
    version = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"]
    assert capsys.readouterr().out.strip() == f"llm-queue {version}"


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_without_a_command_it_serves(arguments: list[str], served: list[Settings]) -> None:
    assert cli.main([*arguments, "--port", "0"], {"OLLAMA_MODEL": "small"}) == Exit.DRAINED
    assert [(settings.port, settings.model) for settings in served] == [((0,), "small")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--take-over"], "service install"),
        (["service", "status", "--take-over"], "service install"),
        (["service", "--take-over"], "service install"),
        (["service", "install", "--undo"], "--take-over"),
    ],
)
def test_a_take_over_is_part_of_an_install(
    arguments: list[str], said: str, served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments, {})
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not served


def test_a_flag_that_may_be_repeated_makes_one_list(served: list[Settings]) -> None:
    cli.main(["--alias", "claude-*=a:1,gpt-*=b", "--alias=*=c"], {"LLM_QUEUE_ALIAS": "x=y"})
    assert served[0].alias == ("claude-*=a:1", "gpt-*=b", "*=c")


def test_the_exit_code_is_that_of_the_service(monkeypatch: pytest.MonkeyPatch, served: list[Settings]) -> None:
    monkeypatch.setattr(trio, "run", lambda serve, settings: Exit.JOBS_LOST)
    assert cli.main([], {}) == 1


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["--port", "http"], {}, "--port"),
        ([], {"PORT": "http"}, "PORT"),
        ([], {"LLM_TIMEOUT_MS": "0"}, "LLM_TIMEOUT_MS"),
        (["--num-ctx", "100000"], {}, "--num-ctx-ceiling"),
        (["--host", "0.0.0.0"], {}, "LLM_QUEUE_API_KEYS"),
    ],
)
def test_a_wrong_setting_is_one_line_and_code_2(
    arguments: list[str],
    environ: dict[str, str],
    named: str,
    served: list[Settings],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(arguments, environ) == 2
    said = capsys.readouterr()
    assert named in said.err
    assert said.err.startswith("llm-queue: ")
    assert said.err.count("\n") == 1
    assert not said.out
    assert not served


@pytest.mark.parametrize("arguments", [["--drain-time", "5"], ["--nothing"], ["dance"], ["--port"]])
def test_what_is_no_flag_and_no_command_is_code_2(
    arguments: list[str], served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments, {})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("llm-queue: ")
    assert said.count("\n") == 1
    assert "--help" in said
    assert not served


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES])
def test_an_address_that_cannot_be_had_is_one_line_and_code_2(
    number: int, monkeypatch: pytest.MonkeyPatch, served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(serve: object, settings: Settings) -> Exit:
        raise OSError(number, f"cannot listen on 127.0.0.1:8080: {os.strerror(number)}")

    monkeypatch.setattr(trio, "run", run)
    assert cli.main(["--port", "8080"], {}) == 2
    said = capsys.readouterr().err
    assert "127.0.0.1:8080" in said
    assert "--port" in said
    assert said.count("\n") == 1


def test_an_interruption_before_it_serves_is_what_shells_expect(
    monkeypatch: pytest.MonkeyPatch, served: list[Settings]
) -> None:
    def run(serve: object, settings: Settings) -> Exit:
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", run)
    assert cli.main([], {}) == 130


def test_any_other_failure_of_the_system_is_not_hidden(monkeypatch: pytest.MonkeyPatch, served: list[Settings]) -> None:
    def run(serve: object, settings: Settings) -> Exit:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(trio, "run", run)
    with pytest.raises(OSError, match="too many open files"):
        cli.main([], {})


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    text = (PYPROJECT.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    for code in Exit:
        assert f"\n| {code} | " in text


def test_a_trace_of_the_service_is_written_and_simulate_plays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, lines = tmp_path / "line.jsonl", list[str]()
    driver = Driver(trace=lines)
    driver.submit("editor")
    driver.work()

    def run(service: Any, settings: Settings) -> Exit:
        for line in lines:
            service.keywords["trace"](line)
        return Exit.DRAINED

    monkeypatch.setattr(trio, "run", run)
    monkeypatch.setattr(log, "configure", lambda log_format: None)
    assert cli.main(["--trace", str(trace)], {}) == 0
    assert cli.main(["simulate", "--trace", str(trace)], {}) == 0
    assert "editor" in capsys.readouterr().out
    trace.write_text("nothing")
    assert cli.main(["simulate", "--trace", str(trace)], {}) == 1
    assert "This is no trace" in capsys.readouterr().err


def test_a_trace_that_cannot_be_opened_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "configure", lambda log_format: None)
    for command in ("serve", "simulate"):
        assert cli.main([command, "--trace", str(tmp_path / "no" / "folder")], {}) == 2
        assert "--trace" in capsys.readouterr().err
