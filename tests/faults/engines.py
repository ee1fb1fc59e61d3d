"""The three upstreams in front of the faulty server, and how each is brought to what a cell asks for."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from llm_queue.upstream.embedded import Embedded, process
from llm_queue.upstream.ollama import Ollama
from llm_queue.upstream.openai import OpenAIServer
from llm_queue.upstream.protocol import Model, Upstream
from tests.faults.matrix import Engine
from tests.faults.server import Server
from tests.faults.wires import OllamaWire, OpenAIWire
from tests.upstream.stand_in import children

THRESHOLD: Final = 0.01
"""Seconds in which nothing moves before the mock clock jumps: bytes cross loopback in well under one."""

PROCESS: Final = (sys.executable, "-I", "-S", str(Path(__file__).with_name("process.py")))


class Clock:
    """A mock clock that jumps when nothing moves, but not while something outside of it is waited for."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._holders = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from jumping: a thread or another process is at work."""
        self._holders += 1
        self._clock.autojump_threshold = math.inf
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._clock.autojump_threshold = THRESHOLD


Hold = Callable[[], AbstractContextManager[None]]


class FaultyEngine(Embedded):
    """The embedded engine with a process of its own for each load, behind which the one server answers."""

    def __init__(self, folder: Path, server: Server, hold: Hold, load_faults: list[str]) -> None:
        """``load_faults`` are what the next loads meet, in order; an empty one is nothing."""
        super().__init__(folder, command=PROCESS)
        self._folder = folder
        self._server = server
        self._hold = hold
        self._load_faults = load_faults

    async def models(self) -> list[Model]:
        self._make_files()
        with self._hold():
            return await super().models()

    async def describe(self, model: Model) -> Model:
        with self._hold():
            return await super().describe(model)

    async def load(self, model: Model, num_ctx: int) -> None:
        self._server.stop()
        self._server.port = 0  # another process listens at another port
        await self._server.start()
        self._make_files()
        does = self._load_faults.pop(0) if self._load_faults else "serve"
        plan = {"does": does, "url": f"http://127.0.0.1:{self._server.port}"}
        (self._folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        with self._hold():
            await super().load(model, num_ctx)

    def _make_files(self) -> None:
        """A model is a file: there are those that the server has."""
        there = {file.stem for file in self._folder.glob("*.gguf")}
        for name in there.symmetric_difference(self._server.models):
            file = self._folder / f"{name}.gguf"
            if name in there:
                file.unlink()
            else:
                file.write_bytes(b"")


class EmbeddedProcess:
    """The one child that there is at most. Dead, it need not be waited for by anybody yet."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    @property
    def alive(self) -> bool:
        return bool(children())

    async def kill(self) -> None:
        for child in children():
            child.kill()
        with self._hold():
            while self.alive:
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def upstream_of(
    engine: Engine, server: Server, folder: Path, clock: Clock, load_faults: list[str]
) -> AsyncIterator[Upstream]:
    """The upstream, in front of ``server``, which has started."""
    url = f"http://127.0.0.1:{server.port}"
    upstream: Upstream
    match engine:
        case Engine.OLLAMA:
            upstream = Ollama(url, connect=server.connect)
        case Engine.OPENAI:
            upstream = OpenAIServer(url, connect=server.connect)
        case Engine.EMBEDDED:
            server.process = EmbeddedProcess(clock.held)
            upstream = FaultyEngine(folder, server, clock.held, load_faults)
    try:
        yield upstream
    finally:
        await upstream.aclose()


def wire_of(engine: Engine) -> OllamaWire | OpenAIWire:
    return OllamaWire() if engine is Engine.OLLAMA else OpenAIWire()


def hold_for_processes(clock: Clock, patch: pytest.MonkeyPatch) -> None:
    """Keep the clock from jumping while a process is ended, and leave its memory alone: looks at that
    would be the only thing that moves for 90 s.
    """
    patch.setattr(process, "MEMORY_CHECK", 3600.0)
    patch.setattr(process.EngineProcess, "end", _held(process.EngineProcess.end, clock))


def _held(method: Callable[[Any], Awaitable[None]], clock: Clock) -> Callable[[Any], Awaitable[None]]:
    @wraps(method)
    async def wait(engine: Any) -> None:
        with clock.held():
            await method(engine)

    return wait
