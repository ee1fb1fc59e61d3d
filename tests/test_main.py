"""The process as a whole: no state of its streams ends in a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_queue import log
from llm_queue.log import complain, is_terminal, say, shorten

SIMULATE = ["-m", "llm_queue", "simulate", "--story", "two", "--load-seconds", "0.5"]
posix = pytest.mark.skipif(os.name != "posix", reason="a shell's redirections")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=50)


@posix
@pytest.mark.parametrize(
    "redirection", ["| head -1", "> /dev/full", ">&-", ">&- 2>&-", "2>/dev/full | head -1"], ids=range(5)
)
def test_no_state_of_the_output_shows_a_traceback(redirection: str) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        redirection = ">&-"
    done = shell(f"{sys.executable} {' '.join(SIMULATE)} {redirection}")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


class Stream(io.TextIOWrapper):
    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_name_that_the_terminal_cannot_write_is_written_as_well_as_it_can(encoding: str) -> None:
    stream = Stream(encoding)
    say("model 千问:7b", stream)
    assert stream.text() == "model \\u5343\\u95ee:7b\n"


def test_a_stream_that_is_closed_or_missing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("utf-8")
    stream.close()
    say("hello", stream)
    assert not is_terminal(stream)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    say("hello")
    complain("hello")
    assert not is_terminal(None)
    log.drop_output()


def test_a_finished_job_is_one_line_of_about_a_hundred_characters() -> None:
    event = {
        "time": "10:04:46", "level": "info", "event": "done", "job": "03nvkP8ZYAiwUr7pLVyM_g",
        "request_id": "req_3e5986",
        "client": "/home/somebody/projects/postings/classify.py", "lane": "normal", "model": "granite4.1:8b",
        "num_ctx": 8192, "attempts": 1, "wait_s": 1.25, "load_s": 0.0, "run_s": 0.449, "prompt_tokens": 8,
        "completion_tokens": 12, "finish": "stop",
    }  # fmt: skip
    short = shorten(None, "info", event)
    assert short == {
        "time": "10:04:46", "level": "info", "event": "done", "client": "…y/projects/postings/classify.py",
        "lane": "normal", "model": "granite4.1:8b", "wait": "1.2s", "run": "0.4s", "tokens": "8+12",
    }  # fmt: skip
    assert len(" ".join(short.values())) < 110
    assert shorten(None, "info", event | {"cached_tokens": 0}) == {**short, "cached": 0}
    assert shorten(None, "info", event | {"cached_tokens": None}) == short
    failed = shorten(None, "info", event | {"event": "failed", "error": "it broke", "finish": None})
    assert failed["error"] == "it broke"


def test_other_events_keep_all_that_they_say() -> None:
    event = {"event": "loaded", "job": "x", "num_ctx": 8192, "load_s": 1.0}
    assert shorten(None, "info", event) == event
