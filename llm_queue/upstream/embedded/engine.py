"""llama.cpp in a process of our own, as an engine of the line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    Cancelled,
    ConnectionLost,
    EngineOutOfMemory,
    EngineStuck,
    LoadFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.upstream.embedded.gguf import Header, read_header
from llm_queue.upstream.embedded.kept import KeptPrompts, Weights
from llm_queue.upstream.embedded.memory import OLD_PROMPTS, PART, Budget
from llm_queue.upstream.embedded.process import EngineProcess
from llm_queue.upstream.embedded.warm import start_warm
from llm_queue.upstream.protocol import NO_SIZES, Model
from llm_queue.wire.shapes import Completion, LoadRequest, Piece, Request, has_images
from llm_queue.wire.upstreams import openai_request as asking

# -P: a file beside the script must not pass for a module of the standard library.
COMMAND: Final = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))

DEATH: Final = 2.0
"""Seconds that a process may take to die after its connection is lost; milliseconds, but for much memory or a GPU."""

NO_LIMIT: Final = -1
"""Answers may be as long as the context allows; llama.cpp's own default."""

_ENDED: Final = "has ended"
_DID_NOT_LET_GO: Final = "did not stop working on a request that was given up, and was killed"
_TOOK_TOO_MUCH: Final = "took too much memory, and was killed"
_PROJECTOR: Final = "mmproj"
_NO_EYES: Final = "{} does not support images: the embedded engine serves text only. Ask without pictures."


