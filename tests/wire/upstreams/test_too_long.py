"""A prompt that is too long is known by what the engine says of it."""

from __future__ import annotations

import json

import pytest

from llm_queue.wire.upstreams.ollama_response import error_text as ollama_text
from llm_queue.wire.upstreams.openai_catalog import error_text as openai_text
from llm_queue.wire.upstreams.too_long import prompt_too_long

LLAMA = {
    "error": {
        "code": 400,
        "message": "request (1119 tokens) exceeds the available context size (512 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 1119,
        "n_ctx": 512,
    }
}


@pytest.mark.parametrize(
    ("text", "tokens", "maximum"),
    [
        (openai_text(json.dumps(LLAMA).encode()), 1119, 512),
        (ollama_text(json.dumps({"error": json.dumps(LLAMA)}).encode()), 1119, 512),  # Ollama 0.33
        ("request (3031 tokens) exceeds the available context size", 3031, 0),
        ("the request exceeds the available context size. try increasing the context size", 0, 0),  # older llama.cpp
        ("the prompt is longer than the context length currently available to the model; shorten the prompt", 0, 0),
        ("the input length exceeds the context length", 0, 0),
        (
            "This model's maximum context length is 2048 tokens. However, you requested 2500 tokens (2400 in the "
            "messages, 100 in the completion).",
            2500,
            2048,
        ),
        ("This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens.", 9, 8),
        ("maximum context length is what it is", 0, 0),
        (
            "The number of tokens to keep from the initial prompt is greater than the context length. Try to load the "
            "model with a larger context length",
            0,
            0,
        ),
        (f"request ({'9' * 5000} tokens) exceeds the available context size (512 tokens)", 0, 512),
    ],
)
def test_what_engines_say_is_understood_and_kept(text: str, tokens: int, maximum: int) -> None:
    error = prompt_too_long(text)
    assert error is not None
    assert (error.message, error.tokens, error.maximum) == (text, tokens, maximum)
    assert (error.http_status, error.code) == (400, "context_length_exceeded")


@pytest.mark.parametrize("text", ["", "model 'x' not found", "invalid context", "the image is too large"])
def test_nothing_else_is_taken_for_it(text: str) -> None:
    assert prompt_too_long(text) is None
