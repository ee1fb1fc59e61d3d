"""What a caller does next, drawn from its seed: dialect, lane, model, what goes wrong, and when it hangs up."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.soak.canaries import canary
from tests.soak.kinds import Body, Kind

MODELS: Final = ("fake", "second")
REMOTE: Final = "large:cloud"
UNKNOWN: Final = "nobody-has-this:1b"

FAULTS: Final = (
    # weight, what the question begins with, whether the caller may get its answer all the same
    (4, "!break 0 !say {text} #once", True),
    (4, "!break 2 !say {text}", False),
    (3, "!short 1 !say {text}", False),
    (3, "!cut 1 !say {text}", False),
    (3, "!cut 0 !say {text} #once", True),
    (3, "!garble {text}", False),
    (4, "!busy !say {text} #once", True),
    (4, "!error500 out of luck", False),
    (4, "!refuse 400 no such luck", False),
    (2, "!refuse 429 not so fast", False),
    (1, "!error500 error parsing tool call: raw='{text}', err=unexpected end", False),
    (1, "!error500 Failed to parse input at pos 0: {text}", False),
    (1, '!refuse 400 invalid value "{text}"', False),
    (1, "!hang {text}", False),
    (1, "!stall 1 !say {text}", False),
    (1, "!hang !say {text} #once", True),
)

HANG_UPS: Final = ("in the head", "in the body", "while it waits", "by a half-close", "at the head", "in the answer")


@dataclass(frozen=True)
class Plan:
    """One request: its bytes, and what is to be seen.

    ``text`` is the answer, if it succeeds. ``may_fail`` is true where the upstream or the request is at fault, and
    ``must_fail`` where it can have no answer. ``hang_up`` says where the caller leaves, or is empty, and ``patience``
    how long it waits before it does, in seconds. ``slow`` is the number of seconds between two reads.
    """

    kind: Kind
    streamed: bool
    canary: str
    data: bytes
    head: int
    text: str = ""
    may_fail: bool = False
    must_fail: bool = False
    hang_up: str = ""
    patience: float = 0.0
    slow: float = 0.0
    think: float = 0.0


class Planner:
    """Draws the plans of one client."""

    def __init__(self, seed: int, client: int, kinds: Sequence[Kind], *, faults: float, hang_ups: float) -> None:
        """``faults`` and ``hang_ups`` are the shares of requests that go wrong, and whose callers leave."""
        self._draw = random.Random(seed * 1_000_003 + client)
        self._client = client
        self._kinds = kinds
        self._faults = faults
        self._hang_ups = hang_ups
        self._serial = 0
        self._hurry = False

    def next(self) -> Plan:
        """The next request."""
        draw = self._draw
        self._serial += 1
        own = canary(self._client, self._serial)
        kind = draw.choice(self._kinds)
        streamed = kind.piece is not None and draw.random() < 0.5
        words = " ".join(draw.choice(("alpha", "beta", "gamma", "delta")) for _ in range(draw.randrange(12)))
        text = f"{own} {words} {own}".replace("  ", " ")
        question, may_fail, must_fail = f"!say {text}", False, False
        if not kind.steered:
            question = text
        elif draw.random() < self._faults:
            _, pattern, well = draw.choices(FAULTS, [fault[0] for fault in FAULTS])[0]
            question, may_fail, must_fail = pattern.format(text=text), True, not well
        body = kind.body(self._model(), f"secret {own}", question, streamed)
        if kind.steered and draw.random() < 0.1:
            body["numCtx"] = draw.choice((8192, 16384))
        headers = self._headers(kind)
        if self._faults and draw.random() < 0.02:
            may_fail = must_fail = True
            body = self._spoilt(body, own)
        encoded = json.dumps(body).encode()
        if self._faults and draw.random() < 0.005:
            may_fail = must_fail = True
            encoded = encoded[:-3]
        may_fail |= body.get("model") in (REMOTE, UNKNOWN) or "X-LLM-Queue-Max-Wait" in headers
        must_fail |= body.get("model") == UNKNOWN
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = f"POST {kind.path} HTTP/1.1\r\n{head}content-length: {len(encoded)}\r\n\r\n".encode()
        return Plan(
            kind,
            streamed,
            own,
            data + encoded,
            len(data),
            text,
            may_fail,
            must_fail,
            hang_up=draw.choice(HANG_UPS) if draw.random() < self._hang_ups else "",
            patience=draw.expovariate(10),
            slow=0.02 if draw.random() < 0.02 else 0.0,
            think=self._think(),
        )

    def _model(self) -> str:
        chance = self._draw.random()
        if self._faults and chance < 0.02:
            return UNKNOWN
        if self._faults and chance < 0.05:
            return REMOTE
        return self._draw.choices(MODELS, (4, 1))[0]

    def _headers(self, kind: Kind) -> dict[str, str]:
        draw = self._draw
        headers = {
            "host": "localhost",
            "content-type": "application/json",
            "X-LLM-Queue-Client": f"soak {self._client}",
            **dict(kind.headers),
        }
        if draw.random() < 0.5:
            headers["X-LLM-Queue-Lane"] = draw.choice(("interactive", "normal", "background", "whatever"))
        if self._faults and draw.random() < 0.1:
            headers["X-LLM-Queue-Max-Wait"] = draw.choice(("0", "0.05", "1"))
        if draw.random() < 0.2:
            headers["connection"] = "close"
        return headers

    def _spoilt(self, body: Body, own: str) -> Body:
        """A body that is refused, with the canary where a message might quote it."""
        return self._draw.choice(
            (
                {**body, "model": 7},
                {**body, "stream": own},
                {**body, "messages": own, "input": {own: own}, "prompt": {own: 1}},
            )
        )

    def _think(self) -> float:
        """A while of hurry, in which requests follow each other, then a while of leisure."""
        if self._draw.random() < 0.05:
            self._hurry = not self._hurry
        return 0.0 if self._hurry else self._draw.expovariate(5)
