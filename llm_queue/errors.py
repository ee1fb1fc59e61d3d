"""Everything that can go wrong for a caller, as one tree.

Each class says once what the situation is called (``code``), which HTTP status it has (``status``), and whether the
caller may simply ask again (``retryable``; when it is false, an answer carries ``x-should-retry: false``, so that an
SDK does not multiply our one retry by its own two). The docstring of a class is its default message; a message tells
the reader what to do next. Nothing in here knows HTTP bodies: a dialect gives an error its shape.
"""

from __future__ import annotations

import copy
import re
from typing import ClassVar, Final, Self

_QUOTED_TO_THE_END: Final = re.compile(r"(\braw=|\bcontent=|\binput at pos \d+: ?).*", re.DOTALL)
"""What Ollama and llama.cpp write in front of a model's answer that they could not parse; little comes behind it."""

_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_FROM_FIRST_TO_LAST: Final = re.compile(r"['\"`].*['\"`]", re.DOTALL)
_NAME: Final = re.compile(r"[\w./:@+-]{0,100}")
"""The names of models, fields and settings, which a log should have."""


class QueueError(Exception):
    """Something went wrong inside llm-queue. Its log says what; please report it."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, param: str | None = None, retry_after: int | None = None) -> None:
        """``param`` names the offending field of the request; ``retry_after`` is in whole seconds."""
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.param = param
        self.retry_after = retry_after
        super().__init__(self.message)

    def saying(self, message: str) -> Self:
        """The same error in other words."""
        other = copy.copy(self)
        other.message, other.args = message, (message,)
        return other

    @property
    def http_status(self) -> int:
        """The status to answer with; only an upstream's own refusal has one that differs from its class."""
        return self.status

    @property
    def discreet(self) -> str:
        """The message for everybody but the caller, such as the log: nothing that was asked or answered is in it."""
        return self.message


# --- the request is at fault: refused before anything is queued -------------------------------------------------


class BadRequest(QueueError):
    """The request is not valid. The message says which field is wrong."""

    code = "invalid_request"
    status = 400


class PromptTooLong(BadRequest):
    """The prompt does not fit into the context that this model can have here. Send less, or raise --num-ctx-ceiling."""

    code = "context_length_exceeded"

    def __init__(self, message: str | None = None, *, tokens: int = 0, maximum: int = 0, param: str | None = None):
        """The prompt has about ``tokens`` tokens, and there is room for ``maximum``."""
        super().__init__(message, param=param)
        self.tokens = tokens
        self.maximum = maximum


class ModelNotFound(QueueError):
    """The model is not there. Ask /v1/models for the list of those that are, or pull it with `ollama pull`."""

    code = "model_not_found"
    status = 404

    def __init__(self, message: str | None = None, *, param: str | None = None, model: str | None = None) -> None:
        """``model`` is the name that was asked for."""
        super().__init__(message, param=param)
        self.model = model


class NotFound(QueueError):
    """There is nothing at this address. The chat endpoint is POST /v1/chat/completions."""

    code = "not_found"
    status = 404


class MethodNotAllowed(QueueError):
    """This address does not take that method."""

    code = "method_not_allowed"
    status = 405


class BodyTooLarge(QueueError):
    """The request body is too large. Send less, or raise --max-body."""

    code = "body_too_large"
    status = 413


class UnsupportedEncoding(QueueError):
    """The body's Content-Encoding is not read here. Send it as it is, or with `gzip` or `deflate`."""

    code = "unsupported_encoding"
    status = 415


class Forbidden(QueueError):
    """This Host or Origin may not use the line."""

    code = "forbidden"
    status = 403


class Unauthorized(QueueError):
    """Send a key of LLM_QUEUE_API_KEYS or --api-keys-file as `Authorization: Bearer KEY`, or as `x-api-key: KEY`."""

    code = "invalid_api_key"
    status = 401


# --- the line cannot take it, or could not keep it ----------------------------------------------------------------


class LineFull(QueueError):
    """The line is full. Ask again later, or raise --max-waiting."""

    code = "line_full"
    status = 429
    retryable = True


class TooManyWatchers(QueueError):
    """Too many programs watch the line already. Close one of them, or ask GET /queue now and then."""

    code = "too_many_watchers"
    status = 429
    retryable = True


class Draining(QueueError):
    """The service is shutting down and takes no new work. Ask again in a moment."""

    code = "draining"
    status = 503
    retryable = True


