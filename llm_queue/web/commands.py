"""Orders of people over HTTP: ``POST`` under ``/queue``. Fewer callers may order than may ask.

A page of any program of this machine may ask the model something. To end what others wait for, or to stop the line, is
for people at a terminal and for the page that this service has itself.
"""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import msgspec
from quart import Response, request
from quart_trio import QuartTrio

from llm_queue.core.jobs import Lane, State
from llm_queue.dispatch.status import JobReport, PauseStatus
from llm_queue.errors import AlreadyEnded, BadRequest, BodyTooLarge, Forbidden, NotFound
from llm_queue.settings import Settings
from llm_queue.web.clients import is_same_machine
from llm_queue.web.endpoint import read_body
from llm_queue.web.refusals import printable
from llm_queue.web.service import Service
from llm_queue.web.visit import Permit, visit_of
from llm_queue.wire import strict_json

MAX_BODY: Final = 4096
"""Bytes of an order's body, which has one field."""

DEPTH: Final = 4
"""Levels of arrays and objects in it, with those of fields that are not known."""

T = TypeVar("T")


class LaneBody(msgspec.Struct):
    """The lane that a waiting job is to go to."""

    lane: Literal["interactive", "normal", "background"]


class PauseBody(msgspec.Struct):
    """Whether a pause also unloads what is loaded."""

    unload: bool | None = None


class JobState(msgspec.Struct):
    """What became of a job that was cancelled: its state is an end, unless the upstream has not let go of it yet."""

    job: str
    state: str


class PauseState(msgspec.Struct):
    """How the line is paused, or null."""

    paused: PauseStatus | None


class DrainState(msgspec.Struct):
    """The line drains, and the process ends after it; ``jobs`` have not ended yet."""

    draining: bool
    jobs: int


class Orders:
    """The views of all orders. Each raises ``Forbidden`` for who may not order, and ``BadRequest`` for a body that says
    something else.
    """

    def __init__(self, settings: Settings, line: Service) -> None:
        self._line = line
        self._keys = bool(settings.keys)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.origins) - {"*", "null"}

    async def cancel(self, job_id: str) -> Response:
        """End a job, whether it waits or runs. Its caller gets 503 `cancelled`."""
        await self._body(_NOTHING)
        self._job(job_id)
        state = await self._line.commands.cancel(job_id)
        return _json(JobState(job_id, state.value))

    async def lane(self, job_id: str) -> Response:
        """Move a job that waits to another lane."""
        asked = await self._body(_LANE)
        self._job(job_id)
        lane, permit = Lane[asked.lane.upper()], _permit()
        if lane < permit.lane:
            raise Forbidden(f"The highest lane of this key is {permit.lane.label}. Move the job there, or use another.")
        await self._line.commands.move(job_id, lane)
        return _json(self._known(job_id))

    async def pause(self) -> Response:
        """Start nothing more, and unload what is loaded if that is asked."""
        asked = await self._body(_PAUSE)
        self._check_line()
        return _json(PauseState(await self._line.commands.pause(unload=bool(asked.unload))))

    async def resume(self) -> Response:
        """End a pause."""
        await self._body(_NOTHING)
        self._check_line()
        await self._line.commands.resume()
        return _json(PauseState(None))

    async def drain(self) -> Response:
        """Take nothing new, let what is here end, and end the process, as a SIGTERM does."""
        await self._body(_NOTHING)
        self._check_line()
        return _json(DrainState(draining=True, jobs=self._line.commands.drain()))

    def _known(self, job_id: str) -> JobReport:
        report = self._line.find(job_id)
        if report is None:
            raise NotFound("There is no such job: it never was, or it ended too long ago (--remembered-jobs).")
        return report

    def _job(self, job_id: str) -> None:
        """Raises ``NotFound``, ``Forbidden`` for another's job, and ``AlreadyEnded``."""
        report, permit = self._known(job_id), _permit()
        if permit.lane is not Lane.INTERACTIVE and report.client != permit.name:
            raise Forbidden(f"{_CEILING} It commands the jobs of its own name alone.")
        if State(report.state).ended:
            raise AlreadyEnded

    def _check_line(self) -> None:
        if _permit().lane is not Lane.INTERACTIVE:
            raise Forbidden(f"{_CEILING} It does not command the line as a whole.")

    async def _body(self, decoder: msgspec.json.Decoder[T]) -> T:
        """The order's body; an empty one is the same as ``{}``. Who may not order is refused before it is read.

        A page of another site can have a browser send a form, or a body without a type, without asking us first. No
        such request is an order.
        """
        self._check_machine()
        self._check_origin()
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in ("", _JSON):
            raise BadRequest(_NO_JSON)
        try:
            body = await read_body(request, MAX_BODY, lambda _: None)
        except BodyTooLarge:
            raise BodyTooLarge(f"The body of an order has at most {MAX_BODY} bytes.") from None
        if body and not kind:
            raise BadRequest(_NO_JSON)
        return strict_json.decode(body or b"{}", decoder, DEPTH)

    def _check_machine(self) -> None:
        """Without keys, who may ask from elsewhere (--allow-open) cannot be told from who may order."""
        scope = request.scope
        near, far = scope.get("client"), scope.get("server")
        if not self._keys and near and far and not is_same_machine(near[0], far[0] or ""):
            raise Forbidden(
                "Without keys, this line is commanded from its own machine alone. Set LLM_QUEUE_API_KEYS to allow more."
            )

    def _check_origin(self) -> None:
        """Let pass who is no browser, our own page, and the origins that the settings name."""
        headers = request.headers
        origin, host = headers.get("Origin"), headers.get("Host", "").lower()
        if origin is None:
            site = headers.get("Sec-Fetch-Site", "none").lower()
            if site not in ("none", "same-origin"):
                raise Forbidden("A page of another site may not command this line.")
            return
        if origin.lower() in self._origins or origin.lower() in (f"http://{host}", f"https://{host}"):
            return
        raise Forbidden(
            f"Origin {printable(origin)} may not command this line, only ask it. If it should, add it to "
            "LLM_QUEUE_ORIGINS by its name."
        )


def add_commands(app: QuartTrio, settings: Settings, line: Service) -> None:
    """Register the routes of all orders."""
    orders = Orders(settings, line)
    for path, view in (
        ("/queue/jobs/<job_id>/cancel", orders.cancel),
        ("/queue/jobs/<job_id>/lane", orders.lane),
        ("/queue/pause", orders.pause),
        ("/queue/resume", orders.resume),
        ("/queue/drain", orders.drain),
    ):
        app.add_url_rule(path, endpoint=path, view_func=view, methods=["POST"])


def _permit() -> Permit:
    return visit_of(request.scope).permit


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer) + b"\n", content_type=_JSON)


class _Nothing(msgspec.Struct):
    """The body of an order that says all by its address."""


_JSON: Final = "application/json"
_LANE: Final = msgspec.json.Decoder(LaneBody)
_PAUSE: Final = msgspec.json.Decoder(PauseBody)
_NOTHING: Final = msgspec.json.Decoder(_Nothing)
_NO_JSON: Final = "An order is sent as JSON (`Content-Type: application/json`): curl --json '{}' URL"
_CEILING: Final = "This key has a highest lane."
