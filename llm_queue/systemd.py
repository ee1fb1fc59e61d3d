"""What systemd is told of this process: that it serves, that it stops, and that its line moves.

Its protocol is a datagram with lines of ``NAME=VALUE`` to the Unix socket that ``NOTIFY_SOCKET`` names (sd_notify(3)),
so no library is needed. Where nobody named a socket nothing is sent, and nothing here is ever an error: a service does
not fail because of who watches it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

_log = structlog.get_logger("llm_queue")

SEND_TIMEOUT: Final = 1.0
"""Seconds that word of a new state may wait for a socket whose buffer is full. A sign of life waits for nothing: the
next one makes up for it."""

STOP_RESERVE: Final = 15
"""Seconds beyond the drain timeout, before the system kills the service: the last answers are on their way."""


class Systemd:
    """The one who started us and watches, if that is systemd; else every method does nothing.

    ``beat_every`` is the number of seconds after which the next sign of life is due: half of the time in which systemd
    wants one. None: it wants none.
    """

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        """``environ`` has ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``; ``pid`` is this process's."""
        self._address = _address_of(environ.get("NOTIFY_SOCKET", ""))
        self.beat_every: float | None = None
        watched = environ.get("WATCHDOG_PID", "")
        if self._address is not None and watched in ("", str(os.getpid() if pid is None else pid)):
            self.beat_every = _seconds(environ.get("WATCHDOG_USEC", "")) / 2 or None

    def ready(self, urls: list[str]) -> None:
        """Callers are served, at these addresses."""
        self._tell(f"READY=1\nSTATUS=listening on {' and '.join(urls)}", SEND_TIMEOUT)

    def stopping(self, seconds: float, jobs: int) -> None:
        """The end has begun, and takes ``seconds`` at most: do not kill us before. ``jobs`` may finish first."""
        within = int((seconds + STOP_RESERVE) * 1e6)
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={within}\nSTATUS=stopping: {jobs} jobs left", SEND_TIMEOUT)

    async def give_signs(self, from_the_line: Callable[[Callable[[], None]], object]) -> None:
        """Give signs of life for as long as systemd wants them, until cancelled.

        ``from_the_line`` gets what sends one, and has the line's own task call it: if the line is stuck, there is none.
        """
        while self.beat_every is not None:
            from_the_line(self._beat)
            await trio.sleep(self.beat_every)

    def _beat(self) -> None:
        self._tell("WATCHDOG=1", 0.0)

    def _tell(self, text: str, timeout: float) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(timeout)
                sender.sendto(text.encode(), self._address)
        except (BlockingIOError, TimeoutError):
            pass  # it is busy, and alive
        except OSError as error:
            self._address = None
            _log.warning("systemd cannot be told how this service is", reason=error.strerror or str(error))


def _address_of(name: str) -> str | bytes | None:
    """The address of the socket; None if there is none of a kind that we know.

    One that begins with ``@`` is in Linux's abstract namespace, and no file.
    """
    if not hasattr(socket, "AF_UNIX") or name[:1] not in ("/", "@"):
        return None
    return b"\0" + os.fsencode(name[1:]) if name.startswith("@") else name


def _seconds(microseconds: str) -> float:
    """Seconds from a number of microseconds; 0 where the text is none."""
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdecimal() else 0.0
