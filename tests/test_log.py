"""The log: lines for people, JSON for programs, and never a prompt or an answer."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from llm_queue import log
from llm_queue.dispatch.moments import UpstreamChanged
from llm_queue.dispatch.observe import JobLog
from llm_queue.errors import LoadFailed, UpstreamBroke
from llm_queue.testing import Break, Say, ScriptedUpstream
from tests.harness import MODEL, line

PROMPT = "the-prompt-that-nobody-may-see"
ANSWER = "the-answer-that-nobody-may-see"


class Terminal(io.StringIO):
    """Standard error, with or without a person in front of it."""

    def __init__(self, person: bool) -> None:
        super().__init__()
        self.person = person

    def isatty(self) -> bool:
        return self.person

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.getvalue().splitlines()]


@pytest.fixture
def logging_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    """Configure the log as the service does, and put everything back."""
    root, ours = logging.getLogger(), logging.getLogger("llm_queue")
    before = root.handlers[:], root.level, ours.level

    def configure(log_format: str, *, person: bool = False) -> Terminal:
        terminal = Terminal(person)
        monkeypatch.setattr("sys.stderr", terminal)
        log.configure(log_format)
        return terminal

    yield configure
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    structlog.reset_defaults()


def say_something() -> None:
    structlog.get_logger("llm_queue").info("something", client="cron", wait_s=0.25)


def test_json_is_one_object_per_line_with_time_and_level(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("json")
    say_something()
    [event] = terminal.events()
    assert event.pop("time").endswith("Z")
    assert event == {"event": "something", "level": "info", "client": "cron", "wait_s": 0.25}


def test_text_is_a_line_for_people(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("text")
    say_something()
    [text] = terminal.getvalue().splitlines()
    assert "something" in text
    assert "client=cron" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(("person", "is_json"), [(True, False), (False, True)])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    person: bool, is_json: bool, logging_to: Callable[..., Terminal]
) -> None:
    terminal = logging_to("auto", person=person)
    say_something()
    assert terminal.getvalue().startswith("{") is is_json


def test_words_of_other_languages_stay_readable(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("json")
    structlog.get_logger("llm_queue").info("seen", client="caf\u00e9 \u4f60\u597d")
    assert "caf\u00e9 \u4f60\u597d" in terminal.getvalue()


def test_a_line_break_in_a_value_makes_no_second_line(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("json")
    structlog.get_logger("llm_queue").info("seen", client='cron"}\n{"event": "forged"')
    assert [event["event"] for event in terminal.events()] == ["seen"]


@pytest.mark.parametrize("event", [{}, {"wait_s": 0.1, "run_s": 0.1}])
def test_what_a_terminal_would_obey_is_written_out(
    logging_to: Callable[..., Terminal], event: dict[str, float]
) -> None:
    terminal = logging_to("text", person=False)
    evil = "a\x1b]0;owned\x07\x9b2J\u202e\r\nforged"
    structlog.get_logger("llm_queue").info(f"{evil}", client=evil, model=evil, error=evil, **event)
    said = terminal.getvalue().removesuffix("\n")
    assert said.isprintable()
    assert "owned" in said
    assert "\\x1b" in said


def test_an_exception_is_logged_with_its_traceback(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("json")
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        structlog.get_logger("llm_queue").exception("please report this")
    [event] = terminal.events()
    assert event["level"] == "error"
    assert "RuntimeError: a bug" in event["exception"]


def test_libraries_are_heard_from_warnings_up_and_we_from_info_up(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("json")
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("trouble")
    logging.getLogger("llm_queue.web").info("ours")
    logging.getLogger("llm_queue.web").debug("for ourselves")
    assert [event["event"] for event in terminal.events()] == ["trouble", "ours"]


async def test_a_finished_job_is_one_line_with_what_it_took_and_nothing_it_said(
    autojump_clock: object, logging_to: Callable[..., Terminal]
) -> None:
    terminal = logging_to("json")
    upstream = ScriptedUpstream(known=[MODEL], load_seconds=2.0)
    upstream.then(Say(ANSWER, tokens=4, seconds_per_token=0.5, prompt_tokens=7, cached_tokens=0, prompt_seconds=0.25))
    async with line(upstream) as harness:
        harness.dispatcher.observers.add(JobLog("Scripted", upstream.url))
        await harness.ask(PROMPT, client="cron")
        await harness.ask(PROMPT, client="cron")
    loaded, done, unknown = terminal.events()
    assert (done["cached_tokens"], done["prompt_s"]) == (0, 0.25)
    assert "cached_tokens" not in unknown
    assert (loaded["event"], loaded["load_s"]) == ("loaded", 2.0)
    assert done["event"] == "done"
    assert (done["wait_s"], done["load_s"], done["run_s"]) == (0.0, 2.0, 2.0)
    assert (done["client"], done["lane"], done["model"], done["num_ctx"]) == ("cron", "normal", "scripted", 8192)
    assert (done["attempts"], done["finish"], done["prompt_tokens"], done["completion_tokens"]) == (1, "stop", 7, 4)
    assert PROMPT not in terminal.getvalue()
    assert ANSWER not in terminal.getvalue()


async def test_a_job_that_failed_says_why_and_nothing_it_said(
    autojump_clock: object, logging_to: Callable[..., Terminal]
) -> None:
    terminal = logging_to("json")
    upstream = ScriptedUpstream(known=[MODEL])
    upstream.then(Break(after_tokens=2, text="the engine died"), Break(after_tokens=2, text="the engine died"))
    async with line(upstream) as harness:
        harness.dispatcher.observers.add(JobLog("Scripted", upstream.url))
        with pytest.raises(UpstreamBroke):
            await harness.ask(PROMPT)
    again, failed = terminal.events()[-2:]
    assert (again["event"], again["level"]) == ("attempt failed, waits again", "warning")
    assert (failed["event"], failed["level"], failed["attempts"]) == ("failed", "warning", 2)
    assert failed["error"] == "the engine died"
    assert PROMPT not in terminal.getvalue()
    assert "token 0" not in terminal.getvalue()


async def test_a_load_that_failed_is_a_warning_of_its_own(
    autojump_clock: object, logging_to: Callable[..., Terminal]
) -> None:
    terminal = logging_to("json")
    upstream = ScriptedUpstream(known=[MODEL])
    upstream.then_load(Break(text="out of memory"))
    async with line(upstream) as harness:
        harness.dispatcher.observers.add(JobLog("Scripted", upstream.url))
        with pytest.raises(LoadFailed):
            await harness.ask(PROMPT)
    load, failed = terminal.events()
    assert (load["event"], load["level"], load["error"]) == ("load failed", "warning", "out of memory")
    assert failed["event"] == "failed"


def test_an_outage_is_two_lines(logging_to: Callable[..., Terminal]) -> None:
    terminal = logging_to("json")
    observer = JobLog("Ollama", "http://localhost:11434")
    observer(UpstreamChanged("refused"))
    observer(UpstreamChanged(None))
    away, back = terminal.events()
    assert (away["level"], away["reason"]) == ("warning", "refused")
    assert back["event"] == "Ollama at http://localhost:11434 is there"
