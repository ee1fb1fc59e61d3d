"""A tap on the wire between the line and Ollama: every byte goes through unchanged, and each request is noted."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import h11

WORK = (b"/api/chat", b"/api/generate", b"/api/embed", b"/api/embeddings")
"""The addresses of model work."""


@dataclass
class Work:
    """A request for model work as Ollama saw it. Times are monotonic seconds."""

    body: dict[str, Any]
    start: float
    first: float | None = None
    """When the first byte of the answer came."""
    end: float | None = None
    """When the answer was complete, or Ollama closed the connection."""
    whole: bool = False
    """Ollama said ``done``."""
    load_seconds: float = 0.0
    """Of loading, by Ollama's own account."""

    @property
    def num_ctx(self) -> int:
        """The context size that was asked for."""
        asked: int = self.body["options"]["num_ctx"]
        return asked

    @property
    def loads_only(self) -> bool:
        """True for a request that computes nothing, as loads of the line's own are."""
        return not any(self.body.get(name) for name in ("messages", "prompt", "input"))

    @property
    def unloads(self) -> bool:
        """True for a request that lets the model go."""
        return self.loads_only and self.body.get("keep_alive") == 0


@dataclass
class Tap:
    """Listens on a port of its own, and hands on to Ollama."""

    upstream: tuple[str, int]
    seen: list[Work] = field(default_factory=list)
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def loads(self) -> list[Work]:
        """The loads, in order."""
        return [work for work in self.seen if work.loads_only and not work.unloads]

    @property
    def work(self) -> list[Work]:
        """All else, in order."""
        return [work for work in self.seen if not work.loads_only]

    @property
    def in_flight(self) -> int:
        """Requests for model work that have not ended."""
        return sum(work.end is None for work in self.seen)

    def close(self) -> None:
        """Take no more connections; those that are there end with their ends."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                ollama = socket.create_connection(self.upstream)
            except OSError:
                caller.close()
                continue
            for one in (caller, ollama):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conversation = _Conversation(self)
            ends = [
                threading.Thread(target=_pump, args=(caller, ollama, conversation.asked), daemon=True),
                threading.Thread(target=_pump, args=(ollama, caller, conversation.answered), daemon=True),
            ]
            for end in ends:
                end.start()
            threading.Thread(target=_close_after, args=(ends, caller, ollama), daemon=True).start()

    def begun(self, body: dict[str, Any]) -> Work:
        """A request is about to reach Ollama."""
        with self._lock:
            work = Work(body, time.monotonic())
            self.seen.append(work)
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            return work


class _Conversation:
    """Reads along on one connection. Only one side speaks at a time, but for a hang-up."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._begin()

    def _begin(self) -> None:
        self._asks = h11.Connection(h11.SERVER)
        self._answers = h11.Connection(h11.CLIENT)
        self._target = b""
        self._body = b""
        self._tail = b""
        self._work: Work | None = None

    def asked(self, data: bytes) -> None:
        """What the line sends; empty at its end of file."""
        if not data:
            return
        self._asks.receive_data(data)
        while (event := self._asks.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                self._target = event.target
                self._answers.send(event)
            elif isinstance(event, h11.Data):
                if self._target in WORK:
                    self._body += event.data
                self._answers.send(event)
            elif isinstance(event, h11.EndOfMessage):
                self._answers.send(event)
                if self._target in WORK:
                    self._work = self._tap.begun(json.loads(self._body))

    def answered(self, data: bytes) -> None:
        """What Ollama sends."""
        work = self._work
        if not data:
            self._ended()
            return
        if work is not None and work.first is None:
            work.first = time.monotonic()
        self._answers.receive_data(data)
        while (event := self._answers.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Data):
                self._tail = (self._tail + event.data)[-4096:]
            elif isinstance(event, h11.EndOfMessage):
                self._ended()
                self._begin()
                return

    def _ended(self) -> None:
        work = self._work
        if work is None or work.end is not None:
            return
        last = self._tail.strip().rpartition(b"\n")[2]
        with contextlib.suppress(ValueError):
            said = json.loads(last)
            work.whole = said.get("done", False)
            work.load_seconds = said.get("load_duration", 0) / 1e9
        work.end = time.monotonic()


def _pump(source: socket.socket, sink: socket.socket, note: Any) -> None:
    """One direction, to its end of file. What is said is noted before it is handed on."""
    data = b"?"
    while data:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        note(data)
        with contextlib.suppress(OSError):
            if data:
                sink.sendall(data)
            else:
                sink.shutdown(socket.SHUT_WR)


def _close_after(ends: list[threading.Thread], *connections: socket.socket) -> None:
    for end in ends:
        end.join()
    for connection in connections:
        connection.close()