class Unfinished(QueueError):
    """The service stopped before this answer was finished. Ask again in a moment."""

    code = "unfinished"
    status = 503
    retryable = True


class RunsElsewhere(QueueError):
    """This model runs elsewhere, which was not known while the upstream was away. Ask again."""

    code = "runs_elsewhere"
    status = 503
    retryable = True


class WaitExpired(QueueError):
    """The job waited longer than its max wait. Ask with a larger X-LLM-Queue-Max-Wait, or with priority."""

    code = "wait_expired"
    status = 503


class Cancelled(QueueError):
    """The job was cancelled."""

    code = "cancelled"
    status = 503


class CancelledByHand(Cancelled):
    """The job was cancelled by hand. Ask again if its answer is still wanted."""


class Superseded(QueueError):
    """A newer request with the same X-LLM-Queue-Supersede has taken its place. Wait for the answer to that one."""

    code = "superseded"
    status = 409


class AlreadyRunning(QueueError):
    """The job runs already, so a lane no longer matters to it. Let it end, or cancel it."""

    code = "already_running"
    status = 409


class AlreadyEnded(QueueError):
    """The job has ended already. GET /queue/jobs/{job_id} says how."""

    code = "already_ended"
    status = 409


class ReaderTooSlow(Cancelled):
    """The caller stopped reading its stream, so the job was cancelled. Read faster, or ask without `stream`."""

    code = "reader_too_slow"


# --- the upstream is at fault -----------------------------------------------------------------------------------


class UpstreamError(QueueError):
    """The upstream failed."""

    code = "upstream_error"
    status = 502

    @property
    def discreet(self) -> str:
        """Engines quote in their errors what they could not read: a tool call that the model wrote, a field's value."""
        text = _QUOTED_TO_THE_END.sub(r"\1…", self.message)
        if all(_NAME.fullmatch(said[1:-1]) for said in _QUOTED.findall(text)):
            return text
        return _FROM_FIRST_TO_LAST.sub("'…'", text)


class UpstreamBroke(UpstreamError):
    """The upstream broke off its answer. Its own log says why."""

    code = "upstream_broke"


class ConnectionLost(UpstreamBroke):
    """The connection to the upstream was lost in the middle of its answer. Its own log says why."""


class UpstreamBusy(UpstreamError):
    """The upstream says that it is busy: another program is calling it directly, past the line."""

    code = "upstream_busy"


class UpstreamUnreachable(UpstreamError):
    """The upstream cannot be reached. Start it, or correct the setting that says where it is."""

    code = "upstream_unreachable"

    @property
    def discreet(self) -> str:
        """All of it: nothing was asked, so nothing can be quoted; and it says how to start the upstream."""
        return self.message


class LoopDetected(UpstreamError):
    """The upstream leads back to this llm-queue itself, so nothing could be answered. Correct the setting that says
    where it is.
    """

    code = "loop"
    status = 508


class UpstreamRefused(UpstreamError):
    """The upstream refused the request."""

    code = "upstream_refused"

    def __init__(self, message: str | None = None, *, status: int = 400, param: str | None = None) -> None:
        """``status`` is the upstream's own, and is passed on as it is: mostly one of 400 to 499."""
        super().__init__(message, param=param)
        self.upstream_status = status

    @property
    def http_status(self) -> int:
        return self.upstream_status


class EngineDied(UpstreamError):
    """The engine's process ended while it worked on this request. It is not tried again: it would end the next one."""

    code = "engine_died"


class EngineOutOfMemory(EngineDied):
    """The engine took more memory for this request than --engine-memory allows, and was ended. Ask for less, or raise
    it.
    """

    code = "engine_out_of_memory"


class EngineStuck(EngineDied):
    """No answer within the limit of an attempt, and the engine could not be stopped, so it was killed. The request is
    not tried again: it would do the same. Ask for less, or with a simpler JSON schema.
    """

    code = "engine_stuck"
    status = 504


class LoadFailed(UpstreamError):
    """The upstream could not load the model. Its own log says why."""

    code = "load_failed"


class AttemptTimedOut(UpstreamError):
    """No answer within --attempt-timeout. Ask with `stream`, where the limit is to the first token, or raise it."""

    code = "attempt_timed_out"
    status = 504


class LoadTimedOut(AttemptTimedOut):
    """The model did not load within --load-timeout. Take a smaller model or context, or raise the limit."""

    code = "load_timed_out"
