"""One engine process, from its start to its end."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, Final

import msgspec
import trio

from llm_queue.errors import LoadFailed
from llm_queue.upstream.openai import OpenAIServer
from llm_queue.wire.upstreams.openai_request import LLAMA_CPP

END_TIMEOUT: Final = 5.0
"""Seconds to wait for a killed process: it is gone in milliseconds unless the system itself hangs (a GPU's driver)."""

MAX_LINE: Final = 10_000
"""Bytes that the line may have in which the process says where it is."""

LAST_WORDS: Final = 1500
"""Characters of its error output that are shown when it does not start: llama.cpp gives its reasons there alone."""


class _Ready(msgspec.Struct):
    url: str
    key: str


_READY: Final = msgspec.json.Decoder(_Ready)


class EngineProcess:
    """A child that serves one model at one context size. Its stdin is ours: it ends when we do, however we end."""

    def __init__(self, process: trio.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self.server = OpenAIServer("http://127.0.0.1:0")

    @classmethod
    async def start(cls, command: Sequence[str], *, name: str) -> EngineProcess:
        """Run ``command`` and return when it can answer. Cancelled, it leaves no process behind.

        Raises :class:`~llm_queue.errors.LoadFailed` with what the process said when it ended instead.
        """
        # A file and no pipe: nobody has to read it all the time, and a good request writes nothing.
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            opened = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            errors.close()
            raise LoadFailed(f"{name} could not be started: {error}") from error
        except BaseException:
            errors.close()
            raise
        process = cls(opened, errors)
        try:
            ready = await process._first_line()
        except BaseException:
            await process.end()
            raise
        process.server = OpenAIServer(
            ready.url, ready.key, name=name, unreachable="It is started again.", sampling=LLAMA_CPP
        )
        return process

    @property
    def alive(self) -> bool:
        """False once it has ended, by whatever cause."""
        return self._process.returncode is None

    async def died(self) -> None:
        """Wait for it to end by itself."""
        await self._process.wait()

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
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - 4 * LAST_WORDS))
        said = self._errors.read().decode(errors="replace").strip()[-LAST_WORDS:]
        if "libgomp" in said:
            return f"a library of the system is missing: `apt install libgomp1` brings it ({said.splitlines()[-1]})"
        return said or f"its process ended with code {self._process.returncode} and no word"
