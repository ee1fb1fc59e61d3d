"""A dispatcher in front of a scripted upstream, for tests on the autojump clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.dispatcher import Dispatcher
from llm_queue.dispatch.moments import JobEnded, Moment
from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.settings import Settings
from llm_queue.testing import ScriptedUpstream, prompt_of
from llm_queue.testing.scripted import remote_model, scripted_model
from llm_queue.upstream.protocol import Model
from llm_queue.wire.shapes import Answer, ChatRequest, Message

MODEL = scripted_model("scripted")
OTHER = scripted_model("other")
REMOTE = remote_model("large:cloud")


class Endings:
    """Counts how often each job ended."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}

    def __call__(self, moment: Moment) -> None:
        if isinstance(moment, JobEnded):
            self.count[moment.report.job] = self.count.get(moment.report.job, 0) + 1


class Harness:
    """What a test holds."""

    def __init__(self, dispatcher: Dispatcher, upstream: ScriptedUpstream, endings: Endings) -> None:
        self.dispatcher = dispatcher
        self.upstream = upstream
        self.endings = endings

    def submit(self, text: str = "hello", *, model: Model | None = MODEL, **fields: Any) -> Ticket:
        name = model.name if model is not None else "scripted"
        request = ChatRequest(model=name, messages=(Message(role="user", content=text),))
        return self.dispatcher.submit(Submission(request=request, model=model, **fields))

    async def ask(self, text: str = "hello", **fields: Any) -> Answer:
        return await answer(self.submit(text, **fields))

    def prompts(self) -> list[str]:
        """What was run, in order."""
        return [prompt_of(run.request) for run in self.upstream.runs]


async def answer(ticket: Ticket) -> Answer:
    """The whole of it, or the error."""
    return await ticket.whole()


@asynccontextmanager
async def line(upstream: ScriptedUpstream | None = None, **settings: Any) -> AsyncIterator[Harness]:
    """A running line; at the end every job must have ended once and no two requests may have overlapped."""
    upstream = upstream or ScriptedUpstream(known=[MODEL, OTHER])
    endings = Endings()
    async with trio.open_nursery() as nursery:
        dispatcher = Dispatcher(Settings(**settings), upstream, [endings])
        await nursery.start(dispatcher.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Harness(dispatcher, upstream, endings)
        assert dispatcher.live_jobs == 0
        assert set(endings.count.values()) <= {1}
        assert upstream.overlaps == []
        nursery.cancel_scope.cancel()


def lane_of(name: str) -> Lane:
    return Lane[name.upper()]
