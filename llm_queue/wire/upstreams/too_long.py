"""What engines say of a prompt that does not fit into its context, in one word of ours."""

from __future__ import annotations

import re
from typing import Final

from llm_queue.errors import PromptTooLong

_SAYINGS: Final = tuple(
    re.compile(saying, re.IGNORECASE)
    for saying in (
        # llama.cpp's server, also from within Ollama: 400, exceed_context_size_error
        r"(?:\((?P<tokens>\d+) tokens\) )?exceeds? the available context size(?: \((?P<maximum>\d+) tokens\))?",
        # Ollama: where it words the prompt itself, and for embeds
        r"prompt is longer than the context length",
        r"input length exceeds the context length",
        # vLLM, and OpenAI's own: "maximum context length is 2048 tokens. However, you requested 2500 tokens"
        r"maximum context length is (?P<maximum>\d+) tokens.*?(?:requested|resulted in|has) (?P<tokens>\d+)",
        r"maximum context length",
        # LM Studio
        r"initial prompt is greater than the context length",
        r"context_length_exceeded",
    )
)


def prompt_too_long(text: str) -> PromptTooLong | None:
    """The error for an engine's error ``text`` if it says that a prompt is too long, in the engine's own words and with
    its numbers (0 where it names none); None for any other text.
    """
    for saying in _SAYINGS:
        if (found := saying.search(text)) is not None:
            numbers = {name: int(value) for name, value in found.groupdict().items() if value and len(value) < 16}
            return PromptTooLong(text, tokens=numbers.get("tokens", 0), maximum=numbers.get("maximum", 0))
    return None
