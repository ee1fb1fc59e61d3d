"""The start of an engine's process with the prompt that was kept of its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from llm_queue.errors import LoadFailed
from llm_queue.upstream.embedded.kept import Kept, KeptPrompts, Weights
from llm_queue.upstream.embedded.process import EngineProcess


async def start_warm(
    start: Callable[[], Awaitable[EngineProcess]], prompts: KeptPrompts, weights: Weights, num_ctx: int
) -> EngineProcess:
    """``start`` a process, and restore its slot from what was kept of ``weights``, if that is as it was written.

    A process that does not survive that is started again without. Cancelled, it leaves no process behind. Raises what
    ``start`` does.
    """
    process: EngineProcess | None = None
    kept: Kept | None = None
    failure: LoadFailed | None = None

    async def find() -> None:
        nonlocal kept
        kept = await prompts.find(weights, num_ctx)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(find)  # meanwhile: to read a large file through takes as long as to load a model
            try:
                process = await start()
            except LoadFailed as error:  # passed on below: out of the nursery it would come as a group
                failure = error
        if process is None:
            assert failure is not None
            raise failure
        if kept is None or not await weights.are_there():
            return process
        to_restore, server = kept, process.server
        if await process.watched(lambda: prompts.restore(server, to_restore)):
            return process
        await process.end()
        return await start()
    except BaseException:
        if process is not None:
            await process.end()  # noqa: ASYNC102 - shielded and bounded inside
        raise