class Embedded:
    """Implements :class:`~llm_queue.upstream.protocol.Upstream`; raises nothing but our own errors.

    A model is a GGUF file. One process runs at a time: another model, or another context size, is another process, and
    starting it is the load. When it dies, nothing is resident any more, and the next load starts it again. It is killed
    if it does not stop when a run is given up, and if it takes more memory than it may. Where prompts are kept, the one
    in its slot is saved before it is ended for another, and restored when its model comes back.
    """

    name = "llama.cpp"
    chooses_context = True
    more_models = "For another, put its GGUF file into a folder, and name that folder with --gguf."
    native = None
    sizes = NO_SIZES

    def __init__(
        self,
        source: Path,
        *,
        memory: int | None = None,
        answer_tokens: int = NO_LIMIT,
        old_prompts: int = OLD_PROMPTS,
        prompts: KeptPrompts | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """``source`` is a GGUF file or a folder of them; callers are told its name, not its path.

        ``memory`` is what the process may take in bytes; None: what its model needs, and a bound.
        ``answer_tokens`` limits answers to requests that have no limit of their own.
        ``old_prompts`` is the memory in bytes in which the process keeps prompts besides its last one.
        ``prompts`` keeps the prompt of a model that goes; it is closed with this.
        ``command`` gets five arguments added: a file, a name, a context size, ``answer_tokens``, and ``old_prompts`` in
        MiB; with ``prompts``, a sixth: their folder.
        """
        self.url = source.absolute().name
        self._source = source
        self._memory = memory
        self._answer_tokens = answer_tokens
        self._old_prompts = old_prompts
        self._prompts = prompts
        self._command = command
        self._weights: Weights | None = None
        self._process: EngineProcess | None = None
        self._gone = _ENDED
        self._key: RunnerKey | None = None
        self._files: dict[str, Path] = {}
        self.default_model = next((_name(file) for file in _files(source)), "")

    def check(self, request: Request) -> tuple[str, ...]:
        """What llama.cpp's server has no field for."""
        return asking.check(request, asking.LLAMA_CPP)

    def unlisted(self, name: str) -> Model | None:
        """None: only files are served."""
        return None

    async def models(self) -> list[Model]:
        """The files that are there now.

        A model's identity is its file's path, size and time of change: a digest would read gigabytes at every start,
        and a file that was replaced must be loaded anew just the same.
        """
        return await trio.to_thread.run_sync(self._list)

    async def describe(self, model: Model) -> Model:
        """What the file itself says."""
        try:
            header = await trio.to_thread.run_sync(read_header, self._files[model.identity])
        except (OSError, KeyError):
            header = Header()  # the load will say what is wrong with it
        return msgspec.structs.replace(model, trained=header.trained, capabilities=frozenset({"completion"}))

    async def count_tokens(self, model: Model, request: Request) -> int | None:
        """As the process counts them, if it serves this model."""
        process = self._process
        if process is None or not self._serving or self._key is None or self._key.model != model.identity:
            await trio.lowlevel.checkpoint()
            return None
        return await process.server.count_tokens(model, request)

    async def resident(self) -> frozenset[RunnerKey]:
        """What the process serves, if there is one and it lives."""
        await trio.lowlevel.checkpoint()
        return frozenset({self._key}) if self._serving and self._key is not None else frozenset()

    async def probe(self) -> None:
        """It is always there: a process that has died is started again by the next load."""
        await trio.lowlevel.checkpoint()

    async def load(self, model: Model, num_ctx: int) -> None:
        """End the process there is and start one for this model at this size; cancelled, kill that one too.

        Raises :class:`~llm_queue.errors.LoadFailed` with what the process said, without the path of any file.
        """
        await self._leave()
        path = self._files.get(model.identity)
        try:
            if path is None:
                raise LoadFailed("its file is gone")
            self._process = await self._start(path, model.name, num_ctx)
        except LoadFailed as error:
            raise LoadFailed(
                f"{self.name} could not load {model.name} with num_ctx {num_ctx}: {error.message}"
            ) from error
        self._key = RunnerKey(model.identity, num_ctx)
        self._gone = _ENDED

    async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
        """Ask the process, which serves just this model at this size.

        When it returns or raises, the process has stopped working on this request, or is gone: given up, it has
        :data:`~llm_queue.upstream.transport.SEEN_CLOSED_TIMEOUT` seconds to stop, and is then killed.

        Raises :class:`~llm_queue.errors.UpstreamUnreachable` if the process does not serve this: then nothing was
        asked, and the line looks again at what is resident. Raises :class:`~llm_queue.errors.EngineDied` if the request
        ended the process; its subclass :class:`~llm_queue.errors.EngineStuck` also takes the place of a cancellation.
        """
        if isinstance(request, LoadRequest) and request.unload:
            await self._leave()
            if self._prompts is not None:
                await self._prompts.settle()
            return Completion("unload", unloaded=True)
        if has_images(request):
            raise UpstreamRefused(_NO_EYES.format(model.name))
        process = self._process
        if process is None or not self._serving or self._key != RunnerKey(model.identity, num_ctx):
            raise UpstreamUnreachable(f"{self.name}'s process {self._gone}. It is started again.")
        try:
            return await process.watched(lambda: process.server.run(model, num_ctx, request, emit))
        except UpstreamRefused:
            raise
        except (ConnectionLost, UpstreamUnreachable) as error:
            # A process that dies closes its connection first, and takes new ones for a moment: a retry would be lost.
            with trio.move_on_after(DEATH, shield=True):
                await process.died()
            fault = process.fault() if not process.alive else None
            await process.end()  # noqa: ASYNC120 - a cancellation may win over the error
            if fault is not None and isinstance(error, ConnectionLost):
                self._gone = _TOOK_TOO_MUCH if isinstance(fault, EngineOutOfMemory) else _ENDED
                raise fault from error
            raise
        except BaseException as error:
            if await process.let_go():  # noqa: ASYNC102 - shielded and bounded inside
                raise
            if isinstance(error, UpstreamError):  # it had answered, and has ended or was killed since
                self._gone = _ENDED
                if (fault := process.fault()) is not None:
                    raise fault from error
                raise
            self._gone = _DID_NOT_LET_GO
            if isinstance(error, Cancelled):
                raise
            raise EngineStuck from None

    async def aclose(self) -> None:
        """End the process, and wipe the prompts that were kept."""
        await self._end()
        if self._prompts is not None:
            await self._prompts.aclose()

    async def _leave(self) -> None:
        """Keep the prompt of the process there is, and end it."""
        try:
            if self._prompts is not None and self._process is not None and self._serving and self._weights is not None:
                await self._prompts.save(self._process.server, self._weights)
        finally:
            await self._end()  # noqa: ASYNC102 - shielded and bounded inside

    async def _end(self) -> None:
        process, self._process, self._key, self._weights = self._process, None, None, None
        if process is not None:
            await process.end()

    async def _start(self, path: Path, name: str, num_ctx: int) -> EngineProcess:
        try:
            budget = await trio.to_thread.run_sync(Budget.of, path, num_ctx, self._memory, self._old_prompts)
            weights = await trio.to_thread.run_sync(Weights.of, path)
        except OSError as error:
            raise LoadFailed(f"its file cannot be read: {error.strerror}") from error
        folder = await self._prompts.folder() if self._prompts is not None else None
        numbers = (num_ctx, self._answer_tokens, self._old_prompts // 2**20)
        command = [*self._command, str(path), name, *map(str, numbers), *filter(None, [folder])]
        start = partial(EngineProcess.start, command, name=self.name, folder=str(path.parent), budget=budget)
        if self._prompts is None or folder is None:
            return await start()
        process = await start_warm(start, self._prompts, weights, num_ctx)
        self._weights = weights
        return process

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
    part = PART.search(file.stem)
    return int(part[1]) if part else 1


def _name(file: Path) -> str:
    return PART.sub("", file.stem)
