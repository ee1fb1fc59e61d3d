"""``llm-queue models``: what can be asked for, how much context it gets, and what is loaded."""

from __future__ import annotations

import json
from typing import Final

from llm_queue.terminal.desk import Desk
from llm_queue.terminal.paper import Column, Span, count, size
from llm_queue.terminal.shapes import LoadedModel, ModelEntry

_COLUMNS: Final = (
    Column("model", 24, grow=True),
    Column("context", 9, right=True),
    Column("trained", 9, right=True),
    Column("", 6),
    Column("memory", 10, right=True),
)


async def models(desk: Desk) -> int:
    """List the models, the loaded ones first. Raises :class:`~llm_queue.terminal.line.NoAnswer`."""
    if desk.asked.json:
        desk.say(json.dumps((await desk.line.get("/v1/models")).json(), indent=2, ensure_ascii=False))
        return 0
    listed = (await desk.line.models()).data
    queue = await desk.line.queue(0)
    loaded = {one.name: one for one in queue.models or ()}
    if not listed:
        desk.write([Span("There is no model.", "warn"), " With Ollama: ollama pull granite4.1:8b"])
        return 0
    listed.sort(key=lambda one: one.id not in loaded)
    cells = [_cells(one, loaded.get(one.id)) for one in listed]
    desk.write(*desk.paper.table(_COLUMNS, cells, ["good" if one.id in loaded else "" for one in listed]))
    if queue.models is not None:
        desk.write([Span(f"{count(len(listed), 'model')}, {len(loaded)} loaded", "dim")])
    return 0


def _cells(model: ModelEntry, loaded: LoadedModel | None) -> tuple[str, ...]:
    context = loaded.num_ctx if loaded is not None and loaded.num_ctx else model.context_length
    trained = model.meta.get("n_ctx_train")
    memory = "" if loaded is None else size(loaded.vram_bytes or loaded.size_bytes)
    return model.id, _tokens(context), _tokens(trained), "loaded" if loaded is not None else "", memory


def _tokens(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else ""
