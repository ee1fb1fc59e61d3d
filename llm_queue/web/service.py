"""What the web needs of the line behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from llm_queue.core.jobs import Lane, State
from llm_queue.dispatch.status import JobReport, PauseStatus, Status
from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.errors import QueueError
from llm_queue.upstream.protocol import Model, Native
from llm_queue.wire.shapes import Request


class Catalog(Protocol):
    """The models that the upstream has."""

    async def resolve(self, name: str) -> Model:
        """The model of that name. Raises ``ModelNotFound`` or ``UpstreamUnreachable``."""

    def check(self, request: Request) -> tuple[str, ...]:
        """The names of fields that the upstream leaves out of a request. Raises ``BadRequest``."""

    def models(self) -> Iterable[Model]:
        """Those last seen."""

    async def refresh(self) -> None:
        """Ask the upstream again. Raises ``UpstreamUnreachable``."""

    async def describe_all(self) -> None:
        """Have those described that are not yet, within a bound, and each once. Raises nothing."""

    def lookup(self, name: str) -> Model | None:
        """The model of that name, described, or None where it would take a question."""


class LineModels(Protocol):
    """What the line says of models."""

    @property
    def native(self) -> Native | None:
        """Ollama's own API if that is the upstream, else None."""

    def estimate_tokens(self, request: Request, model: Model | None) -> int:
        """About how many tokens the prompt of ``request`` has for ``model``."""

    async def count_tokens(self, request: Request, model: Model) -> int | None:
        """How many tokens the prompt of ``request`` has for ``model``, or None where it takes work to count them."""

    def largest_ctx(self, model: Model) -> int:
        """The largest context in tokens that the line gives ``model`` now; 0 where the upstream chooses it."""

    def granted_ctx(self, model: Model) -> int:
        """The context in tokens that a job of ``model``, a described one, gets if it asks for none; 0: not known."""

    def loaded(self) -> list[tuple[Model, int]]:
        """The models that are resident, and at which context size in tokens."""

    def may_unload(self, model: Model) -> bool:
        """True if ``model`` is resident and nobody else waits for it or is served by it."""


class Metrics(Protocol):
    """The numbers of the line."""

    def page(self, accept: str) -> tuple[str, bytes]:
        """The media type and the body, as the ``Accept`` header asks."""


class Commands(Protocol):
    """What people order. The methods that wait may be cancelled; what was ordered is done all the same."""

    async def cancel(self, job_id: str) -> State:
        """End a job, and return its state. Raises ``AlreadyEnded``."""

    async def move(self, job_id: str, lane: Lane) -> None:
        """Put a waiting job into another lane. Raises ``AlreadyEnded`` or ``AlreadyRunning``."""

    async def pause(self, *, unload: bool) -> PauseStatus | None:
        """Start nothing more; ``unload``: unload what is loaded. Raises ``Draining``."""

    async def resume(self) -> None:
        """End a pause."""

    def drain(self) -> int:
        """Have the process drain the line and end. Returns how many jobs have not ended."""


class Changes(Protocol):
    """When what is shown of the line has changed."""

    @property
    def number(self) -> int:
        """It grows with each change."""

    @property
    def ended(self) -> bool:
        """True once nothing will change any more, because the service ends."""

    async def after(self, number: int) -> None:
        """Wait until :attr:`number` is larger than this one, or the end has come."""


class Service(Protocol):
    """The dispatcher, as a caller's request sees it."""

    @property
    def changes(self) -> Changes:
        """When what :meth:`status` says has changed."""

    @property
    def models(self) -> LineModels:
        """What the line says of models: their contexts, how long prompts are to them, what is loaded."""

    @property
    def catalog(self) -> Catalog:
        """The upstream's models."""

    @property
    def commands(self) -> Commands:
        """What people order."""

    def submit(self, submission: Submission) -> Ticket:
        """Put a job into the line. Raises ``LineFull``, ``Draining`` or ``UpstreamUnreachable``."""

    def readiness(self) -> str | None:
        """None when it can serve, else the reason why not."""

    def find(self, job_id: str) -> JobReport | None:
        """The report of a job that lives, or ended not long ago."""

    def status(self, limit: int = ...) -> Status:
        """What the line is doing, with the first ``limit`` jobs that have not ended."""

    def rejected(self, error: QueueError, client: str) -> None:
        """Count a request that did not become a job."""
