"""One input is played on one connection, and judged: it must end, and what comes back must be in order."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

import trio

from tests.fuzz.requests import NoAnswer, RawAnswer, answers_in, statuses_in
from tests.fuzz.script import Input, Leave, Pause, Send

OURS: Final = b"Something went wrong inside llm-queue"
"""How an error begins that is a bug, in every dialect, and in a stream that has its status already."""

QUIET: Final = 0.05
"""Seconds that an input of which nobody can say what it asks for waits for an answer, before its client leaves."""

_ID: Final = re.compile(rb"fuzz-\d+-\d+")


@dataclass(frozen=True)
class Bounds:
    """Seconds: ``answer`` to a whole request, wherever it stands in the line; ``close`` once the client has left."""

    answer: float = 60.0
    close: float = 15.0


@dataclass
class Outcome:
    """What came of an input: the bytes that came back, and what was wrong."""

    data: bytearray = field(default_factory=bytearray)
    faults: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


class _Connection:
    """A client's side of one connection."""

    def __init__(self, stream: trio.SocketStream, methods: tuple[bytes, ...], outcome: Outcome) -> None:
        self._stream = stream
        self._methods = methods
        self.outcome = outcome
        self.ended = trio.Event()
        self.answered = trio.Event()
        self.reads = trio.Event()
        self.gone = False

    async def read(self) -> None:
        """All that comes, to the end."""
        await self.reads.wait()
        while True:
            try:
                piece = await self._stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                piece = b""
            if not piece:
                break
            self.outcome.data += piece
            if self._methods and len(self._answers(ended=False)) == len(self._methods):
                self.answered.set()
        self.ended.set()
        self.answered.set()

    def _answers(self, *, ended: bool) -> list[RawAnswer]:
        try:
            return answers_in(bytes(self.outcome.data), self._methods, ended=ended)
        except (NoAnswer, ValueError):
            return []

    async def send(self, data: bytes) -> None:
        """All of it; or less, if the service has closed the connection already."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.gone = True

    async def leave(self, *, reset: bool) -> None:
        """Go away."""
        self.gone = True
        if reset:
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(self._stream)
            return
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_eof()


async def play(port: int, given: Input, bounds: Bounds) -> Outcome:
    """Play an input against what listens on ``port``, and judge it. Raises ``OSError`` if nothing does."""
    outcome = Outcome()
    raw = trio.socket.socket()
    if not given.expected.reads:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await raw.connect(("127.0.0.1", port))
    connection = _Connection(trio.SocketStream(raw), given.expected.methods, outcome)
    if given.expected.reads:
        connection.reads.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.read)
        left: Leave | None = None
        with trio.move_on_after(bounds.answer) as patience:
            for step in given.steps:
                match step:
                    case Send():
                        await connection.send(step.data)
                    case Pause():
                        await trio.sleep(step.seconds)
                    case Leave():
                        left = step
                        await connection.leave(reset=step.reset)
            connection.reads.set()
            if left is None:
                await _wait(connection, given)
        if patience.cancelled_caught:
            outcome.faults.append(f"no whole answer within {bounds.answer:g} s")
        if left is None or not left.reset:
            await connection.leave(reset=False)
            with trio.move_on_after(bounds.close) as patience:
                await connection.ended.wait()
            if patience.cancelled_caught:
                outcome.faults.append(f"not closed within {bounds.close:g} s of the client's end of stream")
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(connection._stream)
    judge(given, outcome, left=left is not None)
    return outcome


async def _wait(connection: _Connection, given: Input) -> None:
    if given.expected.methods or not given.expected.reads:
        await connection.answered.wait()
    else:
        with trio.move_on_after(QUIET):
            await connection.ended.wait()


def judge(given: Input, outcome: Outcome, *, left: bool) -> None:
    """Add to ``outcome`` what is wrong with the bytes that came back; ``left`` says that the client has cut it off."""
    data, expected = bytes(outcome.data), given.expected
    outcome.statuses = statuses_in(data)
    if 500 in outcome.statuses or OURS in data:
        outcome.faults.append("an answer of 500")
    if data and not data.startswith((b"HTTP/1.1 ", b"HTTP/1.1 "[: len(data)])):
        outcome.faults.append("what came back is no HTTP")
    if expected.most is not None and len(outcome.statuses) > expected.most:
        outcome.faults.append(f"{len(outcome.statuses)} answers, and not {expected.most}")
    sent = b"".join(step.data for step in given.steps if isinstance(step, Send))
    foreign = {found for found in _ID.findall(data) if found != given.request_id and found not in sent}
    if foreign:
        outcome.faults.append(f"an answer to somebody else: {foreign}")
    if not expected.methods or left or outcome.faults:
        return
    try:
        answers = answers_in(data, expected.methods, ended=True)
    except (NoAnswer, ValueError) as error:
        outcome.faults.append(f"not an answer to each request: {error}")
        return
    # Behind an answer that closes the connection there are none: what is refused takes what follows it along.
    closing = bool(answers) and answers[-1].headers.get(b"connection") == b"close"
    if len(answers) < len(expected.methods) and not closing:
        outcome.faults.append(f"{len(answers)} answers to {len(expected.methods)} requests")
    for answer in answers:
        if not _is_what_it_says(answer):
            outcome.faults.append(f"not {answer.headers.get(b'content-type', b'')!r}: {answer.body[:200]!r}")
        if expected.statuses and answer.status not in expected.statuses:
            outcome.faults.append(f"status {answer.status}, and not one of {sorted(expected.statuses)}")


def _is_what_it_says(answer: RawAnswer) -> bool:
    """Whether a body is of its media type: JSON, of which errors are objects with an error; events; or text."""
    kind = answer.headers.get(b"content-type", b"").partition(b";")[0]
    try:
        text = answer.body.decode()
        if kind == b"application/json" and text:
            value = json.loads(text)
            return isinstance(value, dict) and (answer.status < 400 or "error" in value or "ready" in value)
        if kind == b"text/event-stream":
            events = [line.partition(": ") for line in text.split("\n") if line]
            data = [rest for name, _, rest in events if name == "data"]
            return all(name in ("data", "event", "") for name, _, _ in events) and all(
                one == "[DONE]" or isinstance(json.loads(one), dict) for one in data
            )
        if kind == b"application/x-ndjson":
            return all(isinstance(json.loads(line), dict) for line in text.splitlines())
    except ValueError:
        return False
    return True
