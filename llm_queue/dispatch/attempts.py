"""What is done at the upstream for the line: attempts, loads, and questions.

Each is one task and returns one event for the scheduler, whatever happens: that is how the slot gets free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from llm_queue.core.events import AttemptEnded, LoadEnded, Outcome, ProbeEnded, ResidentReported, Resolved
from llm_queue.core.jobs import Job
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.fit import ContextFit
from llm_queue.dispatch.measured import calls_in, ending_of, prompt_work, timed
from llm_queue.dispatch.moments import JobAccepted
from llm_queue.dispatch.progress import AnswerSoFar
from llm_queue.dispatch.status import model_name
from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.errors import (
    AttemptTimedOut,
    EngineDied,
    LoadFailed,
    LoadTimedOut,
    LoopDetected,
    ModelNotFound,
    PromptTooLong,
    QueueError,
    ReaderTooSlow,
    RunsElsewhere,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.settings import Settings
from llm_queue.traceparent import TraceContext, sending
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import ALIVE, Answer, Completion, LoadRequest, Piece, fold

ASK_TIMEOUT: Final = 5.0
"""Seconds for a question that needs no model, such as what is loaded: it is answered from memory or not at all."""

DYING: Final = 1.0
"""Seconds that an upstream is given to end, once it has broken off an answer; a killed one takes milliseconds."""

SURPRISE_LOAD: Final = 0.2
"""Seconds of loading, by the upstream's own account, from which on a model that we took for resident was not:
Ollama reports some hundredths for one that is."""

_log = structlog.get_logger("llm_queue")


@dataclass(slots=True)
class Entry:
    """All that belongs to a job while it lives.

    ``answer`` is the whole answer of a job that is not streamed, and ``completion`` the end of any answer.
    ``failed_ago`` is how many seconds ago the same request used up its attempts, if that was lately. ``begun`` is true
    once a piece of its answer may have left. ``progress`` is how far its attempt is.
    """

    job: Job
    ticket: Ticket
    submission: Submission
    model: Model | None
    scope: trio.CancelScope | None = None
    abort_error: QueueError | None = None
    answer: Answer | None = None
    completion: Completion | None = None
    failed_ago: float | None = None
    begun: bool = False
    progress: AnswerSoFar | None = None

    @property
    def remote(self) -> bool:
        """True if it goes beside the line."""
        return self.submission.remote

    @property
    def unloads(self) -> bool:
        """True if its model is to go."""
        request = self.submission.request
        return isinstance(request, LoadRequest) and request.unload

    def accepted(self) -> JobAccepted:
        """The moment at which the line took it."""
        job, asked = self.job, self.submission
        named = (job.id, job.client, job.lane, model_name(asked), job.size, asked.unknown_lane, self.remote)
        return JobAccepted(*named, asked.operation, asked.trace)

    def abort(self, error: QueueError) -> None:
        """End its attempt, and blame the error. The attempt is over when its event comes."""
        self.abort_error = error
        if self.scope is not None:
            self.scope.cancel()


class Attempts:
    """Attempts, loads and questions at one upstream. Each returns the event that says how it ended, and raises nothing
    but a cancellation.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, fit: ContextFit, heard: Callable[[Job, float], None]
    ) -> None:
        """``settings`` has the limits in seconds; ``catalog`` knows the upstream and its models; ``fit`` says whether a
        larger context helps a prompt that is too long; ``heard`` is told of the first piece of each attempt, with the
        seconds that it took.
        """
        self._settings = settings
        self._catalog = catalog
        self._fit = fit
        self._heard = heard
        self._upstream = catalog.upstream
        self.place_of: Callable[[Entry], TraceContext | None] = lambda entry: entry.submission.trace
        """Where in a trace what is asked of the upstream stands: where its caller's request does."""

    async def attempt(self, entry: Entry, key: RunnerKey, *, spared: bool = False) -> AttemptEnded:
        """Run a job once. Returns when the upstream's side of the connection is closed.

        A model that is ``spared`` is not unloaded: others want it, and only the answer to this job says that it goes.
        """
        if spared:
            entry.completion = Completion("unload", finish_text="unload")
            entry.answer = fold((), entry.completion)
            return AttemptEnded(entry.job, Outcome.SUCCEEDED)
        model, limit, stream = entry.model, self._settings.attempt_timeout, entry.submission.stream
        assert model is not None
        total = self._settings.stream_total if stream else math.inf
        began = trio.current_time()
        last_moment = began + total
        outcome, error = Outcome.TIMED_OUT, None
        pieces: list[Piece] = []
        silent, called = True, False
        sign: float | None = None  # seconds until the upstream gave one of the answer
        progress = entry.progress = AnswerSoFar(began)
        with trio.move_on_after(min(limit, total)) as entry.scope:

            def emit(piece: Piece) -> None:
                nonlocal silent, called, sign
                sign = trio.current_time() - began if sign is None else sign
                called = called or calls_in(piece)
                if stream:
                    assert entry.scope is not None
                    entry.scope.deadline = min(trio.current_time() + limit, last_moment)
                if piece is ALIVE:
                    return  # the caller has nothing of it yet, and an attempt that breaks now can be repeated
                progress.pieces += 1
                if silent:
                    silent = False
                    progress.first_at = trio.current_time()
                    self._heard(entry.job, progress.first_at - began)
                if stream:
                    if not entry.begun and entry.abort_error is not None:
                        raise entry.abort_error  # it had arrived before the abort was felt, and nothing was sent yet
                    entry.begun = True
                    entry.ticket.put(piece)
                else:
                    pieces.append(piece)

            if entry.abort_error is not None:
                entry.scope.cancel()
            try:
                with sending(self.place_of(entry)):
                    completion = await self._upstream.run(model, key.num_ctx, entry.submission.request, emit)
                entry.completion = completion if model.remote else timed(completion, sign)
                outcome = Outcome.SUCCEEDED
                if not stream:
                    entry.answer = fold(pieces, entry.completion)
            except QueueError as failure:
                outcome, error = _outcome_of(failure), failure
                outcome = Outcome.CANCELLED if failure is entry.abort_error else outcome
            except Exception:
                _log.exception("an attempt failed in a way that it should not: please report this")
                outcome, error = Outcome.REFUSED, QueueError()
        entry.scope = None
        if entry.abort_error is not None and (outcome is Outcome.TIMED_OUT or isinstance(error, EngineDied)):
            outcome, error = Outcome.CANCELLED, entry.abort_error
        elif outcome is Outcome.TIMED_OUT:
            error = AttemptTimedOut() if trio.current_time() < last_moment else AttemptTimedOut(_STREAM_TOTAL)
        elif outcome is Outcome.BROKEN and not model.remote:
            await self._watch_it_die()
        surprise = entry.completion is not None and (entry.completion.load_seconds or 0.0) >= SURPRISE_LOAD
        unloaded = outcome is Outcome.SUCCEEDED and entry.completion is not None and entry.completion.unloaded
        needed = None
        if outcome is Outcome.REFUSED and isinstance(error, PromptTooLong) and silent and not model.remote:
            self._fit.learn(model, entry.submission, error.tokens)
            needed = self._fit.again(model, entry.submission.request, key.num_ctx, error)
            error = error if needed else self._fit.explained(model, error)
        prompt, ending = None, None
        if outcome is Outcome.SUCCEEDED and entry.completion is not None and not model.remote:
            prompt = prompt_work(entry.completion, attempt=entry.job.attempts)
            ending = ending_of(entry.completion, called=called)
        return AttemptEnded(
            entry.job, outcome, error, surprise, stream and not silent, unloaded, needed, prompt, ending
        )

    async def load(self, entry: Entry, key: RunnerKey) -> LoadEnded:
        """Make a model resident. The load belongs to the line: a caller that leaves meanwhile does not end it.

        For a job that unloads it, nothing is loaded.
        """
        if entry.unloads:
            return LoadEnded(entry.job, Outcome.SUCCEEDED, None, await self._reported())
        outcome, error = Outcome.TIMED_OUT, None
        assert entry.model is not None
        with trio.move_on_after(self._settings.load_timeout):
            try:
                with sending(self.place_of(entry)):
                    await self._upstream.load(entry.model, key.num_ctx)
                outcome = Outcome.SUCCEEDED
            except QueueError as failure:
                outcome, error = _outcome_of(failure), failure
            except Exception:
                _log.exception("a load failed in a way that it should not: please report this")
                outcome, error = Outcome.REFUSED, LoadFailed()
        if outcome is Outcome.TIMED_OUT:
            error = LoadTimedOut()
        elif outcome is Outcome.REFUSED:
            error = await self._missing(entry) or error
        reported = None if outcome is Outcome.UNREACHABLE else await self._reported()
        return LoadEnded(entry.job, outcome, error, reported)

    async def ask_resident(self) -> ResidentReported:
        """Ask what is loaded."""
        return ResidentReported(await self._reported())

    async def probe(self, unresolved: Sequence[Entry]) -> ProbeEnded:
        """Ask whether the upstream is there, what it has loaded, and which models the ``unresolved`` jobs mean."""
        failure: QueueError | None = UpstreamUnreachable("It accepts connections, but does not answer.")
        reported: frozenset[RunnerKey] = frozenset()
        resolved: dict[str, Resolved | QueueError] = {}
        with trio.move_on_after(ASK_TIMEOUT):
            try:
                await self._upstream.probe()
                await self._catalog.refresh()
                reported = await self._upstream.resident()
                for entry in unresolved:
                    resolved[entry.job.id] = await self._resolve(entry)
                failure = None
            except QueueError as error:
                failure = error
        return ProbeEnded(failure, reported, resolved)

    async def _watch_it_die(self) -> None:
        """What broke off an answer may be ending: until it is gone it takes connections, only to drop them, and the
        second attempt would be wasted on it. So wait until it answers, or until nothing takes connections any more.
        """
        with trio.move_on_after(DYING):
            while True:
                try:
                    await self._upstream.probe()
                    break
                except UpstreamUnreachable:
                    break
                except QueueError:
                    await trio.sleep(DYING / 20)

    async def _missing(self, entry: Entry) -> QueueError | None:
        """The error if the model that could not be loaded is not there any more; None if it is, or nobody says."""
        assert entry.model is not None
        with trio.move_on_after(ASK_TIMEOUT):
            try:
                return await self._catalog.missing(entry.model, entry.submission.request.model)
            except QueueError:
                pass
        return None

    async def _reported(self) -> frozenset[RunnerKey] | None:
        with trio.move_on_after(ASK_TIMEOUT):
            try:
                return await self._upstream.resident()
            except QueueError:
                pass
        return None

    async def _resolve(self, entry: Entry) -> Resolved | QueueError:
        try:
            entry.model = await self._catalog.resolve(entry.submission.request.model)
        except UpstreamUnreachable:
            raise
        except QueueError as error:  # this model's fault: the others must not wait for it
            return error
        if entry.model.remote:
            return RunsElsewhere(retry_after=1)
        return Resolved(entry.model.identity, entry.model.trained)


_OUTCOMES: Final[tuple[tuple[type[QueueError], Outcome], ...]] = (
    (UpstreamRefused, Outcome.REFUSED),
    (PromptTooLong, Outcome.REFUSED),
    (ModelNotFound, Outcome.REFUSED),
    (LoadFailed, Outcome.REFUSED),
    (EngineDied, Outcome.REFUSED),
    (LoopDetected, Outcome.REFUSED),
    (UpstreamBusy, Outcome.BUSY),
    (UpstreamUnreachable, Outcome.UNREACHABLE),
    (ReaderTooSlow, Outcome.CANCELLED),
)


def _outcome_of(failure: QueueError) -> Outcome:
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(failure, kind)), Outcome.BROKEN)


_STREAM_TOTAL: Final = "The stream ran longer than --stream-total allows. Ask for fewer tokens, or raise it."
