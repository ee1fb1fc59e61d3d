"""Ollama's native dialect, spoken to the upstream: ``/api/chat``, and what tells which models there are."""

from __future__ import annotations

from llm_queue.wire.upstreams.ollama_catalog import Loaded, Shown, Tag, parse_ps, parse_show, parse_tags
from llm_queue.wire.upstreams.ollama_request import chat_body, load_body
from llm_queue.wire.upstreams.ollama_response import MAX_LINE, ChatDecoder, error_text

__all__ = [
    "MAX_LINE",
    "ChatDecoder",
    "Loaded",
    "Shown",
    "Tag",
    "chat_body",
    "error_text",
    "load_body",
    "parse_ps",
    "parse_show",
    "parse_tags",
]
