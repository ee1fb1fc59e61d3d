"""What a client has not taken yet of what it was sent, as the kernel knows it.

A ``send`` that returns says little: the kernel takes megabytes before it makes a sender wait, so a client that has
stopped reading in the middle of a stream would be noticed minutes later, or never. On Linux the kernel tells how many
bytes the other side has not acknowledged, and it acknowledges none once the client's receive buffer is full.
"""

from __future__ import annotations

import sys
from typing import Final

import trio

if sys.platform == "linux":
    import fcntl
    import termios

STALL: Final = 15.0
"""Seconds in which a client must take at least one byte of those that wait for it."""


def unacknowledged(socket: trio.socket.SocketType) -> int | None:
    """Bytes sent on ``socket`` that the other side has not acknowledged; None where the kernel does not tell."""
    if sys.platform != "linux":
        return None
    try:
        answer = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))  # on a socket it is called SIOCOUTQ
    except (OSError, ValueError):  # it is closed
        return None
    return int.from_bytes(answer, sys.byteorder)


class Backlog:
    """Whether the client of one connection still takes what it is sent.

    :attr:`given_up` is true once the connection was ended because it did not.
    """

    def __init__(self, socket: trio.socket.SocketType, limit: float) -> None:
        """``limit`` is the number of seconds in which at least one byte must be taken while some wait."""
        self.limit = limit
        self.given_up = False
        self._socket = socket
        self._sent = 0
        self._taken = 0
        self._since = trio.current_time()

    def sent(self, size: int) -> None:
        """The kernel has accepted ``size`` more bytes."""
        self._sent += size

    def stalled(self, *, blocked: bool) -> bool:
        """True if bytes wait and none was taken for the limit.

        ``blocked`` says that a send has just waited in vain, which stands for a kernel that does not tell.
        """
        waiting = unacknowledged(self._socket)
        if waiting is None:
            waiting = int(blocked)
        taken = self._sent - waiting
        now = trio.current_time()
        if taken > self._taken or not (waiting or blocked):
            self._taken, self._since = max(taken, self._taken), now
        return now - self._since >= self.limit
