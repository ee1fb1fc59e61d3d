"""What Anthropic's clients ask for without a place in the line: how many tokens a prompt has, and which models there
are.
"""

from __future__ import annotations

from quart import Response, request
from werkzeug.datastructures import Headers

from llm_queue.upstream.protocol import Model
from llm_queue.web.counting import count_tokens
from llm_queue.web.endpoint import Endpoint
from llm_queue.web.models import known_models
from llm_queue.web.service import Service
from llm_queue.wire.callers.anthropic import VERSION_HEADER
from llm_queue.wire.callers.anthropic_models import Listed, count_body, model_body, models_body
from llm_queue.wire.callers.anthropic_request import parse_counted


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
        """The tokens of a prompt."""
        return await count_tokens(self._endpoint, self._line, parse_counted, count_body)

    async def models(self) -> Response:
        """A page of the list of models."""
        listed = [self._listed(model) for model, _ in await known_models(self._line)]
        return _json(models_body(listed, request.args))

    async def model(self, name: str) -> Response:
        """One of them."""
        return _json(model_body(self._listed(await self._line.catalog.resolve(name))))

    def _listed(self, model: Model) -> Listed:
        return Listed(model.name, model.created, self._line.models.largest_ctx(model))


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")
