"""What prompts took and how answers ended: told where it is known, and never guessed."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from llm_queue.core.events import AttemptEnded
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.dispatch.measured import ending_of, prompt_work, timed
from llm_queue.dispatch.moments import AttemptFinished, JobEnded, PromptComputed
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import UpstreamBroke
from llm_queue.testing import Break, Say, ScriptedUpstream
from llm_queue.wire.shapes import (
    ChatRequest,
    Completion,
    EmbedRequest,
    FinishReason,
    LoadRequest,
    Message,
    Request,
    ToolChoice,
)
from tests.harness import MODEL, OTHER, REMOTE, Harness, line

TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


class Heard(list[AttemptEnded]):
    """The ends of attempts, as the core hears of them."""

    @property
    def prompts(self) -> list[PromptWork | None]:
        return [event.prompt for event in self]

    @property
    def endings(self) -> list[Ending | None]:
        return [event.ending for event in self]


@asynccontextmanager
async def listening(upstream: ScriptedUpstream | None = None, **settings: Any) -> AsyncIterator[tuple[Harness, Heard]]:
    heard = Heard()
    async with line(upstream, **settings) as held:
        handle: Callable[..., Any] = held.dispatcher._scheduler.handle

        def listen(event: object, now: float) -> Any:
            if isinstance(event, AttemptEnded):
                heard.append(event)
            return handle(event, now)

        held.dispatcher._scheduler.handle = listen  # type: ignore[method-assign]
        yield held, heard


def chat(*said: str, system: str = "", **fields: Any) -> ChatRequest:
    begun = (Message("system", system),) if system else ()
    return ChatRequest("scripted", begun + tuple(Message("user", text) for text in said), **fields)


async def ask(held: Harness, request: Request, **fields: Any) -> Completion:
    ticket = held.dispatcher.submit(Submission(request=request, **({"model": MODEL} | fields)))
    return (await ticket.whole()).completion


@pytest.mark.parametrize("stream", [True, False])
async def test_the_core_hears_what_a_prompt_took(autojump_clock: MockClock, *, stream: bool) -> None:
    async with listening() as (held, heard):
        held.upstream.then(Say(prompt_tokens=900, cached_tokens=0, prompt_seconds=4.5))
        await ask(held, chat("hello"), stream=stream)
    assert heard.prompts == [PromptWork(900, 0, 4.5)]


@pytest.mark.parametrize(
    "told",
    [
        {"cached_tokens": None, "prompt_tokens": 9, "prompt_seconds": 1.0},
        {"cached_tokens": 0, "prompt_tokens": 0, "prompt_seconds": 1.0},
        {"cached_tokens": 0, "prompt_tokens": None, "prompt_seconds": 1.0},
        {"cached_tokens": 0, "prompt_tokens": 9, "prompt_seconds": None},
        {"cached_tokens": 10, "prompt_tokens": 9, "prompt_seconds": 1.0},
        {"cached_tokens": -1, "prompt_tokens": 9, "prompt_seconds": 1.0},
        {"cached_tokens": 0, "prompt_tokens": 9, "prompt_seconds": -1.0},
        {"cached_tokens": 0, "prompt_tokens": 9, "prompt_seconds": math.inf},
        {"cached_tokens": 0, "prompt_tokens": 9, "prompt_seconds": math.nan},
    ],
)
def test_a_prompt_of_which_not_all_is_known_is_not_counted(told: dict[str, Any]) -> None:
    assert prompt_work(Completion("stop", **told)) is None
    assert prompt_work(Completion("stop", 9, cached_tokens=9, prompt_seconds=0.0)) == PromptWork(9, 9, 0.0)


async def test_a_second_attempt_counts_no_prompt_and_ends_all_the_same(autojump_clock: MockClock) -> None:
    async with listening() as (held, heard):
        held.upstream.then(Break(), Say(cached_tokens=0, prompt_seconds=1.0))
        await ask(held, chat("hello"))
    assert heard.prompts == [None, None]
    assert heard.endings == [None, Ending.STOP]


async def test_a_failure_counts_nothing(autojump_clock: MockClock) -> None:
    async with listening(max_attempts=1) as (held, heard):
        held.upstream.then(Break(after_tokens=2))
        with pytest.raises(UpstreamBroke):
            await ask(held, chat("hello"))
    assert (heard.prompts, heard.endings) == ([None], [None])


async def test_what_no_upstream_times_is_timed_by_its_first_sign(autojump_clock: MockClock) -> None:
    async with listening() as (held, heard):
        held.upstream.default = Say("a b c", first_after=2.0, seconds_per_token=0.5, prompt_tokens=90, cached_tokens=30)
        ended: list[JobEnded] = []
        held.dispatcher.observers.add(lambda moment: ended.append(moment) if isinstance(moment, JobEnded) else None)
        forced = chat("hello", tools=(TOOL,), tool_choice=ToolChoice("required"))
        for request in (chat("hello"), forced):  # of the second a sign of life comes long before the first piece
            assert (await ask(held, request)).prompt_seconds == pytest.approx(2.5)
    assert [prompt and prompt[:2] for prompt in heard.prompts] == [(90, 30)] * 2
    assert [prompt and prompt.seconds for prompt in heard.prompts] == pytest.approx([2.5, 2.5])
    assert [(one.report.cached_tokens, one.report.prompt_s) for one in ended] == [(30, 2.5)] * 2


def test_a_time_that_the_upstream_tells_stands_and_none_is_made_up() -> None:
    told = Completion("stop", 9, prompt_seconds=0.0)
    assert timed(told, 2.0) is told
    assert timed(Completion("stop"), 2.0).prompt_seconds is None
    assert timed(Completion("stop", 9), None).prompt_seconds is None


async def test_nothing_is_told_of_models_that_run_elsewhere(autojump_clock: MockClock) -> None:
    async with line() as held:
        seen: list[object] = []
        held.dispatcher.observers.add(seen.append)
        held.upstream.then(Say(prompt_tokens=90, cached_tokens=0, first_after=1.0))
        answered = await ask(held, chat("hello"), model=REMOTE)
    assert answered.prompt_seconds is None
    assert not [moment for moment in seen if isinstance(moment, PromptComputed)]


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        (Say(), Ending.STOP),
        (Say(finish_reason="length"), Ending.LENGTH),
        (Say(finish_reason="content_filter"), Ending.STOP),
        (Say(finish_reason="other"), Ending.STOP),
        (Say(calls=("look",)), Ending.TOOLS),
        (Say(calls=("look",), finish_reason="length"), Ending.TOOLS),
        (Say(finish_reason="tool_calls"), Ending.STOP),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_ended_as_its_pieces_say(
    autojump_clock: MockClock, said: Say, ending: Ending, *, stream: bool
) -> None:
    async with listening() as (held, heard):
        held.upstream.then(said)
        await ask(held, chat("hello", tools=(TOOL,)), stream=stream)
    assert heard.endings == [ending]


async def test_a_call_that_had_to_be_made_and_vectors_have_ended_too(autojump_clock: MockClock) -> None:
    async with listening() as (held, heard):
        await ask(held, chat("hello", tools=(TOOL,), tool_choice=ToolChoice("required")))
        await ask(held, EmbedRequest("scripted", ("a",)))
        await ask(held, LoadRequest("scripted"))
        await ask(held, LoadRequest("scripted", unload=True))
    assert heard.endings == [Ending.TOOLS, Ending.STOP, None, None]
    assert heard.prompts == [None] * 4


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_a_load_is_no_answer(reason: FinishReason) -> None:
    assert ending_of(Completion(reason), called=False) is None


@pytest.mark.parametrize(
    ("tokens", "cached", "cold"),
    [(1000, 0, True), (1000, 499, True), (1000, 500, False), (32, 0, True), (31, 0, False), (70, 34, True)],
)
def test_a_prompt_is_cold_if_little_of_it_was_found(tokens: int, cached: int, *, cold: bool) -> None:
    assert PromptWork(tokens, cached, 1.0).cold is cold


async def test_a_cold_prompt_is_told_with_the_place_of_its_change(autojump_clock: MockClock) -> None:
    steps = " step" * 100
    known = [MODEL, OTHER]
    async with line(ScriptedUpstream(known=known, kept_prompts=1, seconds_per_prompt_token=0.01)) as held:
        seen: list[PromptComputed | AttemptFinished] = []
        held.dispatcher.observers.add(
            lambda moment: seen.append(moment) if isinstance(moment, PromptComputed | AttemptFinished) else None
        )
        clock = "At the beginning of this text a clock says that it is {} sharp."
        for system in (clock.format("noon"), clock.format("noon"), clock.format("five")):
            await ask(held, chat(steps, system=system), client="agent", session="s")
    assert [type(moment) for moment in seen] == [PromptComputed, AttemptFinished] * 3
    first, warm, cold = (moment for moment in seen if isinstance(moment, PromptComputed))
    assert (first.client, first.model, first.cold, first.new, first.changed_at) == (
        "agent",
        "scripted",
        True,
        True,
        None,
    )
    assert (warm.cold, warm.new, warm.changed_at) == (False, False, None)
    assert (warm.tokens, warm.cached, warm.seconds) == (first.tokens, first.tokens - 1, pytest.approx(0.01))
    assert (cold.cold, cold.new, cold.changed_at) == (True, False, (32, 64))
    assert cold.seconds == pytest.approx(0.01 * (cold.tokens - cold.cached))


async def test_the_report_and_the_log_have_what_the_prompt_took(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Say(prompt_tokens=900, cached_tokens=0, prompt_seconds=4.50049), Say())
        tickets = [held.submit("a"), held.submit("b")]
        for ticket in tickets:
            await ticket.whole()
        known, unknown = (held.dispatcher.find(ticket.job.id) for ticket in tickets)
    assert known is not None
    assert unknown is not None
    assert (known.prompt_tokens, known.cached_tokens, known.prompt_s) == (900, 0, 4.5)
    assert unknown.cached_tokens is None
    assert msgspec.to_builtins(known)["cached_tokens"] == 0
