"""Run a command where nobody else can be reached: ``python -m tests.clients.alone COMMAND…``.

The command gets a network namespace of its own with nothing in it but the loopback interface, so a client that would
like to tell its vendor something cannot. Linux only; elsewhere, and where a namespace is not allowed, the command runs
as it is, with a word about it, and the tests that need one are skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence

WAYS = (["unshare", "--net", "--"], ["unshare", "--map-root-user", "--net", "--"])
INSIDE = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def is_alone() -> bool:
    """True if the loopback interface is the only one."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def main(argv: Sequence[str]) -> None:
    """Become the command."""
    if shutil.which("unshare") and shutil.which("ip"):
        for way in WAYS:
            if subprocess.run([*way, *INSIDE, "true"], capture_output=True, check=False).returncode == 0:
                os.execvp(way[0], [*way, *INSIDE, *argv])
    print("no network namespace can be made here: the agents and the browser are left out", flush=True)
    os.execvp(argv[0], list(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
