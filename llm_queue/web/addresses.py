"""What a caller is told who asked for an address that there is not, or with the wrong method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from werkzeug.routing import Map

from llm_queue.errors import MethodNotAllowed, NotFound
from llm_queue.web.refusals import printable


def not_found(routes: Map, path: str) -> NotFound:
    """The error for ``path``: it names the address, and the one that was probably meant."""
    where = printable(path)
    meant = next(_existing(routes, path), None)
    if meant is None:
        chat = "/api/chat" if path.startswith("/api/") else "/v1/chat/completions"
        return NotFound(f"There is nothing at {where}. The chat endpoint is POST {chat}.")
    twice = " A program's base URL ends in /v1, once." if "/v1/v1" in path else ""
    return NotFound(f"There is nothing at {where}: did you mean {printable(meant)}?{twice}")


def wrong_method(path: str, method: str, allowed: Iterable[str]) -> MethodNotAllowed:
    """The error for a ``method`` that ``path`` does not take; ``allowed`` are those that it does."""
    usual = " or ".join(sorted(set(allowed) - {"HEAD", "OPTIONS"}))
    return MethodNotAllowed(f"{printable(path)} takes {usual}, not {printable(method)}.")


def _existing(routes: Map, path: str) -> Iterator[str]:
    """Addresses that there are, the most similar first: with slashes put right, then from each segment on."""
    adapter = routes.bind("localhost")
    segments = [segment for segment in path.split("/") if segment]
    for start in range(len(segments)):
        rest = "/" + "/".join(segments[start:])
        for candidate in (rest, rest.lower()):
            if candidate != path and adapter.allowed_methods(candidate):
                yield candidate
