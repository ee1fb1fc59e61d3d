"""The embedded engine with a stand-in for its process, and how tests ask it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import trio

from llm_queue.upstream.embedded import Embedded
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import ChatRequest, Completion, Delta, Message, Piece

STAND_IN = (sys.executable, "-P", str(Path(__file__).with_name("engine_child.py")))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


async def model(engine: Embedded, name: str = "Alpha") -> Model:
    return next(model for model in await engine.models() if model.name == name)


async def say(engine: Embedded, model: Model, text: str = "hello", num_ctx: int = 8192) -> tuple[str, Completion]:
    pieces: list[Piece] = []
    completion = await engine.run(model, num_ctx, ChatRequest("x", (Message("user", text),)), pieces.append)
    return "".join(piece.content for piece in pieces if isinstance(piece, Delta)), completion


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()
