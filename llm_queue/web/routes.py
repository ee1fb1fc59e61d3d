"""What can be asked of the service, one function per address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio

from llm_queue.errors import BadRequest, NotFound
from llm_queue.settings import Settings
from llm_queue.web.anthropic import AnthropicRoutes
from llm_queue.web.commands import add_commands
from llm_queue.web.counting import count_tokens
from llm_queue.web.endpoint import Endpoint
from llm_queue.web.feed import Feed
from llm_queue.web.models import facts_of, known_models
from llm_queue.web.ollama_routes import add_ollama_routes
from llm_queue.web.openapi import openapi_document
from llm_queue.web.page import add_page_routes
from llm_queue.web.responses import add_responses_routes
from llm_queue.web.service import Service
from llm_queue.web.visit import Scope
from llm_queue.wire.callers.dialect import Operation
from llm_queue.wire.callers.openai_chat import count_body
from llm_queue.wire.callers.openai_models import model_body, models_body
from llm_queue.wire.callers.openai_request import parse_chat
from llm_queue.wire.callers.routes import ROUTES

MOST_LISTED: Final = 1000
"""Jobs that ``/queue?limit=N`` lists at most: ordering them takes some 30 ms, in which nobody else is served."""


def add_routes(app: QuartTrio, settings: Settings, line: Service) -> None:
    """Register every route."""
    endpoint = Endpoint(settings, line)

    def serve(operation: Operation[Any]) -> Callable[[], Awaitable[Response]]:
        async def answer() -> Response:
            return await endpoint.answer(
                operation, cast(Any, request)._get_current_object(), cast(Scope, request.scope)
            )

        return answer

    add_ollama_routes(app, settings, line, endpoint)
    add_page_routes(app)
    for path, operation in ROUTES:
        app.add_url_rule(path, endpoint=path, view_func=serve(operation), methods=["POST"])

    anthropic = AnthropicRoutes(endpoint, line)
    app.add_url_rule("/v1/messages/count_tokens", view_func=anthropic.count_tokens, methods=["POST"])
    add_responses_routes(app, endpoint, line)
    add_commands(app, settings, line)

    @app.post("/v1/chat/completions/input_tokens")
    @app.post("/chat/completions/input_tokens")
    async def chat_tokens() -> Response:
        """How many tokens the prompt of a chat has."""
        return await count_tokens(endpoint, line, parse_chat, count_body)

    @app.get("/v1/models")
    @app.get("/models")
    async def models() -> Response:
        """The models that the upstream has."""
        if anthropic.asked(request.headers):
            return await anthropic.models()
        return _json(models_body(facts_of(line, model, described=known) for model, known in await known_models(line)))

    @app.get("/v1/models/<path:name>")
    @app.get("/models/<path:name>")
    async def model(name: str) -> Response:
        """One of them. Its name may have slashes and a tag."""
        if anthropic.asked(request.headers):
            return await anthropic.model(name)
        return _json(model_body(facts_of(line, await line.catalog.resolve(name))))

    @app.get("/health")
    async def health() -> Response:
        """That the process lives."""
        return Response("ok", content_type="text/plain; charset=utf-8")

    @app.get("/ready")
    async def ready() -> Response:
        """Whether it can serve now."""
        reason = line.readiness()
        if reason is None:
            return _json(msgspec.json.encode({"ready": True}))
        return _json(msgspec.json.encode({"ready": False, "reason": reason}), status=503)

    @app.get("/queue")
    async def queue() -> Response:
        """The line as a whole."""
        asked = request.args.get("limit")
        return _json(msgspec.json.encode(line.status() if asked is None else line.status(_limit(asked))))

    feed = Feed(line)

    @app.get("/queue/events")
    async def queue_events() -> Response:
        """The line as a whole, and again whenever it has changed: server-sent events."""
        return feed.response(request.headers.get("Last-Event-ID"), body=request.method != "HEAD")

    @app.get("/queue/jobs/<job_id>")
    async def job(job_id: str) -> Response:
        """One job, while it lives and for some time after."""
        report = line.find(job_id)
        if report is None:
            raise NotFound("There is no such job: it never was, or it ended too long ago (--remembered-jobs).")
        return _json(msgspec.json.encode(report))

    document: list[bytes] = []

    @app.get("/openapi.json")
    async def openapi() -> Response:
        """This document."""
        if not document:
            document.append(await trio.to_thread.run_sync(openapi_document, app))  # some 30 ms
        return _json(document[0])


def _limit(asked: str) -> int:
    """The number of jobs to list. Raises :class:`~llm_queue.errors.BadRequest` unless it is 0 to MOST_LISTED."""
    digits = asked.isascii() and asked.isdecimal() and len(asked) <= len(str(MOST_LISTED))
    if not digits or int(asked) > MOST_LISTED:
        raise BadRequest(f"limit takes a number of jobs from 0 to {MOST_LISTED}.", param="limit")
    return int(asked)


def _json(body: bytes, status: int = 200) -> Response:
    """One JSON body, which ends its line: a shell's prompt does not stand behind it."""
    return Response(body.removesuffix(b"\n") + b"\n", status=status, content_type="application/json")
