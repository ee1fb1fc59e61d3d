"""What a dialect is: values that the web needs to serve it, whichever it is.

A new dialect is one file in this folder with a :class:`Dialect` and its :class:`Operation` values (a second file for
its shapes if they are large), and one row for each in :mod:`llm_queue.wire.callers.routes`. It knows no other dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar

import msgspec

from llm_queue.errors import QueueError
from llm_queue.wire.shapes import Answer, Completion, Piece, Request
from llm_queue.wire.wishes import NO_WISHES, Wishes

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"

R = TypeVar("R")
"""What an operation's encoder must know of the request: which form of answer the caller asked for."""


class RequestLimits(msgspec.Struct, frozen=True):
    """How much a request may ask for: levels of nesting, messages, and tokens of context."""

    max_depth: int
    max_messages: int
    num_ctx_ceiling: int


@dataclass(frozen=True, slots=True)
class Parsed(Generic[R]):
    """A checked request. ``request.model`` is empty where the caller named none.

    ``more`` are what the same body asks for besides: alike, with other prompts. Each becomes a job of its own, once the
    one before has ended, and all answers go into one: see :class:`~llm_queue.wire.shapes.PartEnd` and
    :attr:`~llm_queue.wire.shapes.Answer.earlier`.
    """

    request: Request
    reply: R
    stream: bool = False
    wishes: Wishes = NO_WISHES
    more: tuple[Request, ...] = ()


class Served(msgspec.Struct, frozen=True):
    """What an answer says of how it was served.

    ``model`` is the name that the caller used; ``created`` is in Unix seconds; ``lane`` is the name of the job's lane;
    ``request_id`` is the one in ``X-Request-Id``.
    """

    model: str
    created: int
    lane: str = "normal"
    request_id: str = ""


class Progress(msgspec.Struct, frozen=True):
    """Where a job stands whose caller waits: how many jobs are ahead of it, and for about how many seconds.

    ``paused``: it is queued, and nothing starts until somebody resumes the line.
    """

    phase: Literal["queued", "loading", "running", "paused"]
    ahead: int = 0
    seconds: float | None = None


class Encoder(Protocol):
    """Writes one answer, either as one body or as a stream.

    One body is ``whole``, once. A stream is ``begin`` once; then ``pieces`` and ``waiting`` in any order and number;
    then ``end`` or ``error`` once. Each returns bytes to send now, and may return none.
    """

    def whole(self, answer: Answer) -> bytes:
        """The answer as one body."""

    def begin(self) -> bytes:
        """What a stream begins with: sent with the headers, before anything is known of the answer."""

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """These pieces of the answer, in order."""

    def waiting(self, progress: Progress) -> bytes:
        """Word to a caller that has heard nothing for some seconds, in a form that its parser takes for life."""

    def end(self, completion: Completion) -> bytes:
        """The end of a stream that has come to its end."""

    def error(self, error: QueueError) -> bytes:
        """The end of a stream that has not: nothing in it may look like the end of a whole answer."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one family of clients is spoken to. ``error_body`` gets the error and the request's id.

    ``request_id_header`` is the header in which its clients look for that id, where it is not ``X-Request-Id``.
    """

    name: str
    error_body: Callable[[QueueError, str], bytes]
    error_type: str = JSON
    request_id_header: str = ""


@dataclass(frozen=True, slots=True)
class Operation(Generic[R]):
    """One thing that can be asked for in a dialect and goes through the line.

    ``parse`` checks a body, and raises :class:`~llm_queue.errors.BadRequest` with the field that is wrong as its
    ``param``; ``encoder`` makes the writer of the answer. ``whole_type`` and ``stream_type`` are the media types of
    both forms of answer.
    ``body`` is the type that ``parse`` reads a body as, for the document that describes the service.
    """

    dialect: Dialect
    parse: Callable[[bytes, RequestLimits], Parsed[R]]
    encoder: Callable[[R, Served], Encoder]
    whole_type: str = JSON
    stream_type: str = EVENT_STREAM
    body: type = dict
