"""Anthropic's dialect: its errors. What can be asked for has a file of its own each."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_queue.errors import PromptTooLong, QueueError
from llm_queue.wire.callers.dialect import Dialect
from llm_queue.wire.shapes import JsonObject

VERSION_HEADER: Final = "anthropic-version"
"""The header that every client of this dialect sends, whatever it asks for."""

_ERROR_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_object(error: QueueError, request_id: str) -> JsonObject:
    """An error in Anthropic's shape."""
    return {
        "type": "error",
        "error": {"type": _error_type(error), "message": _message(error)},
        "request_id": request_id or None,
    }


def error_body(error: QueueError, request_id: str = "") -> bytes:
    """An error as the body of an answer."""
    return msgspec.json.encode(error_object(error, request_id)) + b"\n"


def _error_type(error: QueueError) -> str:
    status = error.http_status
    if status == 503 and error.retryable:
        # Not for a 503 that is final: Claude Code asks again for whatever is called so, however it was told not to.
        return "overloaded_error"
    return _ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


def _message(error: QueueError) -> str:
    """What the error says. Claude Code reads the numbers of a prompt that is too long, and shortens it by itself."""
    if isinstance(error, PromptTooLong) and error.tokens:
        return f"prompt is too long: {error.tokens} tokens > {error.maximum} maximum"
    return error.message


ANTHROPIC: Final = Dialect("anthropic", error_body, request_id_header="request-id")
