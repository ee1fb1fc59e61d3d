"""OpenAI's dialect: its chat completion requests and answers, its errors and its list of models."""

from __future__ import annotations

from llm_queue.wire.callers.openai_request import ParsedChat, RequestLimits, parse_chat
from llm_queue.wire.callers.openai_response import ChatEncoder, error_body, model_body, models_body
from llm_queue.wire.priority import lane_name, tier_name

__all__ = [
    "ChatEncoder",
    "ParsedChat",
    "RequestLimits",
    "error_body",
    "lane_name",
    "model_body",
    "models_body",
    "parse_chat",
    "tier_name",
]
