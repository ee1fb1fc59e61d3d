"""``llm-queue status``: the line on one screen, or as the service says it."""

from __future__ import annotations

import dataclasses
import json

from llm_queue.terminal.desk import Desk
from llm_queue.terminal.screen import screen


async def status(desk: Desk) -> int:
    """Show the line once. Raises :class:`~llm_queue.terminal.line.NoAnswer`."""
    if desk.asked.json:
        desk.say(json.dumps((await desk.line.get("/queue")).json(), indent=2, ensure_ascii=False))
        return 0
    queue = await desk.line.queue()
    # On a terminal too it may be longer than that is high: what is written once can be scrolled.
    desk.write(*screen(queue, desk.line.url, dataclasses.replace(desk.paper, height=None)))
    return 0
