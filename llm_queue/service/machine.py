"""What is asked about this machine: commands that tell something, addresses that answer, names that are its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

ANSWERS_WITHIN: Final = 15.0
"""Seconds for a server that was started to answer: Ollama takes one or two."""


def _query(arguments: Sequence[str]) -> str:
    try:
        ran = subprocess.run(  # noqa: S603 - fixed commands of this package
            arguments, check=False, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout


def _answers(url: str) -> bool:
    last_moment = time.monotonic() + ANSWERS_WITHIN
    while True:
        try:
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return True
        except httpx.HTTPError:
            pass
        if time.monotonic() >= last_moment:
            return False
        time.sleep(0.3)


def _is_here(host: str) -> bool:
    """True if the name or address is one of this machine: nobody can bind to the address of another."""
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, _, _, address in addresses:
        try:
            with socket.socket(family, kind) as one:
                one.bind(address)
        except OSError:
            continue
        return True
    return False


@dataclass(frozen=True)
class Machine:
    """What is asked about this machine: the output of a command, whether an address answers before long, and whether a
    host is this machine.

    ``user`` is the number of the user of this process, 0 for root and -1 where there are none.
    """

    query: Callable[[Sequence[str]], str] = _query
    answers: Callable[[str], bool] = _answers
    is_here: Callable[[str], bool] = _is_here
    user: int = field(default_factory=lambda: getattr(os, "getuid", lambda: -1)())
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
