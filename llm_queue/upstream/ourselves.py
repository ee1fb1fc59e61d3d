"""Whether an address is one that this process listens on itself: told by the address alone, before anything is sent."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

import trio

LOOK_UP: Final = 2.0
"""Seconds for looking up a name. One that takes longer is found out by the first answer."""

Place = tuple[str, int]
"""An address and a port on which we listen."""


async def is_ourselves(url: str, places: Sequence[Place]) -> bool:
    """True if a connection to ``url`` could be one to ``places``: any address that its name has counts."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    candidates = [address for address, number in places if number == port]
    return bool(candidates) and any(
        _reaches(found, ip_address(address))
        for found in await _addresses(parts.hostname or "", port)
        for address in candidates
    )


async def _addresses(host: str, port: int) -> list[IPv4Address | IPv6Address]:
    found: list[IPv4Address | IPv6Address] = []
    with trio.move_on_after(LOOK_UP):
        try:
            answers = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        found = [ip_address(str(answer[4][0])) for answer in answers]
    return [getattr(address, "ipv4_mapped", None) or address for address in found]


def _reaches(address: IPv4Address | IPv6Address, listening: IPv4Address | IPv6Address) -> bool:
    if address == listening or (address.is_unspecified and address.version == listening.version):
        return True
    return listening.is_unspecified and address.version == listening.version and _is_of_this_machine(address)


def _is_of_this_machine(address: IPv4Address | IPv6Address) -> bool:
    """True if a socket can have it: only a machine's own addresses can be bound to."""
    family = trio.socket.AF_INET if address.version == 4 else trio.socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((str(address), 0))
    except OSError:
        return False
    return True
