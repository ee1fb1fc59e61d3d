"""How many tokens a prompt has, before the model has counted them: estimated, and learned from what it counts."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from llm_queue.wire.prompts import PromptSize

BYTES_PER_TOKEN: Final = 3.0
"""Bytes of a token of a model that has not counted any yet: English prose has 4 to 5, code and JSON 2.5 to 3.5."""

PER_MESSAGE: Final = 8
"""Tokens that a chat template puts around a message."""

PER_IMAGE: Final = 1024
"""Tokens of an image: vision models take from 256 to some 2,900 of them."""

MARGIN: Final = 0.9
"""What is believed of the bytes per token that were counted: the next prompt may be denser."""

RISE: Final = 1 / 16
"""How far one count above the estimate draws it up. A count below it counts at once: an estimate that is too low costs
a second run, one that is too high at most some memory.
"""

MOST_BYTES_PER_TOKEN: Final = 6.0
"""What the estimate never goes beyond. More is seen only where the text is no text (rows of blanks) or where a template
left some of it out.
"""

SPARSEST: Final = 16.0
"""Bytes per token that no text has over a whole prompt: words of one token have up to 12 letters."""

SURE: Final = 2.0
"""Times the sparsest prompt that a model has counted, beyond which no prompt of that model is expected."""

SURE_AFTER: Final = 8
"""Counts after which a model's sparsest prompt says something of others."""

LEARNED_FROM: Final = 2000
"""Bytes of a prompt from which on it is learned from: in smaller ones the template weighs too much."""

MOST_MODELS: Final = 256
"""Models of which it is remembered what they counted; the one not heard of for longest is forgotten first."""


@dataclass(slots=True)
class _Counted:
    """Bytes per token of one model: what the estimate takes, and the most that was ever counted, of ``times``."""

    dense: float = BYTES_PER_TOKEN
    sparse: float = 0.0
    times: int = 0


class PromptLengths:
    """Estimates for each model, by its identity: rather too high than too low."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, _Counted] = OrderedDict()

    def estimate(self, model: str | None, size: PromptSize) -> int:
        """About how many tokens a prompt of this ``size`` has for ``model`` (None: not known yet)."""
        tokens = size.bytes / self._of(model).dense
        return math.ceil(tokens) + PER_MESSAGE * size.messages + PER_IMAGE * size.images + size.tokens

    def at_least(self, model: str | None, size: PromptSize) -> int:
        """How many tokens such a prompt has at the very least: what is refused for this many would not have run."""
        counted = self._of(model)
        sparsest = min(SPARSEST, SURE * counted.sparse) if counted.times >= SURE_AFTER else SPARSEST
        return math.floor(size.bytes / sparsest) + size.tokens

    def learn(self, model: str, size: PromptSize, tokens: int) -> None:
        """``model`` has counted ``tokens`` in a prompt of this ``size``, and read all of it."""
        if size.bytes < LEARNED_FROM or size.images or tokens <= size.tokens:
            return
        counted = self._counted.setdefault(model, _Counted())
        self._counted.move_to_end(model)
        if len(self._counted) > MOST_MODELS:
            self._counted.popitem(last=False)
        ratio = size.bytes / (tokens - size.tokens)
        believed = min(MARGIN * ratio, MOST_BYTES_PER_TOKEN)
        counted.dense = min(believed, counted.dense + max(0.0, believed - counted.dense) * RISE)
        counted.sparse = max(counted.sparse, ratio)
        counted.times += 1

    def _of(self, model: str | None) -> _Counted:
        return self._counted.get(model, _NOTHING) if model is not None else _NOTHING


_NOTHING: Final = _Counted()
