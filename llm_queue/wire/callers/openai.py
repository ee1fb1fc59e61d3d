"""OpenAI's dialect: its errors. What can be asked for has a file of its own each, and so has the list of models."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_queue.errors import PromptTooLong, QueueError
from llm_queue.wire.callers.dialect import Dialect

_ERROR_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_json(error: QueueError) -> bytes:
    """An error in OpenAI's shape, on one line."""
    status = error.http_status
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    message = error.message
    if isinstance(error, PromptTooLong) and error.maximum:
        # OpenAI's own words, which programs look for in the text.
        message = (
            f"This model's maximum context length is {error.maximum} tokens. "
            f"However, your prompt has about {error.tokens} tokens. {message}"
        )
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": error.param, "code": error.code}})


def error_body(error: QueueError, _request_id: str = "") -> bytes:
    """An error as the body of an answer. The request's id is in the headers alone."""
    return error_json(error) + b"\n"


OPENAI: Final = Dialect("openai", error_body)
