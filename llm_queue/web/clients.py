"""Who is asking: the program behind a request, the unit of fair share.

Its headers may say so. If they do not, the program at the other end of a loopback connection is looked up: two scripts
that use the same library look alike by their headers, and would be one client to the line. The operating system knows
better. Asking it takes milliseconds and a thread, so a request waits at most :data:`PATIENCE` for the answer, and only
while other clients are here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Final

import psutil
import trio
from outcome import Outcome, Value
from werkzeug.datastructures import Headers

PATIENCE: Final = 0.03
"""Seconds that a request waits to learn who sends it: a third of what feels like at once."""

KEPT: Final = 4096
"""Connections whose program is remembered."""

HOLDS_FOR: Final = 30.0
"""Seconds after its last request in which an address still belongs to the same program: the system hands a port out
again much later than that, unless it runs out of them."""

FAMILIAR: Final = 8
"""Processes that are looked at before all others: who comes on a new connection has often been here before."""

INTERPRETERS: Final = (
    "python",
    "pypy",
    "node",
    "nodejs",
    "bun",
    "deno",
    "ruby",
    "perl",
    "php",
    "java",
    "sh",
    "bash",
    "uv",
)
"""Programs that say nothing of what they run; their script does."""

AT_ONCE: Final = 2
"""Searches under way at most: each keeps a thread busy."""

Address = tuple[str, int]
"""Host and port."""

Found = tuple[int, str] | None
"""A process id and its program's name."""

Find = Callable[[Address, int, tuple[int, ...]], Found]


class Peers:
    """Names of programs by the address they call from."""

    def __init__(self, find: Find | None = None) -> None:
        """``find`` stands in for the operating system: see :func:`find_program`."""
        self._find = find or find_program
        self._names: OrderedDict[Address, tuple[str | None, float]] = OrderedDict()
        self._familiar: OrderedDict[int, None] = OrderedDict()
        self._looking: dict[Address, trio.Event] = {}

    async def name(self, peer: Address | None, port: int, *, patience: float) -> str | None:
        """What runs at ``peer``, which is connected to our ``port``; None if that takes longer than so many seconds.

        Out of patience, or cancelled, the search goes on, so that the connection's next request has the name at once.
        """
        if peer is None or not _is_loopback(peer[0]):
            return None
        name, seen_at = self._names.get(peer, (None, -math.inf))
        if seen_at + HOLDS_FOR < trio.current_time():
            found = self._look(peer, port)
            if found is not None and patience > 0:
                with trio.move_on_after(patience):
                    await found.wait()
            name, _ = self._names.get(peer, (None, 0.0))
        if peer in self._names:
            self._names[peer] = name, trio.current_time()
        return name

    def _look(self, peer: Address, port: int) -> trio.Event | None:
        """Begin to search in a thread, or join a search that has begun."""
        if peer not in self._looking and len(self._looking) < AT_ONCE:
            self._looking[peer] = trio.Event()
            token = trio.lowlevel.current_trio_token()

            def deliver(result: Outcome[Found]) -> None:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._found, peer, result)

            trio.lowlevel.start_thread_soon(partial(self._find, peer, port, tuple(self._familiar)), deliver)
        return self._looking.get(peer)

    def _found(self, peer: Address, result: Outcome[Found]) -> None:
        found = result.value if isinstance(result, Value) else None
        self._names[peer] = (found[1] if found else None), trio.current_time()
        self._looking.pop(peer).set()
        while len(self._names) > KEPT:
            self._names.popitem(last=False)
        if found:
            self._familiar[found[0]] = None
            self._familiar.move_to_end(found[0])
            while len(self._familiar) > FAMILIAR:
                self._familiar.popitem(last=False)


def find_program(peer: Address, port: int, familiar: tuple[int, ...] = ()) -> Found:
    """The process that holds this end of a connection to our ``port``, and its program's name. May take long.

    None where the system does not tell, as for other users' processes.
    """
    for process_id in reversed(familiar):
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(process_id)
            if any(_is(connection, peer, port) for connection in process.net_connections("tcp")):
                return process_id, program_name(process)
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.pid and _is(connection, peer, port):
                return connection.pid, program_name(psutil.Process(connection.pid))
    return None


def program_name(process: psutil.Process) -> str:
    """What a person would call it: the script rather than its interpreter, with its folder."""
    words = process.cmdline()
    name = process.name()
    if not words or not name.lower().rstrip("0123456789.").removesuffix(".exe").startswith(INTERPRETERS):
        return name
    arguments = iter(words[1:])
    for word in arguments:
        if word == "-m":
            return next(arguments, name)
        if word == "-c":
            return f"{name} -c"
        if not word.startswith("-"):
            path = PurePath(word)
            return str(path) if path.is_absolute() else str(PurePath(process.cwd()) / path)
    return name


def _is(connection: object, peer: Address, port: int) -> bool:
    local, remote = getattr(connection, "laddr", None), getattr(connection, "raddr", None)
    return bool(local and remote and local.port == peer[1] and remote.port == port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- what its headers say ---

MAX_NAME: Final = 100
"""Characters of a client's name that are kept: enough for an extension's origin, bounded in logs and metrics."""

UNKNOWN: Final = "unknown"

_VERSION: Final = re.compile(r"/v?[0-9].*")


def client_of(headers: Headers, key_name: str | None) -> str:
    """The first of: its own word, its key's name, Open WebUI's user, the page or extension, the program's product.

    Never a field of the body: prompts are written by anybody.
    """
    names = (
        headers.get("X-LLM-Queue-Client"),
        key_name,
        headers.get("X-OpenWebUI-User-Id"),
        headers.get("Origin"),
    )
    return next((name for name in map(_clean, names) if name), product_of(headers))


def product_of(headers: Headers) -> str:
    """What the program calls itself: ``OpenAI/Python 1.2.3`` is OpenAI/Python, and ``curl/8.5.0`` is curl."""
    words = headers.get("User-Agent", "").split(maxsplit=1)
    return (_clean(_VERSION.sub("", words[0])) if words else "") or UNKNOWN


def _clean(name: str | None) -> str:
    return "".join(character for character in (name or "")[:MAX_NAME] if character.isprintable()).strip()
