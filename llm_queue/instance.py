"""Who this process is to other llm-queues, so that a request that comes back to its sender is known.

Each request that is sent upstream names, in one header, the llm-queues whose requests are served here now, and this
process last. One that arrives with our own name in it would wait in line behind itself. The list, rather than one name,
is for a ring of several: the first knows itself behind the last.

Names are random, made anew by each process, and sent to nobody but the upstream.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

HEADER: Final = "X-LLM-Queue-Instance"
"""The header of a request to an upstream."""

LINGER: Final = 10.0
"""Seconds for which a sender is named after its last request has ended: longer than a question may take. Two that ask
each other at the same moment, and give up at the same moment, find out by their next ones."""

MOST: Final = 32
"""Senders that are named. Real rows have two or three; a program that makes names up fills no memory with them."""

VIA: Final = "llm-queue"
"""What stands in the ``Via`` of an answer to another llm-queue."""

_NAME: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class _Sender:
    requests: int
    until: float


class Instance:
    """This process. ``behind`` turns true when the upstream has shown itself to be another llm-queue."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives the time in seconds."""
        self.name = secrets.token_hex(16)
        self.behind = False
        self._clock = clock
        self._senders: dict[str, _Sender] = {}

    def header(self) -> str:
        """The value of :data:`HEADER` for a request to the upstream."""
        self._forget()
        return ", ".join([*self._senders, self.name])

    def sent(self, header: str) -> bool:
        """True if a request with this value of :data:`HEADER` comes from us, whatever lies between."""
        return self.name in _NAME.findall(header)

    @contextmanager
    def serving(self, header: str) -> Iterator[None]:
        """While a request with this value of :data:`HEADER` is served, and a moment longer, name its senders."""
        self._forget()
        names = []
        for name in dict.fromkeys(_NAME.findall(header)):
            if name in self._senders or len(self._senders) < MOST:
                names.append(name)
                self._senders.setdefault(name, _Sender(0, 0.0)).requests += 1
        try:
            yield
        finally:
            for name in names:
                self._senders[name].requests -= 1
                self._senders[name].until = self._clock() + LINGER

    def _forget(self) -> None:
        now = self._clock()
        for name in [name for name, one in self._senders.items() if not one.requests and one.until <= now]:
            del self._senders[name]
