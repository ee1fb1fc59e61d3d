"""How the values of settings are written, and what they become.

A parser takes the text of one value and raises ``ValueError`` with what the setting takes; the message goes on from the
setting's name.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import re
from collections.abc import Callable
from typing import Final, Self
from urllib.parse import unquote, urlsplit

OLLAMA_PORT: Final = 11434
"""Where Ollama listens unless it is told otherwise, and where programs that speak to it look."""


def text(raw: str) -> str:
    """Any text."""
    return raw


def switch(raw: str) -> bool:
    """On or off, as people write it."""
    try:
        return {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }[raw.strip().lower()]
    except KeyError:
        raise ValueError("takes on or off") from None


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from ``least`` to ``most``."""

    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:  # also a number of more digits than Python reads
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"takes a whole number from {least} to {most}")
        return value

    return parse


def ports(raw: str) -> tuple[int, ...]:
    """Ports with commas, each of them once; 0 is one that is free."""
    try:
        return tuple(dict.fromkeys(whole(0, 65535)(port) for port in names(raw) or ("",)))
    except ValueError:
        raise ValueError("takes whole numbers from 0 to 65535, comma-separated") from None


def number(least: float, most: float) -> Callable[[str], float]:
    """A number from ``least`` to ``most``."""

    def parse(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ValueError(f"takes a number from {least:g} to {most:g}")
        return value

    return parse


_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?) *(?:([kmgt])(i?b)?|b|bytes)?", re.IGNORECASE)


def size(least: int, most: int) -> Callable[[str], int]:
    """A size in bytes, or with a unit: G and GiB are 2^30 bytes, GB is 10^9."""

    def parse(raw: str) -> int:
        match = _SIZE.fullmatch(raw.strip())
        value = -1.0
        if match is not None:
            base = 1000 if (match[3] or "").lower() == "b" else 1024
            value = float(match[1]) * base ** " kmgt".index((match[2] or " ").lower())
        if not least <= value <= most:
            raise ValueError(f"takes a size from {least // 2**20} MiB, such as 4GiB or 4294967296 (bytes)")
        return int(value)

    return parse


def optional_seconds(raw: str) -> float | None:
    """Seconds, or none."""
    return None if raw.strip().lower() in ("", "none") else number(0, 86400)(raw)


_DURATION: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?(ns|us|\u00b5s|ms|s|m|h))+|[+-]?[0-9]{1,9}")


def duration(raw: str) -> str:
    """A time as Ollama reads it."""
    if _DURATION.fullmatch(raw) is None:
        raise ValueError("takes a time such as 1h, 5m or 90s, a number of seconds, 0 for not at all, or -1 for ever")
    return raw


def names(raw: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(name.strip() for name in raw.split(",") if name.strip())


def each(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """A list with commas, each part read by ``parse``."""
    return lambda raw: tuple(parse(name) for name in names(raw))


def alias(raw: str) -> str:
    """A name that callers use, or a pattern of such names, and the model that answers to it."""
    name, _, model = (part.strip() for part in raw.partition("="))
    if not name or not model or any(mark in model for mark in "*?=") or any(" " in part for part in (name, model)):
        raise ValueError("takes NAME=MODEL, such as claude-*=qwen3:8b, comma-separated")
    return f"{name}={model}"


def origin(raw: str) -> str:
    """What a browser sends as ``Origin``: a scheme and a host, or ``*`` for all."""
    if raw == "*":
        return raw
    scheme, found, rest = raw.rstrip("/").partition("://")
    if not found or not scheme or not rest or "/" in rest or "*" in rest:
        raise ValueError("takes origins as browsers send them, such as https://example.org, each written out, or *")
    return raw.rstrip("/").lower()


_HOST_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def host_name(raw: str) -> str:
    """A name without its port, which is no part of it."""
    name = raw.lower().rstrip(".")
    name = re.sub(r"(?<=[^:]):[0-9]+$", "", name) if name.count(":") == 1 else name
    if _HOST_NAME.fullmatch(name) is None and not _is_address(name):
        raise ValueError("takes names such as llm.lan, each written out, without http:// and without *")
    return name


def listen_host(raw: str) -> str:
    """An address to listen on. conda sets HOST to the name of a compiler's target."""
    name = raw.lower().rstrip(".")
    if _is_address(name) or name == "localhost":
        return name
    if _HOST_NAME.fullmatch(name) is None or len(name.split("-")) >= 3:
        raise ValueError("takes an address of this machine, such as 127.0.0.1 or 0.0.0.0 (unset HOST, or give --host)")
    return name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class ServerUrl(str):
    """Where a server is. As text it has no user and no password, so that it can be shown and logged.

    ``authorization`` is the value of the header that carries them (None if there are none), and ``raw`` what was given.
    """

    __slots__ = ("authorization", "raw")

    authorization: str | None
    raw: str

    def __new__(cls, text: str, authorization: str | None = None, raw: str | None = None) -> Self:
        url = super().__new__(cls, text)
        url.authorization = authorization
        url.raw = text if raw is None else raw
        return url


def server_url(port: int | None = None) -> Callable[[str], ServerUrl]:
    """An address of a server, without the path of its API. ``port`` is the one that a bare host name means."""

    def parse(raw: str) -> ServerUrl:
        bare = "://" not in raw
        try:
            parts = urlsplit(f"http://{raw}" if bare else raw)
            number = parts.port
            host = parts.hostname or ""
        except ValueError:
            host = ""
        address = _is_address(host)
        if _cannot_be_asked(host, address, raw) or parts.scheme not in ("http", "https"):
            raise ValueError(f"takes an address such as http://localhost:{port or 8080}")
        if address and ipaddress.ip_address(host).is_unspecified:  # where a server listens is not where it is reached
            host = "::1" if ":" in host else "127.0.0.1"
        number = port if bare and number is None else number
        place = f"[{host}]" if ":" in host else host
        path = re.sub(r"/(v1|api)$", "", parts.path.rstrip("/"))
        text = f"{parts.scheme}://{place}{'' if number is None else f':{number}'}{path}"
        return ServerUrl(text, _basic(parts.username, parts.password), raw)

    return parse


def _cannot_be_asked(host: str, address: bool, raw: str) -> bool:
    """True if no request can be sent to it."""
    return not (address or _HOST_NAME.fullmatch(host.rstrip("."))) or any(mark in raw for mark in " ?#")


def _basic(user: str | None, password: str | None) -> str | None:
    """The header for a user and a password in an address, where both may be percent-encoded."""
    if user is None and password is None:
        return None
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def one_of(*choices: str) -> Callable[[str], str]:
    """One of ``choices``."""

    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError("takes " + " or ".join(choices))
        return raw

    return parse
