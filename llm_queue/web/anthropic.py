"""What Anthropic's clients ask for without a place in the line: how many tokens a prompt has, and which models there
are.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from quart import Response, request
from werkzeug.datastructures import Headers

from llm_queue.errors import QueueError, UpstreamUnreachable
from llm_queue.upstream.protocol import Model
from llm_queue.web.endpoint import Endpoint
from llm_queue.web.service import Service
from llm_queue.wire.callers.anthropic import VERSION_HEADER
from llm_queue.wire.callers.anthropic_models import Listed, model_body, models_body
from llm_queue.wire.callers.anthropic_request import parse_counted

ESTIMATE: Final = "X-LLM-Queue-Estimate"


class AnthropicRoutes:
    """The views of these routes."""

    def __init__(self, endpoint: Endpoint, line: Service) -> None:
        self._endpoint = endpoint
        self._line = line

    @staticmethod
    def asked(headers: Headers) -> bool:
        """True if a request for what two dialects have at the same address is one of Anthropic's clients."""
        return VERSION_HEADER in headers

    async def count_tokens(self) -> Response:
        """The tokens of a prompt: counted by the engine where it can, else estimated, which a header says.

        The slot is not touched: Claude Code asks fourteen times at once.
        """
        parsed = await self._endpoint.read(parse_counted, cast(Any, request)._get_current_object())
        model = await self._endpoint.model(parsed.request.model)
        tokens = await self._line.count_tokens(parsed.request, model) if model is not None else None
        exact = tokens is not None
        if tokens is None:
            tokens = self._line.estimate_tokens(parsed.request, model)
        response = _json(msgspec.json.encode({"input_tokens": tokens}) + b"\n")
        if not exact:
            response.headers[ESTIMATE] = "tokens"
        if parsed.wishes.dropped:
            response.headers["X-LLM-Queue-Dropped"] = ", ".join(dict.fromkeys(parsed.wishes.dropped))
        return response

    async def models(self) -> Response:
        """A page of the list of models."""
        try:
            await self._line.catalog.refresh()
        except UpstreamUnreachable:
            if not self._line.catalog.models():
                raise
        listed = [await self._listed(model) for model in self._line.catalog.models()]
        return _json(models_body(listed, request.args))

    async def model(self, name: str) -> Response:
        """One of them."""
        return _json(model_body(await self._listed(await self._line.catalog.resolve(name))))

    async def _listed(self, model: Model) -> Listed:
        with suppress(QueueError):  # without it, only how much it was trained for stays unknown
            model = await self._line.catalog.resolve(model.name)
        return Listed(model.name, model.created, self._line.granted_ctx(model))


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")
