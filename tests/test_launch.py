"""The command line of another process of ours."""

from __future__ import annotations

import sys

from llm_queue import cli, launch
from llm_queue.settings import Settings, load
from llm_queue.settings.values import ServerUrl

CHANGED = Settings(
    host="127.0.0.1",
    port=(11600, 11434),
    api_keys=("cron=secret", "other"),
    ollama_url=ServerUrl("http://127.0.0.1:1"),
    upstream_key="hidden",
    origins=("https://a.example", "https://b.example"),
    attempt_timeout=0.25,
    max_wait=12.5,
    hold=False,
    max_waiting=7,
    alias=("claude-*=qwen3:8b", "*=small"),
)


def test_what_is_the_default_is_not_said() -> None:
    assert launch.command(Settings()) == [sys.executable, "-m", "llm_queue"]
    assert launch.secrets(Settings()) == {}


def test_the_other_process_has_the_same_settings() -> None:
    flags = vars(cli.parser().parse_args(launch.command(CHANGED)[3:]))
    assert load(flags, launch.environment(CHANGED, {})) == CHANGED


def test_secrets_are_never_on_the_command_line() -> None:
    assert not any("secret" in word or "hidden" in word for word in launch.command(CHANGED))
    assert launch.secrets(CHANGED) == {"LLM_QUEUE_API_KEYS": "cron=secret,other", "LLM_QUEUE_UPSTREAM_KEY": "hidden"}


def test_variables_that_flags_have_overruled_are_not_handed_on() -> None:
    environ = {"PORT": "1", "LLM_TIMEOUT_MS": "5", "PATH": "/bin", "LLM_QUEUE_API_KEYS": "old"}
    assert launch.environment(Settings(), environ) == {"PATH": "/bin"}
