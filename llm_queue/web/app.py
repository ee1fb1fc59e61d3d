"""The web: Quart, with the gate in front of it, and errors in the caller's dialect."""

from __future__ import annotations

import socket
from typing import cast

import structlog
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from llm_queue.errors import BadRequest, BodyTooLarge, QueueError
from llm_queue.instance import Instance
from llm_queue.settings import Settings
from llm_queue.web.addresses import not_found, wrong_method
from llm_queue.web.clients import UNKNOWN, client_of
from llm_queue.web.connection import HttpConnection
from llm_queue.web.gate import AccessRules, Gate
from llm_queue.web.headers import error_headers, job_headers
from llm_queue.web.metrics import add_metrics_route
from llm_queue.web.passage import Passage
from llm_queue.web.refusals import tell_refusal
from llm_queue.web.routes import add_routes
from llm_queue.web.service import Metrics, Service
from llm_queue.web.visit import App, Scope, visit_of
from llm_queue.wire.callers.anthropic import VERSION_HEADER
from llm_queue.wire.callers.dialect import Dialect
from llm_queue.wire.callers.routes import dialect_of

_log = structlog.get_logger("llm_queue.web")


class WebApp(QuartTrio):
    """Quart, with our connection class."""

    asgi_http_class = HttpConnection


def create_app(
    settings: Settings, line: Service, instance: Instance | None = None, metrics: Metrics | None = None
) -> App:
    """The ASGI application: everything a caller can reach, behind the gate. ``instance`` is who we are upstream,
    ``metrics`` the numbers of the line, if they are kept.
    """
    rules = AccessRules.of(settings, socket.gethostname())
    app: App = create_quart(settings, line, metrics)
    if settings.allow_ollama_admin:
        app = Passage(app, line)

    def refused(error: QueueError, scope: Scope) -> None:
        tell_refusal(line, error, UNKNOWN, scope)

    return Gate(app, rules, refused, instance)


def create_quart(settings: Settings, line: Service, metrics: Metrics | None = None) -> QuartTrio:
    """What is behind the gate."""
    app = WebApp("llm_queue.web", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body,
        RESPONSE_TIMEOUT=None,  # it would cut a long stream without a word
        BODY_TIMEOUT=None,  # the chat endpoint has a limit of its own, between bytes
    )
    app.url_map.strict_slashes = app.url_map.merge_slashes = False  # no redirects: an API answers or refuses
    add_routes(app, settings, line)
    add_metrics_route(app, metrics)

    async def refuse(error: QueueError) -> Response:
        visit = visit_of(request.scope)
        ticket = visit.ticket
        if ticket is None:
            scope = cast(Scope, request.scope)
            tell_refusal(line, error, client_of(request.headers, visit.permit, scope), scope)
        dialect = dialect_of(request.path, request.headers.get(VERSION_HEADER))
        response = error_response(error, dialect, visit.request_id)
        if ticket is not None:
            response.headers.update(job_headers(ticket.job))
        return response

    async def refuse_http(error: HTTPException) -> Response:
        request.routing_exception = None  # its traceback leads back to the request: a knot for the garbage collector
        allowed = getattr(error, "valid_methods", None) or ()
        path: str = request.scope["path"]  # Quart's own has lost a doubled slash
        if error.code == 404:
            response = await refuse(not_found(app.url_map, path))
        elif error.code == 405:
            response = await refuse(wrong_method(path, request.method, allowed))
            response.headers["Allow"] = ", ".join(sorted(allowed))
        else:
            response = await refuse(_translated(error))
        return response

    async def fail(error: Exception) -> Response:
        _log.error("a request failed by an error of ours", exc_info=error)
        return await refuse(QueueError())

    app.register_error_handler(QueueError, refuse)
    app.register_error_handler(HTTPException, refuse_http)
    app.register_error_handler(Exception, fail)
    return app


def error_response(error: QueueError, dialect: Dialect, request_id: str) -> Response:
    """The error in the shape of the caller's dialect, with what tells an SDK whether to ask again."""
    body = dialect.error_body(error, request_id)
    response = Response(body, status=error.http_status, content_type=dialect.error_type)
    for name, value in error_headers(error):
        response.headers[name.decode()] = value.decode()
    return response


def _translated(error: HTTPException) -> QueueError:
    """Quart's own errors as ours: its HTML pages never leave the house."""
    if error.code == 413:
        return BodyTooLarge()
    if error.code is not None and 400 <= error.code < 500:
        return BadRequest(error.description)
    return QueueError()
