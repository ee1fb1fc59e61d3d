"""Where a request stands in a trace: what callers say of it, and what is said to the upstream (W3C Trace Context).

A trace is kept by others. What a caller sends is passed on, to the attempts and loads of its job, as every service on
the way does; where we keep spans of our own (:mod:`llm_queue.traces`), the upstream is told of those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER: Final = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}", re.ASCII)
_KNOWN_FLAGS: Final = 0b11
"""Sampled, and that the trace's id is random: what version 00 and its successor know."""

MOST_STATE: Final = 512
"""Characters of a ``tracestate`` that are passed on: as many as must be. A longer one is left out."""

MOST_MEMBERS: Final = 32
"""Members of one, at most, as the standard has it."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: its id, the id of the span that whatever follows belongs to, both in hexadecimal digits, and
    what others have noted there.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @classmethod
    def read(cls, traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> TraceContext | None:
        """What the headers of those names say; None if that is nothing, or not what the standard allows."""
        match = _TRACEPARENT.fullmatch(traceparents[0].strip()) if len(traceparents) == 1 else None
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _state(tracestates))

    @property
    def headers(self) -> dict[str, str]:
        """How it is said."""
        said = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"}
        return said | {"tracestate": self.state} if self.state else said


_SENT: Final = ContextVar[TraceContext | None]("llm_queue.traceparent", default=None)


@contextmanager
def sending(place: TraceContext | None) -> Iterator[None]:
    """Whatever this task, and those that it starts, ask of an upstream in this block stands at that place."""
    token = _SENT.set(place)
    try:
        yield
    finally:
        _SENT.reset(token)


def sent_headers() -> dict[str, str]:
    """The headers that say where what this task does stands; none if it stands nowhere."""
    place = _SENT.get()
    return {} if place is None else place.headers


def _state(headers: Sequence[str]) -> str:
    members = [member.strip() for header in headers for member in header.split(",") if member.strip()]
    state = ",".join(members)
    sane = len(state) <= MOST_STATE and len(members) <= MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return state if sane else ""
