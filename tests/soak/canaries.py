"""Words that belong to one request alone, so that it shows wherever they turn up."""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "kanari"
"""What every canary begins with, and what the service itself would never say."""

_CANARY: Final = re.compile(rb"kanari[0-9a-f]{16}")


def canary(client: int, serial: int) -> str:
    """The canary of one request: of client ``client``, its ``serial``-th."""
    return f"{MARK}{client:06x}{serial:010x}"


def foreign(heard: bytes, own: str) -> list[str]:
    """The canaries in an answer that are not that of its request."""
    return [found.decode() for found in _CANARY.findall(heard) if found.decode() != own]


def leaks(text: str) -> bool:
    """True if there is any trace of a prompt or an answer in what should have none."""
    return MARK in text
