"""What clients of OpenAI's Responses ask for without a place in the line: how large a prompt is, and what they believe
to be stored.
"""

from __future__ import annotations

from quart import Response
from quart_trio import QuartTrio

from llm_queue.errors import NotFound
from llm_queue.web.counting import count_tokens
from llm_queue.web.endpoint import Endpoint
from llm_queue.web.refusals import printable
from llm_queue.web.service import Service
from llm_queue.wire.callers.responses import input_tokens_body
from llm_queue.wire.callers.responses_request import parse_response


def add_responses_routes(app: QuartTrio, endpoint: Endpoint, line: Service) -> None:
    """Register these routes."""

    @app.post("/v1/responses/input_tokens")
    async def input_tokens() -> Response:
        """How many tokens the prompt of a response has."""
        return await count_tokens(endpoint, line, parse_response, input_tokens_body)

    @app.get("/v1/responses/<response_id>")
    @app.delete("/v1/responses/<response_id>")
    @app.get("/v1/responses/<response_id>/input_items")
    @app.post("/v1/responses/<response_id>/cancel")
    async def stored_response(response_id: str) -> Response:
        """Always 404: no response is stored."""
        raise NotFound(
            f"There is no response {printable(response_id)}: none is stored here, and each says `store: false`. "
            "Send the whole conversation in `input`; to cancel an answer, close its connection."
        )
