"""The computed prompt of each model, kept in a file while another model is loaded.

An engine's process computes a prompt and keeps it in its one slot; with the process, it is gone, and the next one
computes it anew. llama.cpp writes a slot to a file and reads it in milliseconds, whatever the context size is, but it
believes what it reads: a file that was cut ends its process, and one that was changed is answered from. So a file is
read only if it is the one that was written, by its length and hash, which are kept in memory alone; and with them ends
what the files are worth.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog
import trio

from llm_queue.errors import UpstreamError, UpstreamRefused
from llm_queue.upstream.embedded.gguf import read_header
from llm_queue.upstream.embedded.memory import parts, shown
from llm_queue.upstream.embedded.private import PrivateFolder, new_file, place_for, places, wipe_leftovers
from llm_queue.upstream.embedded.server import LlamaServer

SAVE_TIMEOUT: Final = 3.0
"""Seconds that a save may keep the line waiting. SmolLM2 takes 7 ms for 1,000 tokens (22 MB) in memory; 3.4 GB, which
are 26,000 tokens of an 8B model, take 1.2 s at that speed."""

RESTORE_TIMEOUT: Final = 3.0
"""The same for a restore, which takes half of that."""

NOT_KEPT: Final = "a prompt could not be kept"
NOT_USED: Final = "a kept prompt could not be used"
NOT_DELETED: Final = "a kept prompt could not be deleted"

_log = structlog.get_logger("llm_queue")


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights: ``files`` has size, time of change and number of each file of the model whose first is ``path``.

    Not their hash, which takes seconds.
    """

    path: Path
    files: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """What lies there now. Raises :class:`OSError`."""
        found = [part.stat() for part in parts(path)]
        return cls(path, tuple((one.st_size, one.st_mtime_ns, one.st_ino) for one in found))

    async def are_there(self) -> bool:
        """True if they lie there still."""
        try:
            return await trio.to_thread.run_sync(Weights.of, self.path) == self
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Saved:
    """What the engine wrote to the new file: computed with which weights, how many tokens, and how many bytes."""

    weights: Weights
    tokens: int
    length: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A prompt in the file ``name``: that of ``saved``, with the hash ``digest``."""

    name: str
    saved: Saved
    digest: bytes


class KeptPrompts:
    """At most one prompt per model, and ``size`` bytes in all; where more would be kept, the oldest goes first.

    No fault of the files is an error: it is logged once, and the prompt is computed anew.
    """

    def __init__(self, size: int, folder: PrivateFolder, *, in_memory: bool = False) -> None:
        """``in_memory`` is for people: that the folder is in no disk."""
        self.note = (
            f"prompts are kept as files in {folder.place}{' (memory)' if in_memory else ''}, {shown(size)} at most"
        )
        self._size = size
        self._folder = folder
        self._kept: dict[Path, Kept] = {}
        self._new: Saved | None = None
        self._numbers = itertools.count()
        self._per_token: dict[Path, float] = {}
        self._too_long: dict[Path, int] = {}
        self._said: set[str] = set()

    async def folder(self) -> str | None:
        """The folder for the engine's process, made if it is not there; None if that cannot be."""
        try:
            if await trio.to_thread.run_sync(self._folder.make):
                self._kept.clear()
                self._new = None
            return f"{self._folder.path}{os.sep}"
        except OSError as error:
            self._complain(NOT_KEPT, "there is no place for it", error=str(error))
            return None

    async def save(self, server: LlamaServer, weights: Weights) -> None:
        """Have the slot written to a file, if anything was computed and nothing is at work.

        Takes :data:`SAVE_TIMEOUT` seconds at most, and those that the connection takes to be seen closed. A prompt that
        took longer is not tried again, nor is one that is longer. What is expected to be too large is not written, and
        what is kept of that model stays: it is the beginning of the same conversation, more often than not.
        """
        model, tokens = weights.path, 0
        with trio.move_on_after(SAVE_TIMEOUT) as limit:
            try:
                tokens = await server.tokens_in_slot()
                if 0 < tokens < self._too_long.get(model, math.inf) and await self._make_room(model, tokens):
                    written = await server.save_slot(new_file(None))
                    self._new = Saved(weights, written.n_saved, written.n_written)
            except UpstreamRefused:  # its reason is on its stderr alone: no room, no permission, no folder
                self._complain(NOT_KEPT, "it cannot be written: is there room?", folder=str(self._folder.place))
            except (UpstreamError, OSError):
                self._complain(NOT_KEPT, "the engine, or its model's file, is gone")
        if limit.cancelled_caught:
            if tokens:
                self._too_long[model] = tokens
            self._complain(NOT_KEPT, "to write it takes too long", model=model.stem, tokens=tokens)

    async def find(self, weights: Weights, num_ctx: int) -> Kept | None:
        """The prompt that was kept of this model, if it fits and its file is as it was written.

        Call it, or :meth:`settle`, once the process that saved has ended.
        """
        await self.settle()
        kept = self._kept.get(weights.path)
        if kept is None or kept.saved.tokens > num_ctx:
            return None
        if kept.saved.weights == weights and await trio.to_thread.run_sync(self._is_intact, kept):
            return kept
        await self._drop(weights.path)
        return None

    async def restore(self, server: LlamaServer, kept: Kept) -> bool:
        """Have the slot read from a file. False if the process cannot be used any more.

        A refusal is none: the prompt is computed anew. In each case of failure the file is dropped.
        """
        with trio.move_on_after(RESTORE_TIMEOUT):
            try:
                await server.restore_slot(kept.name)
                return True
            except UpstreamRefused:
                await self._drop(kept.saved.weights.path)
                return True
            except UpstreamError:
                pass
        await self._drop(kept.saved.weights.path)
        self._complain(NOT_USED, "the engine failed at it, and is started again")
        return False

    async def settle(self) -> None:
        """Give what was saved last its place. Reads the file, so call it where nobody waits for it."""
        await trio.to_thread.run_sync(self._settle)

    async def aclose(self) -> None:
        """Wipe the folder. Not to be cancelled."""
        self._kept.clear()
        self._new = None
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._folder.wipe)
            except OSError as error:
                self._complain(NOT_DELETED, "its folder cannot be wiped", error=str(error))

    async def _make_room(self, model: Path, tokens: int) -> bool:
        """Drop the oldest files until a prompt of ``tokens`` tokens fits; False if it never would."""
        if model not in self._per_token:
            header = await trio.to_thread.run_sync(read_header, model)
            self._per_token[model] = header.cache_per_token  # an upper bound, until a file says more
        needed = math.ceil(tokens * self._per_token[model])
        if needed > self._size:
            self._complain(
                NOT_KEPT, "it is larger than --keep-prompts allows", model=model.stem, tokens=tokens, bytes=needed
            )
            return False
        await trio.to_thread.run_sync(self._shrink, self._size - needed, model)
        return True

    async def _drop(self, model: Path) -> None:
        await trio.to_thread.run_sync(self._delete, model)

    def _settle(self) -> None:
        new, self._new = self._new, None
        try:
            written = self._folder.path / new_file(None)
            if new is None or not self._take(written, new):
                written.unlink(missing_ok=True)
        except OSError as error:
            if new is not None:
                self._complain(NOT_KEPT, "its file is gone", error=str(error))

    def _take(self, written: Path, new: Saved) -> bool:
        """Keep the file ``written``, under a name of its own. Raises :class:`OSError`."""
        length, digest = _hash(written)
        model = new.weights.path
        if not new.tokens or length != new.length:
            return False
        self._per_token[model] = length / new.tokens
        if length > self._size:
            return False  # the next one like it is known to be
        self._delete(model)
        self._shrink(self._size - length, model)
        kept = Kept(new_file(next(self._numbers)), new, digest)
        written.replace(written.with_name(kept.name))
        self._kept[model] = kept
        return True

    def _shrink(self, size: int, model: Path) -> None:
        """Leave at most ``size`` bytes. What is kept of ``model`` goes first: it is about to be replaced."""
        for one in [model, *(one for one in self._kept if one != model)]:
            if sum(kept.saved.length for kept in self._kept.values()) <= size:
                return
            self._delete(one)

    def _delete(self, model: Path) -> None:
        kept = self._kept.pop(model, None)
        if kept is None:
            return
        try:
            (self._folder.path / kept.name).unlink(missing_ok=True)
        except OSError as error:
            self._complain(NOT_DELETED, "its file cannot be deleted", error=str(error))

    def _is_intact(self, kept: Kept) -> bool:
        try:
            intact = _hash(self._folder.path / kept.name) == (kept.saved.length, kept.digest)
        except OSError:
            intact = False
        if not intact:
            self._complain(NOT_USED, "its file is gone or was changed")
        return intact

    def _complain(self, event: str, reason: str, **fields: object) -> None:
        """Once for each reason: what is full or forbidden stays so, and each swap would say it again."""
        if reason not in self._said:
            self._said.add(reason)
            _log.warning(event, reason=reason, **fields)


async def keep_prompts(size: int | None, environ: Mapping[str, str]) -> KeptPrompts | None:
    """What keeps prompts in ``size`` bytes, or nothing without a size. What killed services left is wiped either way.

    Blocks as files do, a moment. ``environ`` names the user's place in memory.
    """

    def prepare() -> KeptPrompts | None:
        candidates = places(environ)
        wipe_leftovers(candidates)
        if size is None:
            return None
        place, in_memory = place_for(size, candidates)
        return KeptPrompts(size, PrivateFolder(place), in_memory=in_memory)

    return await trio.to_thread.run_sync(prepare)


def _hash(path: Path) -> tuple[int, bytes]:
    """Length and hash of a file that is no link. Raises :class:`OSError`."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(f"{path.name} is no file")
        return found.st_size, hashlib.file_digest(file, "sha256").digest()
