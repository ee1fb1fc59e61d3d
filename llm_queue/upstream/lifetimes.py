"""For how long an Ollama keeps which model loaded: the longest time that anybody has asked for.

Ollama lets each request set it anew for everybody, so that the last writer wins. The line sends it with its own loads,
and with a request only if that asks for longer than what holds.
"""

from __future__ import annotations

from typing import Final

FIRST_REQUEST: Final = 60.0
"""Seconds for which a load keeps a model that nobody wants kept: its first request follows at once."""


class Lifetimes:
    """Seconds by model identity; infinity is for ever, and 0 until the answer."""

    def __init__(self, usual: float) -> None:
        """``usual`` is for models of which nobody has said more."""
        self._usual = usual
        self._longest: dict[str, float] = {}
        self._holding: dict[str, float] = {}

    def longest(self, model: str, asked: float | None = None) -> float:
        """The longest that was asked for ``model``, now by ``asked``, but never less than the usual."""
        longest = max(self._usual, self._longest.get(model, 0.0), asked or 0.0)
        if longest > self._usual:
            self._longest[model] = longest
        return longest

    def of_load(self, model: str, asked: float | None = None) -> float:
        """What a load says."""
        return self.longest(model, asked) or FIRST_REQUEST

    def of_work(self, model: str, asked: float | None = None) -> float | None:
        """What a request says; None where it says nothing, and leaves things as they are."""
        longest = self.longest(model, asked)
        if longest == 0:
            return longest
        return None if asked is None or longest <= self._holding.get(model, -1.0) else longest

    def sent(self, model: str, seconds: float | None) -> None:
        """The upstream was told so, unless ``seconds`` is None."""
        if seconds is not None:
            self._holding[model] = seconds

    def forget(self, model: str) -> None:
        """The model was unloaded because somebody asked for that."""
        self._longest.pop(model, None)
        self._holding.pop(model, None)
