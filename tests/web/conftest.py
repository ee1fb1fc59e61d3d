"""The web's tests: the real app, in front of a line that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trio.testing

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.counts import Counts
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.seat import Seat
from llm_queue.dispatch.status import JobReport, PauseStatus, Status, line_status, report
from llm_queue.dispatch.tickets import Place, Submission, Ticket
from llm_queue.errors import ModelNotFound, QueueError
from llm_queue.settings import Settings
from llm_queue.testing import ScriptedUpstream
from llm_queue.upstream.protocol import Model, Native
from llm_queue.web.app import create_app
from llm_queue.web.listener import open_listeners, serve_http
from llm_queue.wire.shapes import ChatRequest, Request


@dataclass
class FakeCatalog:
    """Knows one model, or fails as it is told to."""

    error: QueueError | None = None
    refusal: QueueError | None = None
    dropped: tuple[str, ...] = ()
    listed: list[Model] = field(default_factory=lambda: [Model("small", "sha", 32768, created=7)])
    described: set[str] = field(default_factory=set)
    undescribed: set[str] = field(default_factory=set)
    """Names of models of which the upstream says nothing."""

    async def resolve(self, name: str) -> Model:
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        for model in self.listed:
            if model.name == name:
                return model
        raise ModelNotFound(param="model", model=name)

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error

    async def describe_all(self) -> None:
        await trio.lowlevel.checkpoint()
        self.described = {model.name for model in self.listed} - self.undescribed

    def lookup(self, name: str) -> Model | None:
        return next((model for model in self.listed if model.name == name and name in self.described), None)

    def check(self, request: Request) -> tuple[str, ...]:
        if self.refusal:
            raise self.refusal
        return self.dropped

    def models(self) -> list[Model]:
        return self.listed


class FakeCommands:
    """Writes down what was ordered, and refuses it if it is told to."""

    def __init__(self) -> None:
        self.ordered: list[tuple[object, ...]] = []
        self.error: QueueError | None = None
        self.state = State.CANCELLED

    async def _order(self, *what: object) -> None:
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        self.ordered.append(what)

    async def cancel(self, job_id: str) -> State:
        await self._order("cancel", job_id)
        return self.state

    async def move(self, job_id: str, lane: Lane) -> None:
        await self._order("move", job_id, lane)

    async def pause(self, *, unload: bool) -> PauseStatus | None:
        await self._order("pause", unload)
        return PauseStatus(since_s=0.0, unloaded=unload)

    async def resume(self) -> None:
        await self._order("resume")

    def drain(self) -> int:
        self.ordered.append(("drain",))
        return 3


class FakeChanges:
    """When the line has changed: when the test says so."""

    def __init__(self) -> None:
        self.number = 0
        self.ended = False
        self._news = trio.Event()

    def change(self, *, end: bool = False) -> None:
        self.number, self.ended = self.number + 1, end
        self._news.set()
        self._news = trio.Event()

    async def after(self, number: int) -> None:
        await trio.lowlevel.checkpoint()
        while self.number <= number and not self.ended:
            await self._news.wait()


class FakeLine:
    """Hands out real tickets; ``script`` plays the dispatcher's part on each."""

    def __init__(self) -> None:
        self.catalog = FakeCatalog()
        self.commands = FakeCommands()
        self.reason: str | None = None
        self.error: QueueError | None = None
        self.where = Place(3, 40.2)
        self.tickets: list[Ticket] = []
        self.left: list[str] = []
        self.leaving: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.limits: list[int] = []
        self.ollama: Native | None = None
        self.granted = 8192
        self._changes: FakeChanges | None = None
        self.unloadable = True
        self.asked_to_count: list[Request] = []
        self.counted: int | None = None
        self.submitted = trio.Event()
        self.gone = trio.Event()
        self.script: Callable[[Ticket], None] = lambda ticket: None

    @property
    def changes(self) -> FakeChanges:
        self._changes = self._changes or FakeChanges()
        return self._changes

    @property
    def models(self) -> FakeLine:
        """It says itself what a line says of its models."""
        return self

    @property
    def native(self) -> Native | None:
        return self.ollama

    def granted_ctx(self, model: Model) -> int:
        return min(self.granted, model.trained or self.granted)

    def loaded(self) -> list[tuple[Model, int]]:
        return [(model, self.granted) for model in self.catalog.listed]

    def may_unload(self, model: Model) -> bool:
        return self.unloadable

    def submit(self, submission: Submission) -> Ticket:
        if self.error:
            raise self.error
        job = Job(f"job_{len(self.tickets)}", submission.lane, submission.client, "sha", 8192, 0, 10.0)
        ticket = Ticket(
            job, submission, leave=lambda left, error: self.leave(left.id, error), place=lambda _: self.where
        )
        self.tickets.append(ticket)
        self.submitted.set()
        self.script(ticket)
        return ticket

    def leave(self, job_id: str, error: QueueError) -> None:
        self.left.append(job_id)
        self.leaving.append(error.code)
        self.gone.set()

    def estimate_tokens(self, request: Request, model: Model | None) -> int:
        return 7

    async def count_tokens(self, request: Request, model: Model) -> int | None:
        await trio.lowlevel.checkpoint()
        self.asked_to_count.append(request)
        return self.counted

    def largest_ctx(self, model: Model) -> int:
        return 16384

    def readiness(self) -> str | None:
        return self.reason

    def find(self, job_id: str) -> JobReport | None:
        if job_id != "job_0":
            return None
        job = Job(job_id, Lane.NORMAL, "cron", "sha", 8192, 0, 10.0)
        return report(job, Submission(request=ChatRequest("small", ()), model=Model("small", "sha")), now=11.5)

    def status(self, limit: int = 50) -> Status:
        self.limits.append(limit)
        seat = Seat(ContextSizes(8192, 8192), now=0.0)
        return line_status(
            ScriptedUpstream(), seat, Counts(), away=None, waiting={}, jobs=(), rejected={}, unknown_lanes=0
        )

    def rejected(self, error: QueueError, client: str) -> None:
        self.refused.append((error.code, client))


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing moves, but leaves the kernel a moment to carry bytes from socket to socket."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


class Caller:
    """Connections to the served app."""

    def __init__(self, port: int, shutdown: trio.Event) -> None:
        self.port = port
        self.shutdown = shutdown

    async def connect(self, data: bytes) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(data)
        return stream


@pytest.fixture
def serving(line: FakeLine) -> Callable[[], AbstractAsyncContextManager[Caller]]:
    """The app on a real socket."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[Caller]:
        listeners, _ = await open_listeners("127.0.0.1", 0)
        port: int = listeners[0].socket.getsockname()[1]
        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:
            app = create_app(Settings(model="small", max_body=1000), line)
            await nursery.start(partial(serve_http, app, listeners, shutdown=shutdown))
            yield Caller(port, shutdown)
            shutdown.set()

    return serve
