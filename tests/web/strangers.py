"""Values that strangers may send as ``Host``, ``Origin`` or key, drawn by chance: each of them is one to be refused."""

from __future__ import annotations

import random
import string
from typing import Final

PUBLIC: Final = ("evil.example", "com", "co.uk", "nip.io", "sslip.io", "lan", "dev", "xyz", "localhost.evil.example")
NEAR: Final = (
    "localhost",
    "127.0.0.1",
    "0.0.0.0",
    "[::1]",
    "box",
    "host.docker.internal",
    "desk.local",
    "127.0.0.1:11500",
)
ODD: Final = (
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0x7f000001",
    "127.0.0.1.1",
    "::1",
    "[::1",
    "::ffff:127.0.0.1",
)
MARKS: Final = " \t\x00\x0b\x7f\x80\xa0@/\\#?%,;&'\"<>|(){}^*!~$+=`"
"""Characters that no host has."""


class Stranger:
    """Draws with ``chance``."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def _label(self) -> str:
        letters = string.ascii_letters + string.digits + "-_"
        return "".join(self._chance.choices(letters, k=self._chance.randint(1, 20)))

    def _public_name(self) -> str:
        """A name that somebody may own in the public DNS."""
        near = self._chance.choice([*NEAR, self._label(), "xn--lcalhost-n1a"]).strip("[]").replace(":", "-")
        name = f"{near}.{self._chance.choice(PUBLIC)}"
        name = name.upper() if self._chance.random() < 0.2 else name
        return name + self._chance.choice(["", "", "."])

    def _broken(self, good: str) -> str:
        """A good value with something in it that does not belong there."""
        at = self._chance.randint(0, len(good))
        return good[:at] + self._chance.choice(MARKS) + good[at:]

    def _port(self) -> str:
        return self._chance.choice(["", "", ":11500", ":80", f":{self._chance.randint(1, 65535)}"])

    def hosts(self) -> list[str]:
        """The values of the ``Host`` headers of one request: none, one that is foreign, or two."""
        match self._chance.randrange(9):
            case 0:
                return self._chance.choice([[], [""], ["localhost", "localhost"], ["localhost", self._public_name()]])
            case 1:
                return [self._chance.choice(ODD)]
            case 2:
                return [self._broken(self._chance.choice(NEAR))]
            case 3:
                return [
                    f"localhost{self._chance.choice([':', ':x', ':1:2', ':123456', '..', ' ', '.com.', '/x', '@x'])}"
                ]
            case 4:
                reserved = self._chance.choice(["localhost", "local", "internal", "home.arpa"])
                return [f"{self._label()}.{self._chance.choice('abxyz')}{reserved}{self._port()}"]
            case 5:  # asks for a top-level domain
                return [self._chance.choice(["com", "dev", "ai", "box", "local", self._label()]) + "." + self._port()]
            case 6:
                return ["".join(chr(self._chance.randint(0, 255)) for _ in range(self._chance.randint(1, 40))) + "é.x"]
            case _:
                return [self._public_name() + self._port()]

    def origin(self) -> str:
        """The ``Origin`` of a page that may not call a service at ``localhost``."""
        scheme = self._chance.choice(["http", "https", "HTTPS"])
        match self._chance.randrange(7):
            case 0:
                return self._chance.choice(
                    ["null", "NULL", "", " ", "*", "about:blank", "file://", "data:", "blob:null"]
                )
            case 1:
                other = self._chance.choice(
                    ["ftp", "ws", "wss", "gopher", "javascript", "chrome", "extension", self._label()]
                )
                return f"{other}://localhost"
            case 2:
                return f"{scheme}://{self._broken(self._chance.choice(NEAR[:2]))}"
            case 3:
                between = self._chance.choice(["@", ".", " ", "/", "#@", ":80@", "%2e"])
                return f"{scheme}://localhost{between}{self._public_name()}"
            case 4:
                near = ["192.168.1.5", "10.0.0.1", "8.8.8.8", "[fe80::1]", "box", "desk.local"]
                return f"{scheme}://{self._chance.choice(near)}"
            case 5:
                return self._chance.choice(
                    ["chrome-extension:", "chrome-extension://", "moz-extension:abc", "://localhost", "localhost"]
                )
            case _:
                return f"{scheme}://{self._public_name()}{self._port()}"

    def credentials(self, keys: dict[str, str]) -> dict[str, str]:
        """Headers with something like one of ``keys`` (secrets by their names), but never one of them."""
        name, key = self._chance.choice(list(keys.items()))
        near = [
            "", key[:-1], key[1:], key + key[-1], key.swapcase(), f"{name}={key}", f"={key}", f"{key} {key}", f"{key},",
            f'"{key}"', key[::-1], f"Bearer {key}", f"{key}\x00", f"{key} lane=interactive", name, self._label(),
            self._broken(key),
        ]  # fmt: skip
        wrong = self._chance.choice([one for one in near if one.strip() not in keys.values()])
        match self._chance.randrange(6):
            case 0:
                return {}
            case 1:
                return {"x-api-key": wrong}
            case 2:
                return {"authorization": f"{self._chance.choice(['Basic', 'Token', 'Bearer:', 'Key', ''])} {key}"}
            case 3:
                return {"authorization": f"Bearer {wrong}", "x-api-key": wrong}
            case 4:
                odd = [
                    "x-api-token",
                    "api-key",
                    "proxy-authorization",
                    "cookie",
                    "x-forwarded-authorization",
                    "x_api_key",
                ]
                return {self._chance.choice(odd): key}
            case _:
                return {"authorization": f"Bearer {wrong}"}
