"""Accepting connections, and what happens when there is no room for one more.

Whoever cannot be let in is not turned away: it waits in the kernel's queue, and is let in as soon as another has gone.
Connections that only stay open, without a request, make room for it.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog
import trio

_log = structlog.get_logger("llm_queue.web")

LOOK_AGAIN: Final = 0.1
"""Seconds after which it is tried again, if nobody has gone meanwhile."""

SPARE_AFTER: Final = 1.0
"""Seconds without a request after which a connection may be closed to make room. A program in a loop asks sooner, and
would have to connect anew."""

SAID_AGAIN: Final = 60.0
"""Seconds without a lack of room after which the next one is worth a line in the log again."""

NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


Welcome = Callable[[trio.socket.SocketType], object]
"""Takes the socket of a connection that was let in."""


class Guest(Protocol):
    """A connection that was let in."""

    @property
    def idle_since(self) -> float:
        """When its last answer was sent, if nothing has come from it since; else infinity."""

    def retire(self) -> None:
        """Go, if no request is at hand."""


class Door:
    """Lets connections in, ``most`` at once (None: as many as the system allows), for all listeners together."""

    def __init__(self, most: int | None) -> None:
        self.guests: set[Guest] = set()
        self._most = math.inf if most is None else most
        self._inside = 0
        self._gone = trio.Event()
        self._full_at = -math.inf

    async def let_in(self, listener: trio.SocketListener, welcome: Welcome) -> None:
        """Accept until cancelled, and hand each connection to ``welcome``, after which :meth:`left` must be called.

        Closes the listener at the end, and lets in before whoever is at the door already: closed with them in its
        queue, it would send them away without a word. Raises ``OSError`` when the socket itself is broken.
        """
        try:
            await self._let_in(listener, welcome)
        finally:
            with suppress(OSError):  # nobody is there any more, or no descriptor
                self._empty(listener.socket, welcome)
            listener.socket.close()  # without a pause: who comes from now on finds nobody, and knows it

    async def _let_in(self, listener: trio.SocketListener, welcome: Welcome) -> None:
        while True:
            while self._inside >= self._most:
                await trio.lowlevel.wait_readable(listener.socket)  # somebody is at the door
                await self._make_room("the limit of open files")
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                await self._make_room(error.strerror or str(error))
                continue
            self._enter(stream, welcome)

    def _empty(self, waiting: trio.socket.SocketType, welcome: Welcome) -> None:
        """Let in all who wait in the kernel's queue, without a pause in which more could come. Raises ``OSError``."""
        with socket.fromfd(waiting.fileno(), waiting.family, waiting.type) as queue:
            queue.setblocking(False)
            while self._inside < self._most:
                connection, _ = queue.accept()
                self._enter(trio.SocketStream(trio.socket.from_stdlib_socket(connection)), welcome)

    def _enter(self, stream: trio.SocketStream, welcome: Welcome) -> None:
        self._inside += 1
        welcome(stream.socket)  # which the stream has set up; of all else that it could do, nothing is needed

    def left(self) -> None:
        """A connection was closed."""
        self._inside -= 1
        self._gone.set()

    async def _make_room(self, reason: str) -> None:
        """Wait until somebody has gone, or for a moment. Whoever has been idle for longest is asked to go."""
        now = trio.current_time()
        if now - self._full_at > SAID_AGAIN:
            _log.warning(
                "no room for more callers: who comes now waits until another has gone",
                connected=self._inside,
                reason=reason,
            )
        self._full_at = now
        idle = min(self.guests, key=lambda guest: guest.idle_since, default=None)
        if idle is not None and now - idle.idle_since >= SPARE_AFTER:
            idle.retire()
        self._gone = trio.Event()
        with trio.move_on_after(LOOK_AGAIN):
            await self._gone.wait()
