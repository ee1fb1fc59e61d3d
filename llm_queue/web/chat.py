"""One chat request: read, check, queue, answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import trio
from quart import Request, Response

from llm_queue.core.jobs import Job, Lane
from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.errors import BadRequest, BodyTooLarge, ConnectionLost, LineFull, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.web.bodies import decoded, known_encoding
from llm_queue.web.clients import Clients
from llm_queue.web.headers import job_headers
from llm_queue.web.service import Service
from llm_queue.web.stream import EventStream, first_items
from llm_queue.web.visit import Scope, visit_of
from llm_queue.wire.callers.openai import ChatEncoder, ParsedChat, RequestLimits, lane_name, parse_chat, tier_name
from llm_queue.wire.shapes import Completion

logger = logging.getLogger("llm_queue.web")

BODY_STALL: Final = 30.0
"""Seconds without a byte after which a request body counts as given up."""

LARGE: Final = 256 * 2**10
"""Bytes from which on a body is checked in a thread: 32 MiB of brackets take two seconds."""

NEARLY_FULL: Final = 0.98
"""Share of the context at which a prompt was probably cut: Ollama leaves out old messages until the rest fits."""

KEPT: Final = (4, 5)
"""Tokens that Ollama keeps at the beginning of a last message that is too long by itself: its default ``num_keep``, and
one for the beginning of the text where a model has that. It drops half of the rest (``contextShiftPromptLimit`` in its
llm/llama_server.go, 0.33)."""


class ChatEndpoint:
    """POST /v1/chat/completions."""

    def __init__(self, settings: Settings, line: Service) -> None:
        self._settings = settings
        self._line = line
        self._clients = Clients()
        self._arriving = 0
        self._limits = RequestLimits(
            max_depth=settings.max_depth,
            max_messages=settings.max_messages,
            num_ctx_ceiling=settings.num_ctx_ceiling,
        )

    async def answer(self, request: Request, scope: Scope) -> Response:
        """Serve one request. Raises the :class:`~llm_queue.errors.QueueError` to answer with instead.

        Puts the job's ticket into ``scope``, which is where it is closed from.
        """
        counted = 0

        def arrive(size: int) -> None:
            nonlocal counted
            counted += size
            self._arriving += size
            if self._arriving > self._settings.max_waiting_bytes:
                raise LineFull("More request bodies are arriving than --max-waiting-bytes allows.", retry_after=1)

        try:
            body = await read_body(request, self._settings.max_body, arrive)
            parsed = await self._parse(body)
            submission = await self._submission(request, scope, parsed, len(body))
            del body
            ticket = self._line.submit(submission)
        finally:
            self._arriving -= counted  # from here on it is the line that counts them
        visit_of(scope).ticket = ticket
        encoder = ChatEncoder(
            model=submission.request.model,
            created=int(time.time()),
            include_usage=parsed.include_usage,
            service_tier=tier_name(submission.lane.label),
        )
        respond = _stream if parsed.stream else _whole
        response = await respond(ticket, encoder)
        if parsed.dropped:
            response.headers["X-LLM-Queue-Dropped"] = ", ".join(parsed.dropped)
        return response

    async def _parse(self, body: bytes) -> ParsedChat:
        if len(body) < LARGE:
            return parse_chat(body, self._limits)
        return await trio.to_thread.run_sync(parse_chat, body, self._limits, abandon_on_cancel=True)

    async def _submission(self, request: Request, scope: Scope, parsed: ParsedChat, size: int) -> Submission:
        name = parsed.request.model or self._settings.model
        lane, unknown_lane = lane_name(request.headers.get("X-LLM-Queue-Lane"), parsed.priority, parsed.service_tier)
        max_wait = _max_wait(request, self._settings.max_wait)
        try:
            model = await self._line.catalog.resolve(name)
        except (UpstreamUnreachable, ConnectionLost):
            model = None  # the line may outlast the outage; it asks again when it picks the job
        return Submission(
            request=msgspec.structs.replace(parsed.request, model=name or (model.name if model else "")),
            model=model,
            lane=Lane[lane.upper()],
            client=await self._clients.name(request.headers, visit_of(scope).key_name, scope),
            stream=parsed.stream,
            num_ctx=parsed.num_ctx,
            max_wait=max_wait,
            size=size,
            request_id=visit_of(scope).request_id,
            unknown_lane=unknown_lane,
        )


async def read_body(request: Request, limit: int, arrive: Callable[[int], None]) -> bytes:
    """The request body. Raises ``BodyTooLarge`` at the first byte too many, whatever its headers say.

    ``arrive`` is told of each piece's size, and may refuse it.
    """
    encoding = known_encoding(request.headers.get("Content-Encoding"))
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    chunks = bytearray()
    body = aiter(request.body)
    while True:
        with trio.move_on_after(BODY_STALL) as patience:
            try:
                chunk = await anext(body)
                arrive(len(chunk))
                chunks += chunk
            except StopAsyncIteration:
                return await decoded(bytes(chunks), encoding, limit, arrive) if encoding else bytes(chunks)
            except BaseException:
                chunks.clear()  # its traceback would keep them until the garbage collector comes round
                raise
        if patience.cancelled_caught:
            raise BadRequest(f"The request body stopped arriving for {BODY_STALL:g} s.")
        if len(chunks) > limit:
            raise _too_large(limit)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes. Send less, or raise --max-body.")


def _max_wait(request: Request, default: float | None) -> float | None:
    raw = request.headers.get("X-LLM-Queue-Max-Wait")
    if raw is None:
        return default
    try:
        seconds = float(raw)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadRequest("X-LLM-Queue-Max-Wait takes seconds, 0 or more.", param="X-LLM-Queue-Max-Wait")
    return seconds


async def _whole(ticket: Ticket, encoder: ChatEncoder) -> Response:
    answer = await ticket.whole()
    response = Response(encoder.whole(answer), content_type="application/json")
    response.headers.update(job_headers(ticket.job))
    if _was_cut(ticket.job, answer.completion):
        response.headers["X-LLM-Queue-Truncated"] = "maybe"
    return response


async def _stream(ticket: Ticket, encoder: ChatEncoder) -> Response:
    first = await first_items(ticket)
    body = EventStream(ticket, encoder, first, partial(_was_cut, ticket.job))
    response = Response(body, content_type="text/event-stream; charset=utf-8")
    response.headers.update(job_headers(ticket.job))
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would gather the events
    return response


def _was_cut(job: Job, completion: Completion) -> bool:
    """True, and a line in the log, if the prompt has the size to which Ollama cuts one, without a word."""
    num_ctx = job.key.num_ctx if job.key else 0
    halves = [num_ctx - (num_ctx - kept) // 2 for kept in KEPT]
    if not num_ctx or (completion.prompt_tokens < NEARLY_FULL * num_ctx and completion.prompt_tokens not in halves):
        return False
    logger.warning(
        "job %s: its prompt was too long for num_ctx %d, so Ollama has probably cut it; ask with a larger numCtx",
        job.id,
        num_ctx,
    )
    return True
