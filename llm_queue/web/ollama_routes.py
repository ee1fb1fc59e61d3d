"""What programs that know Ollama ask besides model work: whether it is there, and what it knows of its models.

None of it takes the slot. What would change Ollama is closed here; :mod:`llm_queue.web.passage` opens it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import MethodNotAllowed

from llm_queue.errors import Forbidden, ModelNotFound, QueueError, UpstreamError
from llm_queue.settings import Settings
from llm_queue.upstream.protocol import Model, Native, NativeAnswer
from llm_queue.web.clients import client_of
from llm_queue.web.endpoint import Endpoint, read_body
from llm_queue.web.page import page_response, wants_page
from llm_queue.web.refusals import tell_refusal
from llm_queue.web.service import Service
from llm_queue.web.visit import Scope, visit_of
from llm_queue.wire.callers import ollama_lists as lists
from llm_queue.wire.callers.ollama import JSON, LINES, error_line, tagged
from llm_queue.wire.callers.ollama_request import Change, asked_to_change, asked_to_show

RUNNING: Final = "Ollama is running"
"""What Ollama says at its root; programs look for it to see whether it is there."""

ASKED_AT_ONCE: Final = 4
"""Questions that are passed on to Ollama at once. Programs ask for what is loaded every second or so; whoever asks
without a pause waits for its own questions."""

CHANGES: Final = {
    "/api/pull": ("POST", "pull NAME"),
    "/api/push": ("POST", "push NAME"),
    "/api/create": ("POST", "create NAME"),
    "/api/copy": ("POST", "cp NAME OTHER"),
    "/api/delete": ("DELETE", "rm NAME"),
    "/api/blobs/<digest>": ("POST", "create NAME"),
}
"""What changes Ollama: by address, with its method, and the command of Ollama's own that does it."""


def add_ollama_routes(app: QuartTrio, settings: Settings, line: Service, endpoint: Endpoint) -> None:
    """Register them. ``endpoint`` counts the bytes of their bodies, as of all others."""
    questions = _Questions(settings, line, endpoint)

    @app.get("/")
    async def root() -> Response:
        """The live page for a browser; for everybody else what Ollama says where it runs."""
        wanted = wants_page(request.headers.get("Accept", ""))
        response = page_response() if wanted else Response(RUNNING, content_type="text/plain; charset=utf-8")
        response.headers["Vary"] = "Accept"
        return response

    for path, answer, methods in (
        ("/api/version", questions.version, ["GET"]),
        ("/api/tags", questions.tags, ["GET"]),
        ("/api/ps", questions.ps, ["GET"]),
        ("/api/show", questions.show, ["POST"]),
    ):
        app.add_url_rule(path, endpoint=path, view_func=answer, methods=methods)
    for path, (method, command) in CHANGES.items():
        refuse = _refusing(settings, line, endpoint, command, pulls=path == "/api/pull", blobs="blobs" in path)
        methods = [method, "HEAD"] if "blobs" in path else [method]
        app.add_url_rule(path, endpoint=path, view_func=refuse, methods=methods)


