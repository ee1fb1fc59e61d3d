"""One request that goes through the line, in any dialect: read, check, queue, answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
import trio
from quart import Request, Response

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.fingerprints import fingerprint
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import BadRequest, BodyTooLarge, ConnectionLost, LineFull, UpstreamUnreachable
from llm_queue.settings import Settings
from llm_queue.traceparent import TraceContext
from llm_queue.upstream.protocol import Model
from llm_queue.web.bodies import decoded, known_encoding
from llm_queue.web.clients import Clients
from llm_queue.web.headers import dropped_names
from llm_queue.web.limits import TimeLimit
from llm_queue.web.series import in_turn
from llm_queue.web.service import Service
from llm_queue.web.stream import QUIET, streamed_answer
from llm_queue.web.visit import Scope, visit_of
from llm_queue.web.whole import PATIENCE, whole_answer
from llm_queue.wire import wishes
from llm_queue.wire.callers.dialect import Operation, Parsed, RequestLimits, Served
from llm_queue.wire.prompts import PromptSize, prompt_size
from llm_queue.wire.shapes import Answer, Completion, Delta, LoadRequest
from llm_queue.wire.wishes import NORMAL, Wishes

R = TypeVar("R")
T = TypeVar("T")

BODY_STALL: Final = 30.0
"""Seconds without a byte after which a request body counts as given up."""

_ARRIVING: Final = "More request bodies are arriving than --max-waiting-bytes allows."

COUNTED_AT_ONCE: Final = 4
"""Prompts that the engine is asked to count at once. It does so beside its work, in a few milliseconds each."""

LARGE: Final = 256 * 2**10
"""Bytes from which on a body is checked in a thread: 32 MiB of brackets take two seconds."""


UNLOADED: Final = Answer(Delta(), Completion("unload"))
"""The answer to who wants a model unloaded."""


class Endpoint:
    """Serves every operation of every dialect."""

    def __init__(self, settings: Settings, line: Service) -> None:
        self._settings = settings
        self._line = line
        self._clients = Clients()
        self._arriving = 0
        self._patience, self._quiet = TimeLimit(PATIENCE), TimeLimit(QUIET)
        self.counting = trio.CapacityLimiter(COUNTED_AT_ONCE)
        """Who has a place in it may ask the engine to count a prompt."""
        self._limits = RequestLimits(
            max_depth=settings.max_depth,
            max_messages=settings.max_messages,
            num_ctx_ceiling=settings.num_ctx_ceiling,
        )

    async def answer(self, operation: Operation[Any], request: Request, scope: Scope) -> Response:
        """Serve one request. Raises the :class:`~llm_queue.errors.QueueError` to answer with instead.

        Puts the job's ticket into ``scope``, which is where it is closed from.
        """
        with self.arrival() as arrive:
            parsed, prompt, size = await self._read(operation.parse, request, arrive)
            wanted = wishes.from_headers(request.headers, self._settings.num_ctx_ceiling).over(parsed.wishes)
            submission = await self._submission(request, scope, parsed, wanted, size, prompt)
            if self._stays(submission):
                encoder = operation.encoder(parsed.reply, Served(submission.request.model, int(time.time())))
                return Response(encoder.whole(UNLOADED), content_type=operation.whole_type)
            ticket = in_turn(self._line.submit, submission, parsed.more)  # from here on the line counts its bytes
        visit = visit_of(scope)
        visit.ticket = ticket
        served = Served(
            model=submission.request.model,
            created=int(time.time()),
            lane=submission.lane.label,
            request_id=visit.request_id,
        )
        encoder = operation.encoder(parsed.reply, served)
        streams, dropped = parsed.stream, wanted.dropped
        del parsed, submission, wanted  # the line has what it needs of them, and thousands may wait in the next lines
        if streams:
            response = await streamed_answer(ticket, encoder, operation.stream_type, self._quiet)
        else:
            response = await whole_answer(
                ticket,
                encoder,
                operation,
                visit,
                http_version=request.http_version,
                patience=self._patience,
                quiet=self._quiet,
            )
        if dropped:
            response.headers["X-LLM-Queue-Dropped"] = dropped_names(dropped)
        return response

    def _stays(self, submission: Submission) -> bool:
        """True if the caller wants a model unloaded which is not there, or which others want: then nothing is done."""
        request, model = submission.request, submission.model
        unloads = isinstance(request, LoadRequest) and request.unload
        return unloads and (model is None or not self._line.models.may_unload(model))

    @asynccontextmanager
    async def reading(
        self, parse: Callable[[bytes, RequestLimits], Parsed[R]], request: Request
    ) -> AsyncIterator[tuple[Parsed[R], PromptSize]]:
        """The checked request in a body that is to become no job, and the size of its prompt.

        Its bytes are counted until the block ends. Raises what :meth:`answer` raises for it.
        """
        with self.arrival() as arrive:
            parsed, prompt, _ = await self._read(parse, request, arrive)
            yield parsed, prompt

    @contextmanager
    def arrival(self) -> Iterator[Callable[[int], None]]:
        """Counts the bytes of a body that arrives, for as long as the block lasts. Raises ``LineFull``."""
        counted = 0

        def arrive(size: int) -> None:
            nonlocal counted
            counted += size
            self._arriving += size
            if self._arriving > self._settings.max_waiting_bytes:
                raise LineFull(_ARRIVING, retry_after=1)

        try:
            yield arrive
        finally:
            self._arriving -= counted

    async def _read(
        self, parse: Callable[[bytes, RequestLimits], Parsed[R]], request: Request, arrive: Callable[[int], None]
    ) -> tuple[Parsed[R], PromptSize, int]:
        """The checked request, the size of its prompt, and that of its body in bytes.

        Among what is dropped is what the upstream has no field for.
        """
        body = await read_body(request, self._settings.max_body, arrive)
        size = len(body)
        parsed = await _aside(size, parse, body, self._limits)
        left_out = await _aside(size, self._line.catalog.check, parsed.request)
        dropped = msgspec.structs.replace(parsed.wishes, dropped=parsed.wishes.dropped + left_out)
        return replace(parsed, wishes=dropped), await _aside(size, prompt_size, parsed.request), size

    async def model(self, name: str) -> Model | None:
        """The model of that name, or the one for requests that name none. None if the upstream cannot be asked.

        Raises ``ModelNotFound``.
        """
        try:
            return await self._line.catalog.resolve(name or self._settings.model)
        except (UpstreamUnreachable, ConnectionLost):
            return None

    async def _submission(
        self, request: Request, scope: Scope, parsed: Parsed[Any], wanted: Wishes, size: int, prompt: PromptSize
    ) -> Submission:
        name = parsed.request.model or self._settings.model
        permit = visit_of(scope).permit
        model = await self.model(name)  # without one the line may outlast the outage: it asks again for its pick
        return Submission(
            request=msgspec.structs.replace(parsed.request, model=name or (model.name if model else "")),
            model=model,
            lane=max(Lane[(wanted.lane or NORMAL).upper()], permit.lane),
            client=await self._clients.name(request.headers, permit, scope),
            share=permit.share,
            stream=parsed.stream,
            num_ctx=wanted.num_ctx,
            max_wait=self._settings.max_wait if wanted.max_wait is None else wanted.max_wait,
            size=size,
            request_id=visit_of(scope).request_id,
            unknown_lane=wanted.unknown_lane,
            session=wanted.session,
            supersede=wanted.supersede or "",
            prompt_size=prompt,
            fingerprint=await _aside(size, fingerprint, parsed.request),
            trace=TraceContext.read(request.headers.getlist("traceparent"), request.headers.getlist("tracestate")),
        )


async def _aside(size: int, check: Callable[..., T], *arguments: object) -> T:
    """What ``check`` returns; run in a thread where the body has so many bytes that everybody else would wait."""
    if size < LARGE:
        return check(*arguments)
    return await trio.to_thread.run_sync(check, *arguments, abandon_on_cancel=True)


async def read_body(request: Request, limit: int, arrive: Callable[[int], None]) -> bytes:
    """The request body. Raises ``BodyTooLarge`` at the first byte too many, whatever its headers say.

    ``arrive`` is told of each piece's size, and may refuse it.
    """
    encoding = known_encoding(request.headers.get("Content-Encoding"))
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    chunks = bytearray()
    with trio.move_on_after(BODY_STALL) as patience:
        try:
            async for chunk in request.body:
                arrive(len(chunk))
                chunks += chunk
                if len(chunks) > limit:
                    raise _too_large(limit)
                patience.deadline = trio.current_time() + BODY_STALL
        except BaseException:
            chunks.clear()  # its traceback would keep them until the garbage collector comes round
            raise
    if patience.cancelled_caught:
        raise BadRequest(f"The request body stopped arriving for {BODY_STALL:g} s.")
    return await decoded(bytes(chunks), encoding, limit, arrive) if encoding else bytes(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes. Send less, or raise --max-body.")
