"""One engine process, from its start to its end."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import IO, Final, TypeVar

import msgspec
import psutil
import trio

from llm_queue.errors import EngineDied, EngineOutOfMemory, LoadFailed, UpstreamError
from llm_queue.upstream.embedded.memory import Budget, shown
from llm_queue.upstream.embedded.server import LlamaServer
from llm_queue.upstream.transport import SEEN_CLOSED_TIMEOUT

END_TIMEOUT: Final = 5.0
"""Seconds to wait for a killed process: it is gone in milliseconds unless the system itself hangs (a GPU's driver)."""

MEMORY_CHECK: Final = 0.1
"""Seconds between two looks at a working process's memory. A grammar that grows takes 40 MB in that time."""

MAX_LINE: Final = 10_000
"""Bytes that the line may have in which the process says where it is."""

LAST_WORDS: Final = 1500
"""Characters of its error output that are shown when it does not start: llama.cpp gives its reasons there alone."""

ENDED_FROM_OUTSIDE: Final = (-9, 1, 15)
"""Exit codes of a process that somebody killed: by SIGKILL, the one signal that it does not ignore; on Windows by
TerminateProcess, whose callers have these codes."""

T = TypeVar("T")


class _Ready(msgspec.Struct):
    url: str
    key: str


_READY: Final = msgspec.json.Decoder(_Ready)


class EngineProcess:
    """A child that serves one model at one context size. Its stdin is ours: it ends when we do, however we end."""

    def __init__(self, process: trio.Process, errors: IO[bytes], folder: str, budget: Budget) -> None:
        self._process = process
        self._errors = errors
        self._folder = folder
        self._budget = budget
        self._most_memory = 0
        self.server = LlamaServer("http://127.0.0.1:0", name="")

    @classmethod
    async def start(cls, command: Sequence[str], *, name: str, folder: str, budget: Budget) -> EngineProcess:
        """Run ``command`` and return when it can answer. Cancelled, it leaves no process behind.

        ``name`` is for messages, in which the path ``folder`` is left out. Raises
        :class:`~llm_queue.errors.LoadFailed` with what the process said when it ended instead.
        """
        # A file and no pipe: nobody has to read it all the time, and a good request writes nothing.
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            opened = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            errors.close()
            raise LoadFailed(f"{name} could not be started: {error.strerror}") from error
        except BaseException:
            errors.close()
            raise
        process = cls(opened, errors, folder, budget)
        try:
            ready = await process.watched(process._first_line)
        except BaseException:
            await process.end()  # noqa: ASYNC102 - shielded and bounded inside
            raise
        process.server = LlamaServer(ready.url, ready.key, name=name)
        return process

    @property
    def alive(self) -> bool:
        """False once it has ended, by whatever cause."""
        return self._process.returncode is None

    async def watched(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, and kill the process if it takes more memory meanwhile than its budget allows.

        The work then fails with what it makes of that; :meth:`fault` says why.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_memory)
            try:
                result = await work()
            except Exception as error:  # passed on below: out of the nursery it would come as a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return result

    async def let_go(self) -> bool:
        """After work was given up: wait until the engine has stopped working on it, and kill it if it does not stop.

        The limit is :data:`~llm_queue.upstream.transport.SEEN_CLOSED_TIMEOUT`, counted from when the work was given up.
        Not to be cancelled. False if it had to be killed; in either case nothing of the work runs any more.
        """
        left = SEEN_CLOSED_TIMEOUT - self.server.closed_after
        stopped = False
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._kill_after, max(0.0, left))
                with suppress(UpstreamError):  # it dies, or is killed
                    await self.server.idle()
                    stopped = True
                nursery.cancel_scope.cancel()
            if not stopped:
                await self.end()
        return stopped

    async def died(self) -> None:
        """Wait for it to end by itself."""
        await self._process.wait()

    def fault(self) -> EngineDied | None:
        """Once it has ended while it worked: the error if that work ended it, None if it was ended from outside."""
        if self._over_limit:
            return EngineOutOfMemory(
                f"The engine took more than {shown(self._budget.limit)} of memory for this request, and was ended. The "
                "request is not tried again. Ask for less (a simpler JSON schema, a smaller context), or raise "
                "--engine-memory."
            )
        code = self._process.returncode
        if code == -9 and self._most_memory > self._budget.needed:  # by the system, when it has no more memory
            return EngineOutOfMemory(
                f"The engine was killed when it had taken {shown(self._most_memory)} of memory for this request, which "
                "is not tried again. Ask for less (a simpler JSON schema, a smaller context)."
            )
        return None if code in ENDED_FROM_OUTSIDE else EngineDied()

    async def end(self) -> None:
        """Kill it and wait until it is gone: it has nothing to save. Not to be cancelled; may be called again."""
        with trio.CancelScope(shield=True), trio.move_on_after(END_TIMEOUT, shield=True):
            self._process.kill()
            await self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                await pipe.aclose()
            await self.server.aclose()
        self._errors.close()

    @property
    def _over_limit(self) -> bool:
        return self._most_memory > self._budget.limit

    async def _kill_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._process.kill()

    async def _watch_memory(self) -> None:
        with suppress(psutil.Error):  # it has ended
            process = psutil.Process(self._process.pid)
            while not self._over_limit:
                await trio.sleep(MEMORY_CHECK)
                self._most_memory = max(self._most_memory, process.memory_info().rss)
            self._process.kill()

    async def _first_line(self) -> _Ready:
        assert self._process.stdout is not None
        line = bytearray()
        while not line.endswith(b"\n") and len(line) < MAX_LINE:
            data = await self._process.stdout.receive_some()
            if not data:
                await self._process.wait()
                raise LoadFailed(self._last_words())
            line += data
        try:
            return _READY.decode(line)
        except (msgspec.DecodeError, ValueError):
            raise LoadFailed("the engine's process said something else than where it is") from None

    def _last_words(self) -> str:
        if self._over_limit:
            return f"it takes more than {shown(self._budget.limit)} of memory: --engine-memory allows no more"
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - 4 * LAST_WORDS))
        said = self._errors.read().decode(errors="replace").strip()
        said = without_folders(said, self._folder)[-LAST_WORDS:]
        if "libgomp" in said:
            return f"a library of the system is missing: `apt install libgomp1` brings it ({said.splitlines()[-1]})"
        return said or f"its process ended with code {self._process.returncode} and no word"


def without_folders(text: str, folder: str) -> str:
    """``text`` for callers, who may know the names of files, but not where on this machine they are.

    ``folder`` is a path that may be in it; of others, those are found that have no spaces or stand in quotes.
    """
    more = r"""(?:[^\\/\s'"]+[\\/])*"""
    quoted = r"""(?<=['"])(?:[A-Za-z]:)?[\\/][^'"\n]*[\\/]"""
    known = rf"""(?<![^\s'"(=]){re.escape(folder + os.sep)}{more}"""
    plain = rf"""(?<![\w/:.])(?:[A-Za-z]:)?[\\/]{more}(?=[^\\/\s'"])"""
    return re.sub(f"{quoted}|{known}|{plain}", "", text)
