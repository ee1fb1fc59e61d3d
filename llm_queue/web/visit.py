"""One request on its way through the web: the part of ASGI that is used, and what is known of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from llm_queue.dispatch.tickets import Ticket

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

_KEY: Final = "llm_queue.visit"


@dataclass(slots=True)
class Visit:
    """What the gate learned of one request, and the job that it became.

    ``request_id`` is the caller's own if it sent one. ``key_name`` is the name of the API key that was sent, or None.
    ``ticket`` is that of the request's job: whoever sets it has it closed when the request ends, however that is.
    ``broken_off``: the response has no proper end, and its connection closes in the middle of the body.
    """

    request_id: str = ""
    key_name: str | None = None
    ticket: Ticket | None = None
    broken_off: bool = False


def begin_visit(scope: Any, visit: Visit) -> Visit:
    """Keep ``visit`` in the request's ASGI scope, and return it."""
    scope[_KEY] = visit
    return visit


def visit_of(scope: Any) -> Visit:
    """The visit that this request is; a new one if the gate was not asked (in a test of what is behind it)."""
    return cast(Visit, scope.setdefault(_KEY, Visit()))
