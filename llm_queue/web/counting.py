"""How many tokens a prompt has, answered beside the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from quart import Response, request

from llm_queue.web.endpoint import Endpoint
from llm_queue.web.service import Service
from llm_queue.wire.callers.dialect import JSON, Parsed, RequestLimits

ESTIMATE: Final = "X-LLM-Queue-Estimate"


async def count_tokens(
    endpoint: Endpoint,
    line: Service,
    parse: Callable[[bytes, RequestLimits], Parsed[Any]],
    body_of: Callable[[int], bytes],
) -> Response:
    """The tokens of the prompt in the request at hand: counted by the engine where it can, else estimated, which a
    header says.

    ``parse`` reads the request, and ``body_of`` writes the answer. The slot is not touched: Claude Code asks fourteen
    times at once.
    """
    parsed = await endpoint.read(parse, cast(Any, request)._get_current_object())
    model = await endpoint.model(parsed.request.model)
    tokens = await line.count_tokens(parsed.request, model) if model is not None else None
    exact = tokens is not None
    if tokens is None:
        tokens = line.estimate_tokens(parsed.request, model)
    response = Response(body_of(tokens), content_type=JSON)
    if not exact:
        response.headers[ESTIMATE] = "tokens"
    if parsed.wishes.dropped:
        response.headers["X-LLM-Queue-Dropped"] = ", ".join(dict.fromkeys(parsed.wishes.dropped))
    return response
