"""``llm-queue pause``, ``resume`` and ``cancel``: what people tell the line to do."""

from __future__ import annotations

import json
from typing import Any

from llm_queue.terminal.desk import Desk
from llm_queue.terminal.line import NoAnswer, Unknown
from llm_queue.terminal.paper import wrapped


async def pause(desk: Desk) -> int:
    """Start nothing more, and with ``--unload`` free the memory that models take."""
    said = await _do(desk, "/queue/pause", {"unload": desk.asked.unload})
    unloaded = " The models are unloaded as soon as nothing runs." if desk.asked.unload else ""
    paused = said.get("paused")
    if isinstance(paused, dict) and paused.get("unloaded"):
        unloaded = " All models are unloaded."
    elif isinstance(paused, dict) and isinstance(kept := paused.get("kept"), str):
        unloaded = f" Not all models are unloaded: {kept}"
    return _tell(desk, said, f"paused: what runs may finish, nothing more starts.{unloaded} llm-queue resume goes on.")


async def resume(desk: Desk) -> int:
    """Go on."""
    return _tell(desk, await _do(desk, "/queue/resume", {}), "the line goes on")


async def cancel(desk: Desk) -> int:
    """End a job, named by its id or the beginning of it; its caller is told so."""
    job = await desk.line.whole_id(desk.asked.words[0])
    await desk.line.report(job)  # so that a 404 below can only mean a service without that command
    said = await _do(desk, f"/queue/jobs/{job}/cancel", {})
    return _tell(desk, said, f"{job}: {said.get('state') or 'cancelled'}")


async def _do(desk: Desk, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return await desk.line.command(path, body)
    except Unknown as error:
        raise NoAnswer(
            "The service cannot do that yet: it is older than this command. Restart it with this llm-queue."
        ) from error


def _tell(desk: Desk, said: dict[str, Any], text: str) -> int:
    if desk.asked.json:
        desk.say(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        desk.write(*([line] for line in wrapped(text, desk.paper.width)))
    return 0
