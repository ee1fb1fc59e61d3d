"""An engine of our own, for where there is no Ollama: llama.cpp (xllamacpp) in a child process."""

from __future__ import annotations

from llm_queue.upstream.embedded.engine import Embedded

__all__ = ["Embedded"]
