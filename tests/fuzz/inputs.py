"""One input each: what is done on one connection, and what must come of it. All of it follows from a seed and a number.

The kinds take turns in a fixed order, so that each has its share however short a run is. Nothing that the service does
goes into an input, and so a single one can be played again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz import forms
from tests.fuzz.requests import RawRequest
from tests.fuzz.script import HALF_CLOSE, RESET, Expected, Input, Pause, Send, Step
from tests.fuzz.seeds import SHORT
from tests.fuzz.targets import Target, asked, targets
from tests.fuzz.values import mutate, mutate_bytes, write

Draw = random.Random

CYCLE: Final = (
    *("json",) * 14,
    *("body",) * 4,
    *("valid",) * 3,
    *("http",) * 9,
    *("cut",) * 10,
    *("headers",) * 4,
    *("smuggle",) * 4,
    *("pipeline",) * 2,
    *("upgrade",) * 3,
    *("leave",) * 2,
    *("slow",) * 2,
)
"""How often each kind has its turn."""

_ORDER: Final = random.Random(0).sample(CYCLE, len(CYCLE))


@dataclass(frozen=True)
class Turn:
    """The number of an input, and how many of its kind were before it."""

    seed: int
    number: int
    kind: str
    before: int
    draw: Draw = field(repr=False)

    @property
    def request_id(self) -> bytes:
        return b"fuzz-%d-%d" % (self.seed, self.number)


def turn_of(seed: int, number: int) -> Turn:
    """What is to be made of this number."""
    rounds, at = divmod(number, len(_ORDER))
    kind = _ORDER[at]
    before = rounds * _ORDER.count(kind) + _ORDER[:at].count(kind)
    return Turn(seed, number, kind, before, random.Random(f"{seed}:{number}"))


def make(seed: int, number: int) -> Input:
    """The input of that number: the same whenever and wherever it is made."""
    turn = turn_of(seed, number)
    steps, expected = _KINDS[turn.kind](turn)
    return Input(number, turn.kind, steps, expected, turn.request_id)


Made = tuple[tuple[Step, ...], Expected]


def _request(turn: Turn, target: Target, body: bytes | None) -> RawRequest:
    """A request that a sound client could send: its connection ends behind the answer."""
    draw = turn.draw
    request = RawRequest(target.method.encode(), target.path.encode(), [(b"X-Request-Id", turn.request_id)], body)
    if body is not None:
        request.headers.append((b"Content-Type", b"application/json"))
        if draw.random() < 0.2:
            request.chunks = [draw.choice((1, 7, 100, 4096)) for _ in range(3)] if len(body) < 4096 else [4096]
    if b"messages" in request.target or draw.random() < 0.1:
        request.headers.append((b"anthropic-version", b"2023-06-01"))
    if draw.random() < 0.1:
        request.version = b"HTTP/1.0"
        request.chunks = ()
    request.headers.append((b"Connection", b"close"))
    return request


def _whole(request: RawRequest, **expected: object) -> Made:
    answers = Expected(methods=(request.method,), **expected)  # type: ignore[arg-type]
    return (Send(request.to_bytes()),), answers


def _valid(turn: Turn) -> Made:
    """What every client sends. Each seed of each target comes round."""
    ways = [(target, seed) for target in targets() for seed in target.seeds or (None,)]
    target, seed = ways[turn.before % len(ways)]
    request = _request(turn, target, None if seed is None else write(seed))
    if target.method == "GET" and turn.draw.random() < 0.3:
        request.method = b"HEAD"
    found = (404,) if target.missing else (200,)
    right = found if seed is not None else (200, 404, 405) if request.method == b"HEAD" else (200, 404)
    return _whole(request, statuses=frozenset(() if target.closed else right))


def _json(turn: Turn) -> Made:
    draw = turn.draw
    target = draw.choice(asked(body=True))
    value = target.value(draw)
    tree = mutate(value, draw, draw.choice((0, 1, 1, 1, 2, 3, 8)))
    return _whole(_request(turn, target, write(tree, draw)))


def _body(turn: Turn) -> Made:
    draw = turn.draw
    target = draw.choice(asked(body=True))
    body = write(target.value(draw), draw)
    changed = mutate_bytes(body, draw, draw.choice((1, 1, 2, 4)), (b'"', b"\\", b"\\ud800", b"{", b"[", b",", b"\xff"))
    return _whole(_request(turn, target, changed))


def _http(turn: Turn) -> Made:
    """Anything may become of it: nothing is expected but an end."""
    draw = turn.draw
    data = _any(turn).to_bytes()
    if draw.random() < 0.3:
        data += _any(turn).to_bytes()
    data = mutate_bytes(data, draw, draw.choice((1, 1, 2, 3, 8)), forms.PIECES)
    cut = draw.randrange(len(data) + 1) if draw.random() < 0.3 else len(data)
    return (Send(data[:cut]), Pause(draw.choice((0, 0, 0.01))), Send(data[cut:])), Expected()


def _any(turn: Turn) -> RawRequest:
    target = turn.draw.choice(targets())
    return _request(turn, target, write(turn.draw.choice(target.seeds)) if target.seeds else None)


def _cut(turn: Turn) -> Made:
    """The beginning of a request, and then the client is gone: at every byte of every target's request, in turn."""
    cuts = every_cut()
    request, at = cuts[(turn.before + random.Random(turn.seed).randrange(len(cuts))) % len(cuts)]
    leaves = (RESET, HALF_CLOSE)[turn.before // len(cuts) % 2]
    pause = turn.draw.choice((0, 0, 0.005, 0.02))
    return (Send(request[:at]), Pause(pause), leaves), Expected()


def every_cut() -> list[tuple[bytes, int]]:
    """Each target's request, at each byte."""
    if not _CUTS:
        for target in targets():
            for seed in target.seeds[:2] or (None,):
                body = None if seed is None else write({"stream": True} | seed)[:400]
                headers = [(b"Content-Type", b"application/json")]
                request = RawRequest(target.method.encode(), target.path.encode(), headers, body).to_bytes()
                _CUTS.extend((request, at) for at in range(len(request) + 1))
    return _CUTS


_CUTS: Final[list[tuple[bytes, int]]] = []


def _headers(turn: Turn) -> Made:
    draw = turn.draw
    request = _any(turn)
    forms.add_odd_headers(request, draw)
    return _whole(request)


def _smuggle(turn: Turn) -> Made:
    """One message that some would read as two. It must never have two answers."""
    form = forms.SMUGGLED[turn.before % len(forms.SMUGGLED)]
    data = form.data(turn.request_id)
    cut = turn.draw.randrange(len(data)) if turn.draw.random() < 0.3 else len(data)
    steps = (Send(data[:cut]), Pause(0.01), Send(data[cut:])) if cut < len(data) else (Send(data),)
    return steps, Expected(methods=(b"POST",), statuses=form.statuses) if form.statuses else Expected(most=1)


def _pipeline(turn: Turn) -> Made:
    draw = turn.draw
    requests = [_any(turn) for _ in range(draw.randint(2, 6))]
    for request in requests:
        request.version, request.headers = b"HTTP/1.1", [one for one in request.headers if one[0] != b"Connection"]
    requests[-1].headers.append((b"Connection", b"close"))
    data = b"".join(request.to_bytes() for request in requests)
    sends: list[Step] = [Send(data)]
    if draw.random() < 0.3:
        cut = draw.randrange(len(data))
        sends = [Send(data[:cut]), Pause(0.01), Send(data[cut:])]
    return tuple(sends), Expected(methods=tuple(request.method for request in requests))


def _upgrade(turn: Turn) -> Made:
    data = forms.upgrade(turn.before, turn.request_id, turn.draw)
    cut = turn.draw.randrange(len(data) + 1)
    leaves = turn.draw.choice(((), (), (RESET,), (HALF_CLOSE,)))
    return (Send(data[:cut]), Pause(turn.draw.choice((0, 0.01))), Send(data[cut:]), *leaves), Expected()


def _leave(turn: Turn) -> Made:
    """A request for work that would take long, whose caller leaves while it waits or runs."""
    draw = turn.draw
    prompt = draw.choice(("!hang", "!first 9 !tokens 3", "!slow 0.01 !tokens 500", "!stall 2", SHORT))
    body = write({"messages": [{"role": "user", "content": prompt}], "stream": draw.random() < 0.5})
    target = Target("POST", "/v1/chat/completions")
    request = _request(turn, target, body)
    extra = draw.choice((b"", b"", b"\r\n", b"x", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    steps = (Send(request.to_bytes() + extra), Pause(draw.choice((0, 0.001, 0.01, 0.05))))
    return (*steps, draw.choice((RESET, HALF_CLOSE))), Expected()


def _slow(turn: Turn) -> Made:
    """A request in small pieces; or, now and then, an answer that nobody reads for a while."""
    draw = turn.draw
    if turn.before % 40 == 7:
        body = write({"messages": [{"role": "user", "content": "!slow 0 !tokens 4000"}], "stream": True})
        request = _request(turn, Target("POST", "/v1/chat/completions"), body)
        leaves = draw.choice(((), (RESET,)))
        return (Send(request.to_bytes()), Pause(draw.choice((0.2, 0.5, 2.5))), *leaves), Expected(reads=False)
    request = _any(turn)
    data = request.to_bytes()
    steps: list[Step] = []
    start = draw.choice((0, data.find(b"\r\n\r\n"))) if len(data) < 400 else max(0, len(data) - 200)
    steps.append(Send(data[:start]))
    size = max(1, (len(data) - start) // 40)
    for at in range(start, len(data), size):
        steps += [Send(data[at : at + size]), Pause(draw.choice((0.001, 0.005, 0.02)))]
    return tuple(steps), Expected(methods=(request.method,))


_KINDS: Final[dict[str, Callable[[Turn], Made]]] = {
    "valid": _valid,
    "json": _json,
    "body": _body,
    "http": _http,
    "cut": _cut,
    "headers": _headers,
    "smuggle": _smuggle,
    "pipeline": _pipeline,
    "upgrade": _upgrade,
    "leave": _leave,
    "slow": _slow,
}
