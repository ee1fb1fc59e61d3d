"""Freeing the memory: all that the upstream has loaded is unloaded, as one piece of the line's work."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from llm_queue.core.events import Outcome, UnloadEnded
from llm_queue.core.keys import RunnerKey
from llm_queue.errors import (
    AttemptTimedOut,
    QueueError,
    UpstreamBusy,
    UpstreamRefused,
    UpstreamUnreachable,
)
from llm_queue.upstream.catalog import Catalog
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import LoadRequest, Piece

UNLOAD_TIMEOUT: Final = 30.0
"""Seconds for all models together. An Ollama answers at once; an engine of ours is ended, which takes 5 s at most."""

_KEEPS: Final = "has not unloaded all of its models: it decides that by itself. Stop it to free its memory."

_log = structlog.get_logger("llm_queue")


async def unload_all(catalog: Catalog) -> UnloadEnded:
    """Unload what the upstream says that it has loaded, whoever has loaded it, one model after the other.

    Raises nothing but a cancellation: the event says how it ended.
    """
    left: set[RunnerKey] | None = None
    outcome = Outcome.TIMED_OUT
    error: QueueError | None = None
    with trio.move_on_after(UNLOAD_TIMEOUT):
        try:
            left = set(await catalog.upstream.resident())
            for key in sorted(left):
                if await _unload(catalog, key):
                    left.remove(key)
            outcome = Outcome.SUCCEEDED
            error = UpstreamRefused(f"{catalog.upstream.name} {_KEEPS}") if left else None
        except UpstreamBusy as failure:
            outcome, error = Outcome.BUSY, failure
        except UpstreamUnreachable as failure:  # what it has loaded is looked at once it is back
            outcome, error = Outcome.UNREACHABLE, failure
        except QueueError as failure:
            outcome, error = Outcome.BROKEN, failure
        except Exception:
            _log.exception("unloading failed in a way that it should not: please report this")
            outcome, error = Outcome.BROKEN, QueueError()
    if outcome is Outcome.TIMED_OUT:
        error = AttemptTimedOut(f"It was not unloaded within {UNLOAD_TIMEOUT:g} s.")
    return UnloadEnded(outcome, error, None if left is None else frozenset(left))


async def _unload(catalog: Catalog, key: RunnerKey) -> bool:
    """True if it is unloaded; False if the upstream does no such thing, or nobody can say what it is called."""
    model = _called(catalog, key)
    if model is None:
        await catalog.refresh()  # somebody has pulled it since
        model = _called(catalog, key)
    if model is None:
        return False
    request = LoadRequest(model.name, None, unload=True)
    completion = await catalog.upstream.run(model, key.num_ctx, request, _nothing)
    return completion.unloaded


def _called(catalog: Catalog, key: RunnerKey) -> Model | None:
    return next((model for model in catalog.models() if model.identity == key.model), None)


def _nothing(_piece: Piece) -> None:
    """An unload has no pieces."""
