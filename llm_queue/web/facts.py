"""What is known of one connection for as long as it lasts.

The listener puts it into the connection's ASGI state. That state is copied for each request, so that all requests of a
connection share the one object in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from llm_queue.web.backlog import Backlog

_KEY: Final = "llm_queue.connection"


@dataclass(slots=True)
class ConnectionFacts:
    """``backlog`` is what the client has not taken yet of what it was sent; None without a listener, in a test.

    ``program`` is the name of the program at the other end, or None; it is valid once ``asked`` is true.
    """

    backlog: Backlog | None = None
    asked: bool = False
    program: str | None = None


def keep_facts(state: Any, facts: ConnectionFacts) -> None:
    """Put ``facts`` into a connection's ASGI ``state``."""
    state[_KEY] = facts


def connection_of(scope: Any) -> ConnectionFacts:
    """The facts of the connection that a request came on; new ones if a test has made the scope by hand."""
    return cast(ConnectionFacts, scope.get("state", scope).setdefault(_KEY, ConnectionFacts()))
