"""What can be asked of the service, one function per address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from quart import Response, request
from quart_trio import QuartTrio

from llm_queue.errors import NotFound, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.web.endpoint import Endpoint
from llm_queue.web.service import Service
from llm_queue.web.visit import Scope
from llm_queue.wire.callers.dialect import Operation
from llm_queue.wire.callers.openai import model_body, models_body
from llm_queue.wire.callers.routes import ROUTES


def add_routes(app: QuartTrio, settings: Settings, line: Service) -> None:
    """Register every route."""
    endpoint = Endpoint(settings, line)

    def serve(operation: Operation[Any]) -> Callable[[], Awaitable[Response]]:
        async def answer() -> Response:
            return await endpoint.answer(
                operation, cast(Any, request)._get_current_object(), cast(Scope, request.scope)
            )

        return answer

    for path, operation in ROUTES:
        app.add_url_rule(path, endpoint=path, view_func=serve(operation), methods=["POST"])

    @app.get("/v1/models")
    @app.get("/models")
    async def models() -> Response:
        try:
            await line.catalog.refresh()
        except UpstreamUnreachable:
            if not line.catalog.models():
                raise
        return _json(models_body((model.name, model.created) for model in line.catalog.models()))

    @app.get("/v1/models/<path:name>")
    @app.get("/models/<path:name>")
    async def model(name: str) -> Response:
        found = await line.catalog.resolve(name)
        return _json(model_body(found.name, found.created))

    @app.get("/health")
    async def health() -> Response:
        return Response("ok", content_type="text/plain; charset=utf-8")

    @app.get("/ready")
    async def ready() -> Response:
        reason = line.readiness()
        if reason is None:
            return _json(msgspec.json.encode({"ready": True}))
        return _json(msgspec.json.encode({"ready": False, "reason": reason}), status=503)

    @app.get("/queue")
    async def queue() -> Response:
        return _json(msgspec.json.encode(line.status()))

    @app.get("/queue/jobs/<job_id>")
    async def job(job_id: str) -> Response:
        report = line.find(job_id)
        if report is None:
            raise NotFound("There is no such job: it never was, or it ended too long ago (--remembered-jobs).")
        return _json(msgspec.json.encode(report))


def _json(body: bytes, status: int = 200) -> Response:
    """One JSON body, which ends its line: a shell's prompt does not stand behind it."""
    return Response(body.removesuffix(b"\n") + b"\n", status=status, content_type="application/json")
