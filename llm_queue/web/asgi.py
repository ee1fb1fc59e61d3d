"""The part of ASGI that the web uses, and what it keeps in a request's scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

KEY_NAME: Final = "llm_queue.key_name"
"""The name of the API key that was sent, or None."""

REQUEST_ID: Final = "llm_queue.request_id"
"""The request's id: the caller's own, if it sent one."""

TICKET: Final = "llm_queue.ticket"
"""The ticket of the request's job. Whoever puts it here has it closed when the request ends, however that is."""
