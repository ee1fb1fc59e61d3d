"""Names that may stand in ``Host``: those under which no web site can make a browser reach this service.

The attack is DNS rebinding. A page of ``evil.example`` may talk to the address that it came from, so its owner lets the
public DNS answer with 127.0.0.1 the next time, and the page talks to us. What gives it away is ``Host``: a page cannot
set that header, so it is a name which the attacker owns in the public DNS. It follows that these are safe:

- an address: a browser connects to the very address that it sends, and there is nothing to rebind;
- a name under a top-level domain that the public DNS will never have (:data:`RESERVED`), and a name without a dot.
  They come from this machine, from its container runtime (``host.docker.internal``), or from its network (mDNS, the
  router). The people who run that network could still rebind one; keys are the answer. Ollama takes these domains too,
  but no name without a dot except the machine's own;
- the name that this machine gives itself, and names from the settings.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

RESERVED: Final = ("localhost", "local", "internal", "home.arpa")
"""Domains kept out of the public DNS for good: RFC 6761, RFC 6762, ICANN's resolution 2024.07.29.06, and RFC 8375."""

_LABEL: Final = "[a-z0-9_-]{1,63}"
_PLACE: Final = re.compile(rf"(\[[0-9a-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?)(?::[0-9]{{1,5}})?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def name_in(place: str) -> str | None:
    """The host of a lower-case ``host[:port]``, without brackets and final dot, or None if ``place`` is no such thing.

    A single label with a final dot is None too: the dot asks for a top-level domain, which is public.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        return None
    name = match[1].strip("[]")
    if name.endswith(".") and "." not in name[:-1] and name != "localhost.":
        return None
    return name.removesuffix(".")


def names_of(machine: str) -> frozenset[str]:
    """What others call a machine that calls itself ``machine``: the same, or its name in a router's ``.lan``."""
    machine = machine.lower().rstrip(".")
    return frozenset((machine, machine.partition(".")[0] + ".lan")) if machine else frozenset()


def is_this_machine(name: str) -> bool:
    """True for what can only be this machine: browsers, too, send ``*.localhost`` nowhere else."""
    if is_address(name):
        address = ip_address(name)
        return address.is_loopback or address.is_unspecified
    return name == "localhost" or name.endswith(".localhost")


def cannot_be_rebound(name: str) -> bool:
    """True for addresses, and for names that the public DNS does not have."""
    if is_address(name):
        return True
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return False  # an odd spelling of an address (127.1): browsers never send it, and resolvers differ
    return "." not in name or any(name == domain or name.endswith("." + domain) for domain in RESERVED)


@lru_cache(256)  # nearly always one of three
def is_address(name: str) -> bool:
    """True for an IPv4 or IPv6 address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
