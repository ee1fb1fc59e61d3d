"""One request on its way through the web: the part of ASGI that is used, and what is known of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.tickets import Ticket

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

_KEY: Final = "llm_queue.visit"


@dataclass(frozen=True, slots=True)
class Permit:
    """What a caller may have: what its API key says, or, where none is asked for, everything.

    ``name`` is its client, and empty where that is found out otherwise. No job of it is in a higher lane than ``lane``.
    ``share`` is its client's. ``reserved`` are names that belong to keys: no caller without one goes by them.
    """

    name: str = ""
    lane: Lane = Lane.INTERACTIVE
    share: float = 1.0
    reserved: frozenset[str] = frozenset()


ANYONE: Final = Permit()


@dataclass(slots=True)
class Visit:
    """What the gate learned of one request, and the job that it became.

    ``request_id`` is the caller's own if it sent one. ``permit`` is what it may have.
    ``ticket`` is that of the request's job: whoever sets it has it closed when the request ends, however that is.
    ``broken_off``: the response has no proper end, and its connection closes in the middle of the body.
    """

    request_id: str = ""
    permit: Permit = ANYONE
    ticket: Ticket | None = None
    broken_off: bool = False


def begin_visit(scope: Any, visit: Visit) -> Visit:
    """Keep ``visit`` in the request's ASGI scope, and return it."""
    scope[_KEY] = visit
    return visit


def visit_of(scope: Any) -> Visit:
    """The visit that this request is; a new one if the gate was not asked (in a test of what is behind it)."""
    return cast(Visit, scope.setdefault(_KEY, Visit()))
