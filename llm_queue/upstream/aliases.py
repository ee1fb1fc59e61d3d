"""Names that stand for models: what answers to a name that the upstream does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final

ANY: Final = "*"
SETTING: Final = "--alias"

_VENDORS: Final = re.compile(
    r"(claude|gpt|chatgpt|gemini|grok|codex|text-embedding|davinci|babbage|o[1-9])(?![a-z0-9]).*", re.IGNORECASE
)
_OPEN: Final = re.compile(r"gpt-(oss|j|neo)", re.IGNORECASE)
"""Models with a vendor's prefix that anybody can have."""


class Aliases:
    """Pairs of a name, or a pattern of names, and a model's name. An exact name goes before patterns, ``*`` comes last,
    and otherwise the first that fits counts. Upper and lower case are the same, and ``x`` is ``x:latest``.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = sorted(((name.casefold(), name, model) for name, model in pairs), key=lambda pair: _rank(pair[0]))

    def find(self, name: str) -> tuple[str, str] | None:
        """The alias that fits ``name``, as it was given, and its model; None if none does."""
        asked = name.strip().casefold()
        forms = {asked, asked.removesuffix(":latest")}
        return next(
            (
                (given, model)
                for pattern, given, model in self._pairs
                if any(fnmatchcase(one, pattern) for one in forms)
            ),
            None,
        )

    def exact(self) -> Iterator[tuple[str, str]]:
        """Those that are whole names, with their models: what a list of models can show."""
        return ((given, model) for pattern, given, model in self._pairs if _rank(pattern) == 0)


def advice(name: str, model: str) -> str:
    """How to have ``model`` answer, where ``name`` is one of a hosted service that programs ask for by themselves.

    Empty for all other names.
    """
    match = _VENDORS.fullmatch(name.strip())
    if match is None or _OPEN.match(name):
        return ""
    pattern = f"{match[1]}-*" if "-" in name else name
    return f"To have another model answer to such names, start llm-queue with {SETTING} '{pattern}={model}'"


def _rank(pattern: str) -> int:
    """0 for a whole name, 1 for a pattern, 2 for any name."""
    return 2 if pattern == ANY else int(any(mark in pattern for mark in "*?["))
