"""Where Ollama listens, and what moves it to another port. Pure: nothing is asked, written or run here."""

from __future__ import annotations

import ipaddress
import plistlib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from llm_queue.service.units import MARK, Commands
from llm_queue.settings.values import OLLAMA_PORT

MOVED_TO: Final = 11435
"""The port that Ollama gets when its own is taken over: the next one, which nothing well known has."""

SYSTEM: Final = Path("/etc/systemd/system")
"""Where the units of the machine have what its owner adds."""

DROP_IN: Final = PurePosixPath("ollama.service.d", "zz-llm-queue.conf")
"""The last of the drop-ins by name, so that it wins over others."""

_HOST: Final = re.compile(r"OLLAMA_HOST=([^\s\"']+)")


@dataclass(frozen=True)
class Place:
    """Where Ollama listens: ``host`` is empty for all addresses of the machine."""

    host: str = "127.0.0.1"
    port: int = OLLAMA_PORT

    @classmethod
    def of(cls, raw: str) -> Place:
        """What Ollama makes of that value of ``OLLAMA_HOST``."""
        scheme, found, rest = raw.strip().strip("\"'").rpartition("://")
        rest = rest.partition("/")[0]
        port = {"http": 80, "https": 443}.get(scheme, OLLAMA_PORT) if found else OLLAMA_PORT
        match = re.fullmatch(r"(\[.*\]|[^:]*):([0-9]{1,5})", rest)
        host = match[1] if match else rest
        if match and int(match[2]) < 65536:
            port = int(match[2])
        return cls(host.strip("[]") if match or rest else cls.host, port)

    @property
    def open(self) -> bool:
        """True if other machines can reach it."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    @property
    def url(self) -> str:
        """How this machine reaches it."""
        everywhere = self.host in ("", "0.0.0.0", "::")  # noqa: S104 - read, not bound
        return f"http://{'localhost' if everywhere or not self.open else _bracketed(self.host)}:{self.port}"

    def at(self, port: int) -> Place:
        """The same addresses, at another port."""
        return Place(self.host, port)

    def __str__(self) -> str:
        """The value of ``OLLAMA_HOST`` that says so."""
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True)
class Unit:
    """Ollama's unit of systemd: the machine's (``of_system``) or the user's, and its environment.

    ``files`` are what it reads variables from; they win over those of the unit and of every drop-in.
    """

    of_system: bool
    active: bool = False
    host: str | None = None
    files: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """Where it listens."""
        return Place() if self.host is None else Place.of(self.host)


SHOW: Final = ("show", "ollama.service", "--property=LoadState,ActiveState,Environment,EnvironmentFiles")
"""The question to systemctl that :func:`read_unit` reads the answer of."""


def read_unit(said: str, *, of_system: bool) -> Unit | None:
    """The unit, from what ``systemctl show`` says of it; None if there is none."""
    pairs = [line.partition("=")[::2] for line in said.splitlines()]
    if dict(pairs).get("LoadState") != "loaded":
        return None
    files = tuple(value.partition(" (")[0] for name, value in pairs if name == "EnvironmentFiles" and value)
    hosts = [host for name, value in pairs if name == "Environment" and (host := host_in(_words(value))) is not None]
    active = ("ActiveState", "active") in pairs
    return Unit(of_system=of_system, active=active, host=hosts[-1] if hosts else None, files=files)


def variables_in(said: str) -> dict[str, str]:
    """The variables of a unit, from what ``systemctl show`` says of it; those of its files are not among them."""
    values = [value for name, _, value in (line.partition("=") for line in said.splitlines()) if name == "Environment"]
    pairs = [word.partition("=") for value in values for word in _words(value)]
    return {name: value for name, _, value in pairs}


def host_in(words: Iterable[str]) -> str | None:
    """The value of ``OLLAMA_HOST`` among assignments of variables; the last one counts."""
    values = [value for name, _, value in (word.partition("=") for word in words) if name.strip() == "OLLAMA_HOST"]
    return values[-1].strip() if values else None


@dataclass(frozen=True)
class Move:
    """What moves Ollama: a file, and the commands that make its system read it; and the way back.

    ``root`` is true if only root may do that. ``before`` and ``after`` are where Ollama listens.
    """

    path: Path
    text: str
    start: Commands
    undo: Commands
    root: bool
    before: Place
    after: Place


def move_unit(unit: Unit, user_units: Path) -> Move:
    """How to move Ollama where systemd starts it; ``user_units`` is the folder of the user's units."""
    control = ("systemctl",) if unit.of_system else ("systemctl", "--user")
    after = unit.place.at(MOVED_TO)
    restart = ((*control, "daemon-reload"), (*control, "restart", "ollama.service"))
    return Move(
        path=drop_in_path(user_units, of_system=unit.of_system),
        text=f'# {MARK}\n[Service]\nEnvironment="OLLAMA_HOST={after}"\n',
        start=restart,
        undo=restart,
        root=unit.of_system,
        before=unit.place,
        after=after,
    )


def drop_in_path(user_units: Path, *, of_system: bool) -> Path:
    """Where the drop-in stands that moves Ollama."""
    return (SYSTEM if of_system else user_units) / DROP_IN


def move_app(host: str | None, agents: Path, user: int) -> Move:
    """How to move the Ollama of a Mac, whose environment is that of the user's session.

    An agent sets the variable at each login; ``host`` is its value now, None or empty if it is not set, ``agents`` the
    folder of the user's agents, and ``user`` the number of the user.
    """
    label = "llm-queue.ollama"
    before = Place.of(host) if host else Place()
    after = before.at(MOVED_TO)
    set_it = ("/bin/launchctl", "setenv", "OLLAMA_HOST", str(after))
    agent = {"Label": label, "ProgramArguments": list(set_it), "RunAtLoad": True}
    head, _, body = plistlib.dumps(agent, sort_keys=False).decode().partition("?>\n")
    path = agents / f"{label}.plist"
    reopen = (("osascript", "-e", 'quit app "Ollama"'), ("open", "-a", "Ollama"))
    return Move(
        path=path,
        text=f"{head}?>\n<!-- {MARK} -->\n{body}",
        start=(("launchctl", "bootstrap", f"gui/{user}", str(path)), set_it, *reopen),
        undo=(("launchctl", "bootout", f"gui/{user}/{label}"), ("launchctl", "unsetenv", "OLLAMA_HOST"), *reopen),
        root=False,
        before=before,
        after=after,
    )


def moved_to(text: str) -> Place | None:
    """Where the Ollama listens that a file of ours has moved; None if the text does not say."""
    match = _HOST.search(text) or re.search(r"<string>OLLAMA_HOST</string>\s*<string>([^<]+)</string>", text)
    return Place.of(match[1]) if match else None


def as_root(move: Move, *, undo: bool = False) -> str:
    """What a person has to type, where only root may do it."""
    if undo:
        lines = [f"sudo rm {move.path}"]
    else:
        quoted = " ".join(shlex.quote(line) for line in move.text.splitlines())
        lines = [
            f"sudo mkdir -p {move.path.parent}",
            f"printf '%s\\n' {quoted} | sudo tee {move.path}",
        ]
    return "\n".join("  " + line for line in [*lines, *(f"sudo {shlex.join(one)}" for one in move.start)])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()
