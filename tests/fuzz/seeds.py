"""Bodies that the service takes: several of each dialect's operations, with what real programs send in them."""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

MODEL: Final = "fake"
PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SHORT: Final = "!tokens 2 hello"
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

_CHATS: Final[tuple[Json, ...]] = (
    {"messages": [{"role": "user", "content": SHORT}]},
    {"messages": [{"role": "user", "content": SHORT}], "stream": True, "stream_options": {"include_usage": True}},
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "user", "content": "!tool weather now"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "tool_choice": "auto",
        "temperature": 0.1,
        "stop": ["x"],
        "seed": 7,
        "max_tokens": 9,
        "priority": True,
    },
    {
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": SHORT}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "service_tier": "flex",
        "reasoning_effort": "low",
        "options": {"num_predict": 5, "num_ctx": 9000},
        "logprobs": True,
        "top_logprobs": 2,
    },
)
_COMPLETIONS: Final[tuple[Json, ...]] = (
    {"prompt": SHORT},
    {"prompt": [SHORT, SHORT], "stream": True, "max_tokens": 4, "logprobs": 1, "stop": "y"},
)
_EMBEDDINGS: Final[tuple[Json, ...]] = (
    {"input": "hello"},
    {"input": ["hello", "there"], "encoding_format": "base64", "dimensions": 2, "model": MODEL},
)
_RESPONSES: Final[tuple[Json, ...]] = (
    {"input": SHORT},
    {
        "stream": True,
        "instructions": "Be brief.",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Weather?"},
                    {"type": "input_image", "image_url": "data:image/png;base64," + PIXEL},
                ],
            },
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Ulm"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
            {"role": "user", "content": SHORT},
        ],
        "tools": [
            {"type": "function", "name": "weather", "parameters": SCHEMA},
            {"type": "custom", "name": "patch"},
            {"type": "web_search"},
        ],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "metadata": {"a": "b"},
        "prompt_cache_key": "s1",
        "max_output_tokens": 16,
    },
)
_MESSAGES: Final[tuple[Json, ...]] = (
    {"max_tokens": 9, "messages": [{"role": "user", "content": SHORT}]},
    {
        "model": MODEL,
        "max_tokens": 9,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hm"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "yes"},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ulm"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "rain"}],
                        "is_error": False,
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                        "title": "t",
                    },
                    {"type": "text", "text": SHORT},
                ],
            },
            {"role": "system", "content": "one more"},
        ],
        "tools": [
            {"name": "weather", "description": "d", "input_schema": SCHEMA},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"effort": "low"},
        "metadata": {"user_id": '{"session_id":"s"}'},
        "stop_sequences": ["x"],
        "temperature": 0.5,
    },
)

SEEDS: Final[dict[str, tuple[Json, ...]]] = {
    "/chat/completions": _CHATS,
    "/completions": _COMPLETIONS,
    "/embeddings": _EMBEDDINGS,
    "/chat/completions/input_tokens": _CHATS,
    "/responses": _RESPONSES,
    "/responses/input_tokens": _RESPONSES,
    "/messages": _MESSAGES,
    "/messages/count_tokens": _MESSAGES,
    # Ollama's
    "/api/chat": (
        {"model": MODEL, "messages": [{"role": "user", "content": SHORT}]},
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": SHORT, "images": [PIXEL]}],
            "stream": False,
            "format": SCHEMA,
            "options": {"num_ctx": 9000, "stop": ["x"]},
            "think": True,
            "keep_alive": "5m",
        },
        {
            "model": MODEL,
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "tool_name": "f", "content": "x"},
                {"role": "user", "content": SHORT},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        },
        {"model": MODEL, "messages": []},
    ),
    "/api/generate": (
        {"model": MODEL, "prompt": SHORT},
        {"model": MODEL, "prompt": SHORT, "stream": False, "system": "s", "keep_alive": 60, "options": {"seed": 1}},
    ),
    "/api/embed": (
        {"model": MODEL, "input": "x"},
        {"model": MODEL, "input": ["x", "y"], "truncate": True, "dimensions": 2},
    ),
    "/api/embeddings": ({"model": MODEL, "prompt": "x"},),
    "/api/show": ({"model": MODEL}, {"name": MODEL, "verbose": True}),
}
"""Bodies that are answered with 200, by path without /v1."""

CLOSED: Final[dict[str, tuple[Json, ...]]] = {
    "/api/pull": ({"model": MODEL}, {"name": MODEL, "stream": False}),
    "/api/push": ({"model": MODEL},),
    "/api/create": ({"model": "new", "from": MODEL, "stream": False},),
    "/api/copy": ({"source": MODEL, "destination": "new"},),
    "/api/blobs/{digest}": ({},),
}
"""Bodies for what is closed."""

MISSING: Final[dict[str, tuple[Json, ...]]] = {
    "/queue/jobs/{job_id}/lane": ({"lane": "normal"}, {"lane": "background"}),
}
"""Bodies about what is not there: they are answered with 404."""