class _Questions:
    """Ollama's own answers where it is there, but for the context; else the line's."""

    def __init__(self, settings: Settings, line: Service, endpoint: Endpoint) -> None:
        self._settings = settings
        self._line = line
        self._endpoint = endpoint
        self._asking = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def version(self) -> Response:
        """Programs refuse to work with old ones."""
        if self._line.models.native is None:
            return _json(lists.version_body())
        return _passed(await self._ask(self._line.models.native, "GET", "/api/version"))

    async def tags(self) -> Response:
        """The models that there are."""
        if self._line.models.native is None:
            await self._line.catalog.refresh()
            return _json(lists.tags_body(self._listed(model) for model in self._line.catalog.models()))
        answer = await self._ask(self._line.models.native, "GET", "/api/tags")
        return _passed(answer, lambda body: lists.granted_tags(body, self._granted))

    async def ps(self) -> Response:
        """The models that are loaded. Ollama has this for GET alone."""
        if request.method == "HEAD":
            raise MethodNotAllowed(["GET"])
        if self._line.models.native is None:
            loaded = self._line.models.loaded()
            return _json(lists.ps_body(self._listed(model, num_ctx) for model, num_ctx in loaded))
        answer = await self._ask(self._line.models.native, "GET", "/api/ps")
        sizes = {name: await self._size(name) for name in lists.names_in(answer.body)}
        return _passed(answer, lambda body: lists.granted_ps(body, sizes.__getitem__))

    async def show(self) -> Response:
        """What is known of one model."""
        with self._endpoint.arrival() as arrive:
            return await self._show(await _body(self._settings, arrive))

    async def _show(self, body: bytes) -> Response:
        name = asked_to_show(body, self._settings.max_depth)
        if self._line.models.native is None:
            try:
                model = await self._line.catalog.resolve(name)
            except ModelNotFound as error:
                raise ModelNotFound(error.message, param="model", model=tagged(name)) from error
            return _json(lists.show_body(self._listed(model)))
        program = request.headers.get("User-Agent", "")
        answer = await self._ask(self._line.models.native, "POST", "/api/show", body, program=program)
        if answer.status == 404 and (known := await self._known(name)) is not None:  # by an alias of the line's own
            body = msgspec.json.encode({"model": known.name})
            answer = await self._ask(self._line.models.native, "POST", "/api/show", body, program=program)
        size = await self._size(name) if answer.status == 200 else 0
        return _passed(answer, lambda body: lists.granted_show(body, size))

    async def _ask(
        self, native: Native, method: str, path: str, body: bytes = b"", *, program: str = ""
    ) -> NativeAnswer:
        """Ollama's answer, when few others are waited for: to show a model costs it work."""
        async with self._asking:
            return await native.ask(method, path, body, program=program)

    async def _size(self, name: str) -> int:
        """The context size in tokens that a caller of that model gets; 0 where the line does not choose it."""
        model = await self._known(name)
        return 0 if model is None or model.remote else self._line.models.granted_ctx(model)

    async def _known(self, name: str) -> Model | None:
        try:
            return await self._line.catalog.resolve(name)
        except (ModelNotFound, UpstreamError):
            return None

    def _granted(self, name: str, digest: str, trained: int) -> int:
        return self._line.models.granted_ctx(Model(name, digest, trained))

    def _listed(self, model: Model, num_ctx: int | None = None) -> lists.Listed:
        size = self._line.models.granted_ctx(model) if num_ctx is None else num_ctx
        return lists.Listed(model.name, model.identity, model.created, size, model.capabilities)


def _refusing(
    settings: Settings,
    line: Service,
    endpoint: Endpoint,
    command: str,
    *,
    pulls: bool = False,
    blobs: bool = False,
) -> Callable[..., Awaitable[Response]]:
    async def refuse(**_: str) -> Response:
        """Closed: it would change Ollama."""
        with endpoint.arrival() as arrive:
            asked = Change() if blobs else asked_to_change(await _body(settings, arrive), settings.max_depth)
        error = _closed(line, command.replace("NAME", asked.name) if asked.name else command)
        if not (pulls and asked.stream):
            raise error
        # A program that pulls a model it misses reads a status other than 200 and not what it says.
        scope = cast(Scope, request.scope)
        tell_refusal(line, error, client_of(request.headers, visit_of(scope).permit, scope), scope)
        return Response(error_line(error.message), content_type=LINES)

    return refuse


def _closed(line: Service, command: str) -> QueueError:
    upstream = line.status(0).upstream
    if line.models.native is None:
        return Forbidden(f"There is no Ollama behind this line, but {upstream.name}: its models are its own affair.")
    return Forbidden(
        f"llm-queue lets nobody change Ollama. Past it, `OLLAMA_HOST={upstream.url} ollama {command}` does this; "
        "--allow-ollama-admin (LLM_QUEUE_ALLOW_OLLAMA_ADMIN=1) passes it on."
    )


async def _body(settings: Settings, arrive: Callable[[int], None]) -> bytes:
    return await read_body(cast(Any, request), settings.max_body, arrive)


def _passed(answer: NativeAnswer, change: Callable[[bytes], bytes] = bytes) -> Response:
    """Ollama's answer; ``change`` is applied to one that is no error."""
    body = change(answer.body) if answer.status == 200 else answer.body
    return Response(body, status=answer.status, content_type=answer.media_type)


def _json(body: bytes) -> Response:
    return Response(body, content_type=JSON)
