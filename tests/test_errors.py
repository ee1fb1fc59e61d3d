"""What an error says to its caller, and what of it to everybody else."""

from __future__ import annotations

import pytest

from llm_queue.errors import BadRequest, LoadFailed, UpstreamBroke, UpstreamRefused, UpstreamUnreachable


@pytest.mark.parametrize(
    ("message", "discreet"),
    [
        # as Ollama and llama.cpp write them
        ('error parsing tool call: raw=\'{"a": "it\'s me"}\', err=invalid character', "error parsing tool call: raw=…"),
        ("Failed to parse input at pos 13: <|channel>thought\nI am", "Failed to parse input at pos 13: …"),
        ('tool call parsing failed error="bad" content="call:me{}"', 'tool call parsing failed error="bad" content=…'),
        ('invalid format: "say hello to Ann"; expected "json"', "invalid format: '…'"),
        ("unknown token 'say' near 'say it's hot'", "unknown token '…'"),
        # what a log should have
        ("model 'granite4.1:8b' not found", "model 'granite4.1:8b' not found"),
        ('model "hf.co/a/b:Q4_K_M" not found, try pulling it first', None),
        ("model requires more system memory (5.6 GiB) than is available (3.1 GiB)", None),
        ('option "num_ctx" must be of type integer', None),
        ("llama-server process has terminated: exit status 2: `ggml` failed", None),
        ("it's out of luck", None),
        ("", None),
    ],
)
def test_an_upstreams_error_is_logged_without_what_it_quotes(message: str, discreet: str | None) -> None:
    for kind in (UpstreamBroke, UpstreamRefused, LoadFailed):
        error = kind(message) if message else kind(" ")
        assert error.discreet == ((message or " ") if discreet is None else discreet)
        assert error.message == (message or " ")  # the caller has it all: it is the caller's own


def test_our_own_errors_are_said_as_they_are() -> None:
    assert BadRequest("'x y' is not it").discreet == "'x y' is not it"


def test_how_to_start_an_upstream_stands_in_the_log_too() -> None:
    error = UpstreamUnreachable("Ollama cannot be reached. Start it (`ollama serve`), or correct OLLAMA_URL.")
    assert error.discreet == error.message
