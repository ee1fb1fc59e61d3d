"""How many tokens a prompt has, before the model has counted them: estimated, and learned from what it counts."""

from __future__ import annotations

import math
from typing import Final

from llm_queue.wire.prompts import PromptSize

BYTES_PER_TOKEN: Final = 3.0
"""Bytes of a token of a model that has not counted any yet: English prose has 4 to 5, code and JSON 2.5 to 3.5."""

PER_MESSAGE: Final = 8
"""Tokens that a chat template puts around a message."""

PER_IMAGE: Final = 1024
"""Tokens of an image: vision models take from 256 to some 2,900 of them."""


class PromptLengths:
    """Estimates for each model, by its identity: rather too high than too low."""

    def estimate(self, model: str | None, size: PromptSize) -> int:
        """About how many tokens a prompt of this ``size`` has for ``model`` (None: not known yet)."""
        tokens = size.bytes / BYTES_PER_TOKEN
        return math.ceil(tokens) + PER_MESSAGE * size.messages + PER_IMAGE * size.images
