"""The cases of peers' suites that pass directly and need not pass through the line, each with its reason."""

from __future__ import annotations

from tests.peers.outcomes import Bar, Exempt

OLLAMA: tuple[Exempt, ...] = ()
OLLAMA_BARS = (Bar("Test", direct=24, through=24),)

LLAMA_CPP: tuple[Exempt, ...] = ()
LLAMA_CPP_BARS = (
    Bar("unit/test_chat_completion.py", direct=25, through=20),
    Bar("unit/test_compat_anthropic.py", direct=25, through=25),
    Bar("unit/test_tool_call.py", direct=6, through=6),
    Bar("unit/test_compat_oai_responses.py", direct=1, through=0),
)
