"""A request that is refused before it becomes a job: counted by the line, and explained in the log."""

from __future__ import annotations

import re
from typing import Final

import structlog

from llm_queue.errors import BadRequest, QueueError
from llm_queue.web.service import Service
from llm_queue.web.visit import Scope, visit_of

LONGEST: Final = 200
"""Characters of one value of the request in a log line. A refused request must not fill the log."""

_QUOTED: Final = re.compile(r"'.*'|\".*\"", re.DOTALL)

_log = structlog.get_logger("llm_queue")


def tell_refusal(line: Service, error: QueueError, client: str, scope: Scope) -> None:
    """Count the refusal, and log what was asked, where it came from, and why it was refused.

    Neither a key nor the query string is logged, and nothing of the body: where the message quotes a field's value, an
    ellipsis takes its place.
    """
    line.rejected(error, client)
    headers = {name.lower(): value for name, value in scope["headers"]}
    message = _QUOTED.sub("'…'", error.message) if isinstance(error, BadRequest) and error.param else error.discreet
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "host": headers.get(b"host", b"").decode("latin-1"),
        "origin": headers.get(b"origin", b"").decode("latin-1"),
        "message": message,
        "request_id": visit_of(scope).request_id,
    }
    _log.info(
        "rejected",
        client=client,
        code=error.code,
        status=error.http_status,
        **{name: printable(value) for name, value in said.items() if value},
    )


def printable(value: str) -> str:
    """``value`` in at most :data:`LONGEST` printable characters: others are escaped, and an ellipsis marks a cut."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value[:LONGEST])
    return shown if max(len(shown), len(value)) <= LONGEST else shown[: LONGEST - 1] + "…"
