"""What a request's handler is told by the connection, and the task that it runs in."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

MOST_UNREAD: Final = 2**20
"""Bytes that may lie unread before no more of a body is read: an upload may be faster than the disk it goes to."""

MESSAGE: Final = 256
"""Bytes that a message takes beside its body, about: a body may come in chunks of one byte each."""

AT_A_TIME: Final = 16
"""Whoever puts pieces of a body lets others have their turn whenever a multiple of this number lies there: one read of
a connection may hold ten thousand chunks."""


class Inbox:
    """ASGI's messages to one handler, in the order in which they came.

    A memory channel would do, but trio makes both its ends give way to other tasks with each message, and it takes two
    kilobytes: ten thousand requests wait with one each.
    """

    __slots__ = ("_arrived", "_messages", "_over", "_taken", "_unread")

    def __init__(self) -> None:
        self._messages: deque[ASGIReceiveEvent] | None = None
        self._arrived: trio.Event | None = None
        self._taken: trio.Event | None = None
        self._unread = 0
        self._over = False

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message. It waits for nobody, and is a checkpoint after some pieces of a body only.

        It has no bound, because word that the request is over may come from the handler itself, which cannot wait for
        itself. Backpressure is for whoever reads the client: see :meth:`wait_for_room`.
        """
        if self._messages is None:
            self._messages = deque()
        self._messages.append(message)
        if self._arrived is not None:
            self._arrived.set()
        if message["type"] == "http.request":
            self._unread += MESSAGE + len(message["body"])
            if len(self._messages) % AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()
        else:
            self.end()

    async def wait_for_room(self) -> None:
        """Wait while the handler has more than :data:`MOST_UNREAD` bytes to read and the request is not over.

        It is a checkpoint only if it waits.
        """
        while self._unread > MOST_UNREAD and not self._over:
            self._taken = trio.Event()
            await self._taken.wait()

    async def receive(self) -> ASGIReceiveEvent:
        """Take the next message; wait if there is none, which only then is a checkpoint. Cancelled, it takes none.

        One task at a time may call it.
        """
        if not self._messages:
            self._arrived = trio.Event()
            await self._arrived.wait()
            self._arrived = None
        assert self._messages
        message = self._messages.popleft()
        if not self._messages:
            self._messages = None  # a deque is large, and mostly nothing more comes for as long as the request waits
        if message["type"] == "http.request":
            self._unread -= MESSAGE + len(message["body"])
            self._wake_reader()
        return message

    def end(self) -> None:
        """The request is over: nobody is to wait for room any more."""
        self._over = True
        self._wake_reader()

    def close(self) -> None:
        """The handler has ended: drop what lies here."""
        self._messages = None
        self.end()

    def _wake_reader(self) -> None:
        if self._taken is not None:
            self._taken.set()


class Handlers(TaskGroup):
    """Where hypercorn's protocol code has the application run: in a connection's nursery, with an :class:`Inbox`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery
        self._latest: Inbox | None = None

    async def wait_for_room(self) -> None:
        """Wait while the handler of the request at hand has too much to read: see :meth:`Inbox.wait_for_room`."""
        if self._latest is not None:
            await self._latest.wait_for_room()

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start a handler. Returns what takes its messages. It is no checkpoint."""
        self._latest = inbox = Inbox()
        self.spawn(_handle, app, config, scope, inbox, send)
        return inbox.put


async def _handle(
    app: AppWrapper,
    config: Config,
    scope: Scope,
    inbox: Inbox,
    send: Callable[[ASGISendEvent | None], Awaitable[None]],
) -> None:
    """Run the application for one request, log what goes wrong in it, and say that it has ended."""
    try:
        await app(scope, inbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
    except* Exception:
        await config.log.exception("Error in ASGI Framework")
    finally:
        inbox.close()
        await send(None)  # noqa: ASYNC102 - in a cancelled handler it ends at its first wait: the connection ends, too
