"""A folder that nobody else may read, for files that must not outlive the service: in memory where there is room.

A service that is killed cannot take its folder with it. So each folder holds a file that is locked for as long as its
service lives, and whoever starts wipes the folders whose lock is free.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from llm_queue.upstream.embedded.weights import cache_folder

if sys.platform != "win32":
    import fcntl

PREFIX: Final = "llm-queue-prompts-"
"""How the folders' names begin."""

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the folder in it is our own
"""Where Linux has file space in memory."""

IN_MEMORY: Final = ("tmpfs", "ramfs")

MOST_OF_MEMORY: Final = 0.5
"""Share of a memory file system's free space that may be ours: other programs' sockets and buffers lie there too."""

_LOCK: Final = "lock"
_FILES: Final = re.compile(r"(new|\d+)\.prompt")
"""The names of files that are put into it. Nothing else is ever deleted."""


def new_file(number: int | None) -> str:
    """The name of a file by its number; without one, of a file that is still being written."""
    return f"{'new' if number is None else number}.prompt"


def places(environ: Mapping[str, str]) -> list[Path]:
    """Where such folders may be, best first: the user's own place in memory, the machine's, then a disk."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    in_memory = [path for path in (Path(runtime), SHARED_MEMORY) if runtime or path is SHARED_MEMORY]
    return [*(path for path in in_memory if path.is_absolute()), cache_folder()]


def place_for(size: int, candidates: Iterable[Path]) -> tuple[Path, bool]:
    """The place for ``size`` bytes, and whether it is in memory: the first in memory where that is no more than
    :data:`MOST_OF_MEMORY` of what is free, else the last one.
    """
    *in_memory, disk = candidates
    for path in in_memory:
        with suppress(OSError):
            usable = _file_system(path) in IN_MEMORY and os.access(path, os.W_OK)
            if usable and size <= shutil.disk_usage(path).free * MOST_OF_MEMORY:
                return path, True
    return disk, False


def wipe_leftovers(candidates: Iterable[Path]) -> None:
    """Wipe the folders of services that were killed, and leave those of others and of living ones."""
    for place in candidates:
        for found in place.glob(PREFIX + "*"):
            with suppress(OSError):
                if _is_ours(found):
                    _wipe_dead(found)


class PrivateFolder:
    """One folder in ``place``, which is made when it is needed. Blocking, as files are."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._path: Path | None = None
        self._lock = -1

    @property
    def path(self) -> Path:
        """Where it is. Raises :class:`FileNotFoundError` if there is none."""
        if self._path is None:
            raise FileNotFoundError(f"no folder in {self.place}")
        return self._path

    def make(self) -> bool:
        """See that it is there; True if it is a new and empty one. Raises :class:`OSError`."""
        if self._path is not None and _is_ours(self._path):
            return False
        self.wipe()
        self.place.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.place))  # 0700
        self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if sys.platform != "win32":
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = path
        return True

    def wipe(self) -> None:
        """Delete it with what was put into it. May be called again."""
        path, self._path = self._path, None
        lock, self._lock = self._lock, -1
        if sys.platform == "win32" and lock >= 0:  # there, nobody can delete a file that is open
            os.close(lock)
            lock = -1
        try:
            if path is not None and _is_ours(path):
                _wipe(path)
        finally:
            if lock >= 0:
                os.close(lock)


def _is_ours(path: Path) -> bool:
    """A folder, not a link to one, that we own and nobody else may enter."""
    try:
        found = path.lstat()
    except OSError:
        return False
    if sys.platform == "win32":
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _wipe_dead(path: Path) -> None:
    """Wipe it unless its lock is held. Raises :class:`OSError` if it is, or where something cannot be deleted."""
    if sys.platform == "win32":
        (path / _LOCK).unlink(missing_ok=True)
        _wipe(path)
        return
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        path.rmdir()  # somebody who is just making one has no lock yet: this deletes nothing but an empty folder
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _wipe(path)
    finally:
        os.close(lock)


def _wipe(path: Path) -> None:
    """Delete our files and then the folder, which stays if anything else is in it. The lock goes last."""
    for name in sorted(os.listdir(path), key=_LOCK.__eq__):
        file = path / name
        if (name == _LOCK or _FILES.fullmatch(name)) and stat.S_ISREG(file.lstat().st_mode):
            file.unlink()
    with suppress(OSError):
        path.rmdir()


def _file_system(path: Path) -> str:
    """The kind of file system that ``path`` is on."""
    real = path.resolve(strict=True)
    mounted = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    return next((mounted[above] for above in (real, *real.parents) if above in mounted), "")
