"""What a run or a load of the scripted upstream can be told to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_queue.wire.shapes import Completion, FinishReason


@dataclass(frozen=True)
class Say:
    """Answer with ``text``, cut into ``tokens`` pieces (None: one per word). Times are in seconds.

    ``thinking`` comes first, in one piece; ``calls`` are the names of tools that are called before the text.
    ``prompt_tokens``, ``cached_tokens``, ``prompt_seconds`` and ``finish_reason`` go into the completion. A request
    for vectors is answered with ``(length of the text, 1.0)`` for each input; one for a tool call that must be made
    with a call of the first tool that there is to choose from, which has the text as its arguments.
    """

    text: str = "hello"
    tokens: int | None = None
    seconds_per_token: float = 0.0
    first_after: float = 0.0
    thinking: str = ""
    finish_reason: FinishReason = "stop"
    prompt_tokens: int = 1
    cached_tokens: int | None = None
    prompt_seconds: float | None = None
    calls: tuple[str, ...] = ()

    def told(self, counted: int | None = None) -> Completion:
        """What the completion says of the prompt; ``counted`` are its tokens, if somebody counted them."""
        tokens = counted or self.prompt_tokens
        return Completion("stop", tokens, cached_tokens=self.cached_tokens, prompt_seconds=self.prompt_seconds)

    def pieces(self) -> list[str]:
        """The text in that many pieces; joined they are the text again."""
        wanted = len(self.text.split()) if self.tokens is None else self.tokens
        size = max(1, math.ceil(len(self.text) / max(1, wanted)))
        pieces = [self.text[start : start + size] for start in range(0, len(self.text), size)]
        return pieces + [""] * ((self.tokens or 0) - len(pieces))


@dataclass(frozen=True)
class Hang:
    """Never answer: no token, no error, until the caller gives up."""


@dataclass(frozen=True)
class Stall:
    """Say ``after_tokens`` tokens, then hang."""

    after_tokens: int = 1


@dataclass(frozen=True)
class Refuse:
    """Say 4xx, after ``after`` seconds."""

    status: int = 400
    text: str = "refused by the script"
    after: float = 0.0


@dataclass(frozen=True)
class Break:
    """Say ``after_tokens`` tokens, then break with ``text``, as Ollama does when its engine dies."""

    after_tokens: int = 0
    text: str = "an error was encountered while running the model: unexpected EOF"
    after: float = 0.0


@dataclass(frozen=True)
class Garble:
    """Answer with what is no answer."""


@dataclass(frozen=True)
class Busy:
    """Say 503, as when another program calls the engine past the line."""


Script = Say | Hang | Stall | Refuse | Break | Garble | Busy
