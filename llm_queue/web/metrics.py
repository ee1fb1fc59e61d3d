"""The numbers of the line, for Prometheus."""

from __future__ import annotations

from quart import Response, request
from quart_trio import QuartTrio

from llm_queue.errors import NotFound
from llm_queue.web.service import Metrics


def add_metrics_route(app: QuartTrio, metrics: Metrics | None) -> None:
    """Register it. Where no numbers are kept it answers 404."""

    @app.get("/metrics")
    async def numbers() -> Response:
        """The numbers of the line, in Prometheus' text format or in OpenMetrics."""
        if metrics is None:
            raise NotFound("No metrics are kept here: llm-queue serve keeps them.")
        media_type, body = metrics.page(request.headers.get("Accept", ""))
        return Response(body, content_type=media_type, headers={"Vary": "Accept"})
