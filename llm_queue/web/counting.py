"""How many tokens a prompt has, answered beside the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from quart import Response, request

from llm_queue.web.endpoint import Endpoint
from llm_queue.web.headers import dropped_names
from llm_queue.web.service import Service
from llm_queue.wire.callers.dialect import JSON, Parsed, RequestLimits

ESTIMATE: Final = "X-LLM-Queue-Estimate"

MOST_COUNTED: Final = 2**20
"""Bytes of a prompt that the engine is still asked to count: a quarter of a million tokens, which take it a second
beside its work, and nobody waits in line for it: larger ones are estimated."""


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
    async with endpoint.reading(parse, cast(Any, request)._get_current_object()) as (parsed, prompt):
        model = await endpoint.model(parsed.request.model)
        tokens = None
        if model is not None and prompt.bytes <= MOST_COUNTED:
            async with endpoint.counting:
                tokens = await line.models.count_tokens(parsed.request, model)
        exact = tokens is not None
        if tokens is None:
            tokens = line.models.estimate_tokens(parsed.request, model)
    response = Response(body_of(tokens), content_type=JSON)
    if not exact:
        response.headers[ESTIMATE] = "tokens"
    if parsed.wishes.dropped:
        response.headers["X-LLM-Queue-Dropped"] = dropped_names(parsed.wishes.dropped)
    return response
