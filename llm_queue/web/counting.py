"""How many tokens a prompt has, in whichever dialect it is asked: no job, and no place in the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
from quart import Response, request

from llm_queue.web.endpoint import Endpoint
from llm_queue.web.service import Service
from llm_queue.wire.callers.dialect import JSON, Parsed, RequestLimits

ESTIMATE: Final = "X-LLM-Queue-Estimate"


async def count_tokens(
    endpoint: Endpoint, line: Service, parse: Callable[[bytes, RequestLimits], Parsed[Any]]
) -> Response:
    """The tokens of the prompt in the current request: counted by the engine where it can, else estimated, which a
    header says.

    The slot is not touched: Claude Code asks fourteen times at once.
    """
    parsed = await endpoint.read(parse, cast(Any, request)._get_current_object())
    model = await endpoint.model(parsed.request.model)
    tokens = await line.count_tokens(parsed.request, model) if model is not None else None
    exact = tokens is not None
    if tokens is None:
        tokens = line.estimate_tokens(parsed.request, model)
    response = Response(msgspec.json.encode({"input_tokens": tokens}) + b"\n", content_type=JSON)
    if not exact:
        response.headers[ESTIMATE] = "tokens"
    if parsed.wishes.dropped:
        response.headers["X-LLM-Queue-Dropped"] = ", ".join(dict.fromkeys(parsed.wishes.dropped))
    return response
