"""Who is asking: a request's client, the unit of fair share.

Its headers may say so. If they do not, the program at the other end of the connection is looked up: two scripts that
use the same library look alike by their headers, and would be one client to the line.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final

import trio
from werkzeug.datastructures import Headers

from llm_queue.processes.owners import Address, Owners
from llm_queue.web.facts import ConnectionFacts, connection_of
from llm_queue.web.visit import Permit, Scope

logger = logging.getLogger("llm_queue.web")

PATIENCE: Final = 0.25
"""Seconds that a connection's first request waits to learn which program sends it. It is mostly well under one
millisecond. A program that is not found in time has two names, and a share for each, so the limit is generous."""

MAX_NAME: Final = 100
"""Characters of a client's name that are kept: enough for an extension's origin, bounded in logs and metrics."""

UNKNOWN: Final = "unknown"

CLAIMED: Final = " (claimed)"
"""Stands behind the name of a client that goes by a key's name, and has not sent that key."""

_VERSION: Final = re.compile(r"/v?[0-9].*")

FindProgram = Callable[[Address, Address], Awaitable[str | None]]
"""The name of the program at the first address, whose connection leads to the second; see :class:`Owners`."""


class Clients:
    """Names the client of each request, and asks the system at most once per connection."""

    def __init__(self, find: FindProgram | None = None) -> None:
        """``find`` stands in for the operating system."""
        self._find = find or Owners().program

    async def name(self, headers: Headers, permit: Permit, scope: Scope) -> str:
        """The client that sent this request. Raises nothing, and takes no longer than :data:`PATIENCE`.

        A connection's program is looked up at its first request whose headers do not name the client, and stays the
        same for all later ones, whatever the answer was. Cancelling it ends the search.
        """
        connection, declared = connection_of(scope), declared_client(headers, permit)
        if not connection.asked and not declared:
            connection.program = await self._program(scope.get("client"), scope.get("server"))
            connection.asked = True
        return _known(declared, connection, headers, permit)

    async def _program(self, near: Address | None, far: Address | None) -> str | None:
        if not near or not far or not is_same_machine(near[0], far[0]):
            return None
        found = None
        with trio.move_on_after(PATIENCE):
            try:
                found = await self._find((near[0], near[1]), (far[0], far[1]))
            except Exception:  # systems and sandboxes refuse in many ways, and a request is worth more than its name
                logger.debug("the program behind a connection could not be looked up", exc_info=True)
        return _clean_end(found)


@lru_cache(256)
def is_same_machine(near: str, far: str) -> bool:
    """True if the peer at the address ``near``, connected to our ``far``, runs on this machine."""
    try:
        address = ipaddress.ip_address(near)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback or near == far


def client_of(headers: Headers, permit: Permit, scope: Scope) -> str:
    """The client as far as it is known by now: no program is looked up for it."""
    return _known(declared_client(headers, permit), connection_of(scope), headers, permit)


def declared_client(headers: Headers, permit: Permit) -> str:
    """The first of: its key's name, its own word, Open WebUI's user, the page or extension. Empty if there is none.

    A key's name comes first: whoever could call itself otherwise would have another share, or wait in another's place.
    Never a field of the body: prompts are written by anybody.
    """
    names = (
        permit.name,
        headers.get("X-LLM-Queue-Client"),
        headers.get("X-OpenWebUI-User-Id"),
        headers.get("Origin"),
    )
    return next((name for name in map(_clean, names) if name), "")


def product_of(headers: Headers) -> str:
    """What the program calls itself: ``OpenAI/Python 1.2.3`` is OpenAI/Python, and ``curl/8.5.0`` is curl."""
    words = headers.get("User-Agent", "").split(maxsplit=1)
    return (_clean(_VERSION.sub("", words[0])) if words else "") or UNKNOWN


def _known(declared: str, connection: ConnectionFacts, headers: Headers, permit: Permit) -> str:
    """The first of: what the headers declare, the connection's program if it was looked up, and what it calls itself.

    A name that belongs to a key, and is claimed without that key, is marked: it is another client.
    """
    name = declared or connection.program or product_of(headers)
    return name + CLAIMED if not permit.name and name in permit.reserved else name


def _clean(name: str | None) -> str:
    return _printable((name or "")[:MAX_NAME])


def _clean_end(name: str | None) -> str:
    """A path is cut at its beginning: its end tells one script from another."""
    name = _printable(name or "")
    return name if len(name) <= MAX_NAME else "…" + name[1 - MAX_NAME :]


def _printable(name: str) -> str:
    return "".join(character for character in name if character.isprintable()).strip()
