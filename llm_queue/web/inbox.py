"""What a request's handler is told by the connection, and the task that it runs in."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope


class Inbox:
    """ASGI's messages to one handler, in the order in which they came.

    It has no bound: the handler refuses a body that is too large, and an application that answers before it has read
    all would wait for itself. A memory channel would do, but trio makes both its ends give way to other tasks with each
    message, and it takes two kilobytes: ten thousand requests wait with one each.
    """

    __slots__ = ("_arrived", "_messages")

    def __init__(self) -> None:
        self._messages: deque[ASGIReceiveEvent] | None = None
        self._arrived: trio.Event | None = None

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message. It does not wait, and is no checkpoint."""
        if self._messages is None:
            self._messages = deque()
        self._messages.append(message)
        if self._arrived is not None:
            self._arrived.set()

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
        return message


class Handlers(TaskGroup):
    """Where hypercorn's protocol code has the application run: in a connection's nursery, with an :class:`Inbox`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start a handler. Returns what takes its messages. It is no checkpoint."""
        inbox = Inbox()
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
        await send(None)
