"""What is kept of a prompt in place of its text: salted hashes, from which nothing can be read back.

The salt is made at the start and kept nowhere: hashes of one process say nothing to another.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, NamedTuple

from llm_queue.wire.labels import fixed_beginning, what_follows
from llm_queue.wire.shapes import Request

_SALT: Final = secrets.token_bytes(32)

FIRST_MARK: Final = 16
"""Characters of the shortest beginning that has a mark. Each further mark is at twice as many."""

MOST_MARKS: Final = 24
"""Marks of one prompt: the last is at 128 million characters, which no body has."""

MARK: Final = 8
"""Bytes of a mark. They are compared with a handful of others, not with all that there are."""


class Fingerprint(NamedTuple):
    """``fixed`` stands for what a program sends with each step (empty: there is no such thing); ``marks`` stand for the
    beginnings of the prompt at 16 characters, 32, 64 and so on, :data:`MARK` bytes each.
    """

    fixed: bytes = b""
    marks: bytes = b""


def fingerprint(request: Request) -> Fingerprint:
    """That of a request's prompt. A megabyte takes some milliseconds; any text will do."""
    marks = _Marks()
    for text in fixed_beginning(request):
        marks.add(text)
    fixed = marks.digest()
    for text in what_follows(request):
        marks.add(text)
    return Fingerprint(fixed, bytes(marks.found))


def label_of(session: str | None, fixed: bytes) -> str:
    """The label of a conversation: of its ``session`` and of what it begins with, always both; "" if it has neither.

    One session has several conversations, such as those of subagents and of small calls for a title; and several
    sessions begin alike.
    """
    if not session and not fixed:
        return ""
    named = (session or "").encode(errors="surrogatepass")
    return hashlib.blake2b(fixed + named, digest_size=12, key=_SALT).hexdigest()


class _Marks:
    """A hash of all that was added, and marks on the way."""

    def __init__(self) -> None:
        self.found = bytearray()
        self._hash = hashlib.blake2b(digest_size=16, key=_SALT)
        self._characters = 0
        self._next = FIRST_MARK

    def add(self, text: str) -> None:
        """The next piece of the prompt. Where a piece ends is part of what is hashed."""
        at = 0
        while self._next - self._characters <= len(text) - at and len(self.found) < MOST_MARKS * MARK:
            cut = at + self._next - self._characters
            self._take(text[at:cut])
            self.found += self._hash.digest()[:MARK]
            self._characters, self._next, at = self._next, 2 * self._next, cut
        self._take(text[at:])
        self._characters += len(text) - at
        self._hash.update(b"\xff")  # in no UTF-8

    def digest(self) -> bytes:
        """The hash so far; empty if there was no text."""
        return self._hash.digest() if self._characters else b""

    def _take(self, text: str) -> None:
        self._hash.update(text.encode(errors="surrogatepass"))
