"""The three programs: a cron job, a browser extension, and a person who clicks."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio

from llm_queue.core.jobs import Lane

LARGER: Final = 2
"""The extension asks for this many times the context size that everybody gets."""

JsonObject = dict[str, Any]

_ROLES: Final = (
    ("night nurse", "three shifts a week on a small ward"),
    ("baker", "starts at four in the morning, free bread"),
    ("welder", "ship repair, heights, own helmet"),
    ("bookkeeper", "half days, monthly closing, VAT returns"),
    ("Python developer", "an old code base and a kind team"),
    ("bus driver", "city lines, licence paid for"),
    ("biology teacher", "two classes, one laboratory"),
    ("roofer", "slate and tin, four-day week"),
    ("pharmacist", "counter and stock, Saturdays off"),
    ("translator", "patents, from home, paid by the line"),
    ("gardener", "parks department, spring to autumn"),
    ("data analyst", "hospital statistics, SQL and patience"),
)
_PLACES: Final = ("in Porto", "in Leeds", "in Graz", "in Tartu", "in Ghent")

POSTINGS: Final = tuple(f"{role.capitalize()} {place}: {duties}." for place in _PLACES for role, duties in _ROLES)
"""Sixty job postings."""

_FIELDS: Final = ("health", "crafts", "office", "technology", "teaching", "transport", "other")

_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "properties": {"field": {"type": "string", "enum": list(_FIELDS)}, "remote": {"type": "boolean"}},
    "required": ["field", "remote"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class DemoProgram:
    """Who asks, what, and how often.

    ``tasks`` of it ask one after the other and think between two questions, ``think`` seconds give or take a half.
    It begins after ``start`` seconds, and ends when it has asked ``jobs`` times, if that is said. ``larger`` says that
    it wants a context size of its own.
    """

    name: str
    questions: tuple[str, ...]
    think: float
    start: float = 0.0
    tasks: int = 1
    jobs: int | None = None
    lane: Lane = Lane.NORMAL
    larger: bool = False
    fields: JsonObject = field(default_factory=dict)

    def pause(self, draw: random.Random) -> float:
        """How long it thinks now, in seconds."""
        return self.think * draw.uniform(0.5, 1.5)

    def body(self, question: str, model: str, num_ctx: int) -> JsonObject:
        """One request; ``num_ctx`` is what everybody gets, and no ``model`` is the service's own."""
        messages = [{"role": "user", "content": question}]
        body: JsonObject = {"messages": messages, "temperature": 0, "max_tokens": 32, **self.fields}
        if model:
            body["model"] = model
        if self.larger:
            body["numCtx"] = LARGER * num_ctx
        return body


PROGRAMS: Final = (
    DemoProgram(
        "cron job",
        tuple(f"Which field is this job in, and can it be done from home? {posting}" for posting in POSTINGS),
        think=0.02,
        tasks=3,
        jobs=len(POSTINGS),
        fields={
            "response_format": {"type": "json_schema", "json_schema": {"name": "posting", "schema": _SCHEMA}},
        },
    ),
    DemoProgram(
        "extension",
        (
            "Give this page a title of three words: The tide tables for May, with notes on the harbour.",
            "Give this page a title of three words: How to prune old apple trees without harm.",
            "Give this page a title of three words: Minutes of the choir's yearly meeting.",
        ),
        think=1.5,
        start=1.0,
        larger=True,
    ),
    DemoProgram(
        "person",
        (
            "Say in five words why the sky is blue.",
            "Name a river in France.",
            "What rhymes with queue? One word.",
        ),
        think=4.0,
        start=2.0,
        lane=Lane.INTERACTIVE,
        fields={"priority": True},
    ),
)


@dataclass(frozen=True)
class Answered:
    """One answer and how it came. Times are in seconds; ``waited`` ends where its own attempt began."""

    text: str
    waited: float
    loaded: float
    ran: float
    num_ctx: int


@dataclass
class Record:
    """What became of one program's questions."""

    program: DemoProgram
    answers: list[Answered] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def play(http: httpx.AsyncClient, record: Record, model: str, num_ctx: int, over: trio.Event) -> None:
    """Run one program until it has asked all that it has to, or has its last answer after ``over``.

    An error is an answer, too. Cancelled, it leaves the line.
    """
    program = record.program
    draw = random.Random(program.name)  # noqa: S311 - how long somebody thinks, and the same every time
    questions = itertools.islice(itertools.cycle(program.questions), program.jobs)

    async def task() -> None:
        for question in questions:
            await _ask(http, record, program.body(question, model, num_ctx))
            with trio.move_on_after(program.pause(draw)):
                await over.wait()
            if over.is_set():
                return

    with trio.move_on_after(program.start):
        await over.wait()
        return
    async with trio.open_nursery() as nursery:
        for _ in range(program.tasks):
            nursery.start_soon(task)
    if program.jobs is not None:
        over.set()


async def _ask(http: httpx.AsyncClient, record: Record, body: JsonObject) -> None:
    asked = trio.current_time()
    try:
        headers = {"X-LLM-Queue-Client": record.program.name}
        response = await http.post("/v1/chat/completions", json=body, headers=headers)
        said = response.json()
        if response.is_success:
            record.answers.append(_answered(response.headers, said, trio.current_time() - asked))
            return
        error = str(said["error"]["message"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as broken:
        error = str(broken) or type(broken).__name__
    record.errors.append(error)
    await trio.sleep(1)  # nobody knocks without a pause at a door that is shut


def _answered(headers: httpx.Headers, said: JsonObject, seconds: float) -> Answered:
    loaded = int(headers.get("X-LLM-Queue-Load-Ms", 0)) / 1000
    waited = int(headers.get("X-LLM-Queue-Wait-Ms", 0)) / 1000 + loaded
    text = said["choices"][0]["message"]["content"] or ""
    num_ctx = int(headers.get("X-LLM-Queue-Num-Ctx", 0))
    return Answered(text, waited, loaded, max(0.0, seconds - waited), num_ctx)
