"""API keys as settings have them: ``NAME=KEY lane=normal share=2``, and the file in which they may stand.

A name, a lane and a share may each be left out. No message of an error has any part of a key in it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

LANES: Final = ("interactive", "normal", "background")
"""Names of lanes, the highest first."""

LEAST_SHARE: Final = 0.1
MOST_SHARE: Final = 10.0

MOST_BYTES: Final = 2**20
"""Of a file of keys: some ten thousand of them."""

_NAMED: Final = re.compile(r"([A-Za-z0-9._-]{1,100})=(?!=*$)(.+)")
_FORM: Final = "NAME=KEY or KEY, and behind it lane=LANE or share=NUMBER"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, and what it allows: no lane above ``lane``, and ``share`` times the slot time of a client of share 1.

    ``name`` is empty for a key without one: the programs that send it are told apart as without keys.
    """

    secret: str = field(repr=False)
    name: str = ""
    lane: str = LANES[0]
    share: float = 1.0


class KeysFile(str):
    """The path of a file of keys, as it was given, and the ``keys`` that were in it when it was read."""

    __slots__ = ("keys",)

    keys: tuple[ApiKey, ...]

    def __new__(cls, path: str, keys: Iterable[ApiKey]) -> Self:
        one = super().__new__(cls, path)
        one.keys = tuple(keys)
        return one


def api_key(text: str) -> ApiKey:
    """One key with what stands behind it. A key may end in ``=``, as base64 does. Raises ``ValueError``."""
    secret, *fields = text.split() or [""]
    if "," in secret or not secret:
        raise ValueError(f"takes {_FORM}")
    named = _NAMED.fullmatch(secret)
    said = {"lane": LANES[0], "share": "1"}
    given = set()
    for word in fields:
        name, _, value = word.partition("=")
        if name not in said or name in given or not value:
            raise ValueError(f"takes {_FORM}; each of them once, and no white space in a key")
        given.add(name)
        said[name] = value
    if said["lane"] not in LANES:
        raise ValueError(f"takes {', '.join(LANES[:-1])} or {LANES[-1]} as the lane of a key")
    if "share" in given and named is None:
        raise ValueError("takes a share with a name only, NAME=KEY share=NUMBER: a share is a client's")
    return ApiKey(
        secret=named[2] if named else secret,
        name=named[1] if named else "",
        lane=said["lane"],
        share=_share(said["share"]),
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not LEAST_SHARE <= share <= MOST_SHARE:
        raise ValueError(f"takes a number from {LEAST_SHARE:g} to {MOST_SHARE:g} as the share of a key")
    return share


def key_list(raw: str) -> tuple[str, ...]:
    """Keys with commas, as they were written. Raises ``ValueError``; also for none, which would let everybody in."""
    written = tuple(" ".join(one.split()) for one in raw.split(",") if one.strip())
    if not written:
        raise ValueError(f"takes {_FORM}, comma-separated")
    for one in written:
        api_key(one)
    return written


def keys_file(raw: str) -> KeysFile:
    """The file at this path, read: one key a line, and comments that begin with ``#``.

    Raises ``ValueError`` if it cannot be read, others than its owner and group may read it, others than its owner may
    write it, or it has no key.
    """
    try:
        with Path(raw).expanduser().open("rb") as file:
            _check_who_may_read(os.fstat(file.fileno()).st_mode)
            content = file.read(MOST_BYTES + 1)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such home"
        raise ValueError(f"takes a file of keys that can be read ({reason})") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"takes a file of keys of no more than {MOST_BYTES // 2**20} MiB")
    keys = []
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("takes a file of keys in UTF-8") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
        if not words[:comment]:
            continue
        try:
            keys.append(api_key(" ".join(words[:comment])))
        except ValueError as error:
            raise ValueError(f"has a line {number} that cannot be read: it {error}; it is") from None
    if not keys:
        raise ValueError("takes a file with a key in it, one a line: an empty one would let everybody in")
    return KeysFile(raw, keys)


def _check_who_may_read(mode: int, system: str = os.name) -> None:
    """Refuse a file that others may read or change. On Windows the mode says nothing of that, and is not looked at."""
    if system == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ValueError(
            "takes a file that nobody else may read or change, and this one has the mode "
            f"{stat.S_IMODE(mode):o}: `chmod 600` it"
        )


def contradiction(keys: Iterable[ApiKey]) -> str | None:
    """Why these keys cannot all count, in words for people; None if they can."""
    seen: set[str] = set()
    shares: dict[str, float] = {}
    for key in keys:
        if key.secret in seen:
            return f"a key is there twice{f', once for {key.name}' if key.name else ''}: each belongs to one name"
        seen.add(key.secret)
        if key.name and shares.setdefault(key.name, key.share) != key.share:
            return f"{key.name} has two shares, {shares[key.name]:g} and {key.share:g}: a share is a client's"
    return None
