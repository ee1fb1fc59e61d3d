"""llama.cpp in a process of our own, as an engine of the line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import ConnectionLost, LoadFailed, UpstreamUnreachable
from llm_queue.upstream.embedded.gguf import trained_context
from llm_queue.upstream.embedded.process import EngineProcess
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import Completion, Piece, Request
from llm_queue.wire.upstreams import openai_request as asking

# -P: a file beside the script must not pass for a module of the standard library.
COMMAND: Final = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))

DEATH: Final = 2.0
"""Seconds that a process may take to die after its connection is lost; milliseconds, but for much memory or a GPU."""

_PART: Final = re.compile(r"-(\d{5})-of-\d{5}$")
_PROJECTOR: Final = "mmproj"


class Embedded:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors.

    A model is a GGUF file. One process runs at a time: another model, or another context size, is another process, and
    starting it is the load. When it dies, nothing is resident any more, and the next load starts it again.
    """

    name = "llama.cpp"
    chooses_context = True

    def __init__(self, source: Path, *, command: Sequence[str] = COMMAND) -> None:
        """``source`` is a GGUF file or a folder of them. ``command`` gets a file, a name and a context size added."""
        self.url = str(source)
        self.more_models = f"--gguf takes a file or a folder; it is {source}."
        self._source = source
        self._command = command
        self._process: EngineProcess | None = None
        self._key: RunnerKey | None = None
        self._files: dict[str, Path] = {}
        self.default_model = next((_name(file) for file in _files(source)), "")

    def check(self, request: Request) -> tuple[str, ...]:
        """What llama.cpp's server has no field for."""
        return asking.check(request, asking.LLAMA_CPP)

    async def models(self) -> list[Model]:
        """The files that are there now.

        A model's identity is its file's path, size and time of change: a digest would read gigabytes at every start,
        and a file that was replaced must be loaded anew just the same.
        """
        return await trio.to_thread.run_sync(self._list)

    async def describe(self, model: Model) -> Model:
        """What the file itself says."""
        try:
            trained = await trio.to_thread.run_sync(trained_context, self._files[model.identity])
        except (OSError, KeyError):
            trained = None  # the load will say what is wrong with it
        return msgspec.structs.replace(model, trained=trained, capabilities=frozenset({"completion"}))

    async def resident(self) -> frozenset[RunnerKey]:
        """What the process serves, if there is one and it lives."""
        await trio.lowlevel.checkpoint()
        return frozenset({self._key}) if self._serving and self._key is not None else frozenset()

    async def probe(self) -> None:
        """It is always there: a process that has died is started again by the next load."""
        await trio.lowlevel.checkpoint()

    async def load(self, model: Model, num_ctx: int) -> None:
        """End the process there is and start one for this model at this size; cancelled, kill that one too."""
        await self.aclose()
        path = self._files.get(model.identity)
        try:
            if path is None:
                raise LoadFailed("its file is gone")
            self._process = await EngineProcess.start(
                [*self._command, str(path), model.name, str(num_ctx)], name=self.name
            )
        except LoadFailed as error:
            raise LoadFailed(
                f"{self.name} could not load {model.name} with num_ctx {num_ctx}: {error.message}"
            ) from error
        self._key = RunnerKey(model.identity, num_ctx)

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        """Ask the process, which serves just this model at this size.

        Raises :class:`~llm_queue.errors.UpstreamUnreachable` if it does not: then nothing was asked of anybody, and the
        line looks again at what is resident.
        """
        if self._process is None or not self._serving or self._key != RunnerKey(model.identity, num_ctx):
            raise UpstreamUnreachable(f"{self.name}'s process has ended. It is started again.")
        process = self._process
        try:
            return await process.server.run(model, num_ctx, request, emit)
        except ConnectionLost:
            # A process that dies closes its connection first, and takes new ones for a moment: a retry would be lost.
            with trio.move_on_after(DEATH):
                await process.died()
            raise

    async def aclose(self) -> None:
        """End the process."""
        process, self._process, self._key = self._process, None, None
        if process is not None:
            await process.end()

    @property
    def _serving(self) -> bool:
        return self._process is not None and self._process.alive

    def _list(self) -> list[Model]:
        models = []
        for file in _files(self._source):
            try:
                stat = file.stat()
            except OSError:
                continue  # deleted meanwhile
            identity = f"{file}:{stat.st_size}:{stat.st_mtime_ns}"
            self._files[identity] = file
            models.append(Model(name=_name(file), identity=identity, created=int(stat.st_mtime)))
        return models


def _files(source: Path) -> list[Path]:
    """The models' files: of a model in parts its first, which names the others; no projectors, which are no models."""
    if source.is_file():
        return [source.absolute()]
    found = sorted(source.absolute().glob("*.gguf"), key=lambda file: file.name.casefold())
    return [file for file in found if not file.name.startswith(_PROJECTOR) and _part(file) == 1]


def _part(file: Path) -> int:
    part = _PART.search(file.stem)
    return int(part[1]) if part else 1


def _name(file: Path) -> str:
    return _PART.sub("", file.stem)
