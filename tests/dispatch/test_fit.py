"""Contexts that fit: what a prompt raises, what is refused, and what is tried again with a larger context."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest
import structlog
from trio.testing import MockClock

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.keys import RunnerKey
from llm_queue.dispatch.fit import ROOM, ContextFit, Fit
from llm_queue.dispatch.lengths import SURE_AFTER
from llm_queue.dispatch.observe import JobLog
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import PromptTooLong
from llm_queue.testing import Break, Refuse, ScriptedUpstream
from llm_queue.testing.scripted import scripted_model
from llm_queue.upstream.protocol import Model
from llm_queue.wire.prompts import PromptSize
from llm_queue.wire.shapes import ChatRequest, Completion, EmbedRequest, Message, Piece, Request, TextRequest
from tests.harness import MODEL, OTHER, line


def chat(size: int, **fields: object) -> ChatRequest:
    return ChatRequest("scripted", (Message("user", "x" * size),), **fields)  # type: ignore[arg-type]


def made(*, raises: bool = True, floor: int = 8192) -> ContextFit:
    return ContextFit(ContextSizes(floor, 65536), raises=raises)


def fit(
    request: Request, model: Model | None = MODEL, *, num_ctx: int | None = None, by: ContextFit | None = None
) -> Fit:
    return (by or made()).fit(Submission(request=request, model=model, num_ctx=num_ctx))


@pytest.mark.parametrize(
    ("request_", "num_ctx", "wanted"),
    [
        (chat(100), None, Fit(8192)),
        (chat(100, max_tokens=32000), None, Fit(8192)),
        (chat(21_000), None, Fit(8192)),
        (chat(22_000), None, Fit(16384, raised=True)),
        (chat(39_000), None, Fit(16384, raised=True)),
        (chat(75_000), None, Fit(32768, raised=True)),
        (chat(75_000, max_tokens=32000), None, Fit(32768, raised=True)),
        (chat(24_000, max_tokens=1), None, Fit(8192)),
        (chat(24_000, max_tokens=200), None, Fit(16384, raised=True)),
        (chat(39_000), 32768, Fit(32768)),
        (chat(39_000), 12_000, Fit(16384, raised=True)),
        (chat(900_000), None, Fit(65536, raised=True)),
        (chat(900_000, truncate=True), None, Fit(8192)),
        (TextRequest("scripted", "x" * 39_000), None, Fit(16384, raised=True)),
        (TextRequest("scripted", "", context=(1,) * 9_000), None, Fit(16384, raised=True)),
        (EmbedRequest("scripted", ("x" * 900_000,)), None, Fit(8192)),
    ],
)
def test_a_context_is_raised_for_a_prompt_that_would_not_fit_with_its_answer(
    request_: Request, num_ctx: int | None, wanted: Fit
) -> None:
    assert fit(request_, num_ctx=num_ctx) == wanted


def test_a_context_is_not_raised_above_what_the_model_was_trained_for() -> None:
    assert fit(chat(75_000), scripted_model("a", trained=16384)) == Fit(16384, raised=True)
    assert fit(chat(75_000), scripted_model("a", trained=8192)) == Fit(8192)


def test_the_size_of_a_prompt_is_not_looked_at_twice() -> None:
    known = Submission(request=chat(1), model=MODEL, prompt_size=PromptSize(39_000, 1))
    assert made().fit(known) == Fit(16384, raised=True)


def test_a_model_that_is_not_known_yet_has_the_context_that_any_model_would_have() -> None:
    assert fit(chat(75_000), None) == Fit(32768, raised=True)


def test_a_context_that_the_model_has_already_is_no_raise() -> None:
    contexts = ContextSizes(8192, 65536)
    contexts.loaded(RunnerKey(MODEL.identity, 32768), ())
    assert fit(chat(75_000), by=ContextFit(contexts, raises=True)) == Fit(8192)


def test_a_context_is_not_raised_to_what_could_not_be_loaded() -> None:
    contexts = ContextSizes(8192, 65536)
    contexts.loaded(RunnerKey(MODEL.identity, 16384), ())
    contexts.failed(RunnerKey(MODEL.identity, 32768))
    assert fit(chat(75_000), by=ContextFit(contexts, raises=True)) == Fit(8192)  # the one that it has


def test_switched_off_every_job_has_what_it_asks_for() -> None:
    assert fit(chat(2_000_000), num_ctx=9000, by=made(raises=False)) == Fit(9000)


def test_what_surely_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(PromptTooLong, match="65536") as refused:
        fit(chat(1_100_000))
    assert refused.value.maximum == 65536
    assert refused.value.tokens > 65536
    with pytest.raises(PromptTooLong):
        fit(chat(140_000), scripted_model("a", trained=8192))


def test_what_a_model_has_counted_makes_it_surer() -> None:
    by, small = made(), scripted_model("a", trained=8192)
    assert fit(chat(75_000), small, by=by) == Fit(8192)
    for _ in range(SURE_AFTER):
        by.learn(small, Submission(request=chat(20_000), model=small), 5_000)
    with pytest.raises(PromptTooLong) as refused:
        fit(chat(75_000), small, by=by)
    assert refused.value.tokens > 8192


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (chat(30_000), None),
        (chat(30_000), 0),
        (EmbedRequest("m", ("x" * 30_000,)), 30_000),
        (ChatRequest("m", (Message("assistant", "x" * 30_000, thinking="hm"),)), 30_000),
    ],
)
def test_what_was_not_counted_as_it_was_sent_teaches_nothing(request_: Request, tokens: int | None) -> None:
    by = made()
    by.learn(MODEL, Submission(request=request_, model=MODEL), tokens)
    assert by.estimate(MODEL, chat(30_000)) == made().estimate(MODEL, chat(30_000))
    assert by.estimate(None, chat(30_000)) == 10_000 + 8


@pytest.mark.parametrize(
    ("request_", "num_ctx", "tokens", "larger"),
    [
        (chat(20_000), 8192, 9_000, 16384),
        (chat(20_000), 8192, 16_300, 32768),
        (chat(20_000), 8192, 65_000, 65536),
        (chat(20_000), 8192, 65_536, None),
        (chat(20_000), 65536, 70_000, None),
        (chat(20_000), 8192, 0, 16384),  # an upstream that does not say how many
        (chat(60_000), 8192, 0, 32768),
        (chat(900_000), 8192, 0, 65536),
        (chat(900_000), 65536, 0, None),
        (chat(20_000, truncate=True), 8192, 9_000, None),
        (EmbedRequest("m", ("x" * 30_000,)), 8192, 9_000, None),
    ],
)
def test_the_context_for_what_was_refused_is_larger_and_holds_what_the_upstream_has_counted(
    request_: Request, num_ctx: int, tokens: int, larger: int | None
) -> None:
    refusal = PromptTooLong(tokens=tokens, maximum=num_ctx)
    assert made().again(MODEL, request_, num_ctx, refusal) == larger


@pytest.mark.parametrize(
    ("contexts", "refusal", "says"),
    [
        (ContextSizes(8192, 65536), PromptTooLong("own", tokens=9_000, maximum=8192), "larger one, up to 65536"),
        (
            ContextSizes(8192, 65536),
            PromptTooLong("own", tokens=65_536, maximum=65536),
            "65536 is the most here",
        ),
        (ContextSizes(8192, 65536), PromptTooLong("own"), "^own$"),
        (ContextSizes(0, 0), PromptTooLong("own", tokens=9_000, maximum=8192), "^own$"),
    ],
)
def test_a_refusal_says_what_its_caller_can_do(contexts: ContextSizes, refusal: PromptTooLong, says: str) -> None:
    explained = ContextFit(contexts, raises=False).explained(scripted_model("a", trained=None), refusal)
    assert re.search(says, explained.message)
    assert (explained.tokens, explained.maximum) == (refusal.tokens, refusal.maximum)


def test_a_refusal_names_the_largest_context_that_there_could_have_been() -> None:
    refusal = PromptTooLong("own", tokens=70_000, maximum=8192)
    assert made().explained(MODEL, refusal).maximum == 65536


# --- the whole line ---


async def test_a_long_prompt_raises_its_models_context_and_the_log_says_so_once(autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with line(num_ctx=2048) as held:
            held.dispatcher.observers.add(JobLog("Scripted", ""))
            held.upstream.bytes_per_token = 4.0
            short, *long = [held.submit("x" * size) for size in (100, 39_000, 39_000)]
            for ticket in (short, *long):
                await ticket.whole()
            assert [load.key.num_ctx for load in held.upstream.loads] == [2048, 16384]
            assert [ticket.job.fitted_ctx for ticket in (short, *long)] == [None, 16384, 16384]
            await held.ask("x" * 39_000)
    raised = [one for one in logs if one["event"] == "a prompt needs a larger context"]
    assert [(one["model"], one["num_ctx"]) for one in raised] == [("scripted", 16384)]


async def test_what_surely_does_not_fit_never_becomes_a_job(autojump_clock: MockClock) -> None:
    async with line() as held:
        with pytest.raises(PromptTooLong):
            held.submit("x" * 2_000_000)
        assert held.upstream.requests == []


async def test_a_prompt_that_was_underestimated_runs_again_with_room_for_what_was_counted(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        held.upstream.bytes_per_token = 1.0
        ticket = held.submit("x" * 12_000)
        assert (await ticket.whole()).completion.prompt_tokens == 12_000
        assert [run.key.num_ctx for run in held.upstream.runs] == [8192, 16384]
        assert (ticket.job.attempts, ticket.job.fitted_ctx) == (1, 16384)
        assert held.dispatcher.models.estimate_tokens(chat(12_000), MODEL) > 12_000


async def test_a_prompt_that_fits_into_no_context_is_refused_by_the_upstreams_own_count(
    autojump_clock: MockClock,
) -> None:
    small = scripted_model("small", trained=4096)
    upstream = ScriptedUpstream(known=[small], bytes_per_token=1.0)
    async with line(upstream, num_ctx=2048) as held:
        ticket = held.submit("x" * 5_000, model=small)
        with pytest.raises(PromptTooLong) as refused:
            await ticket.whole()
        assert (refused.value.tokens, refused.value.maximum) == (5_000, 4096)
        assert [run.key.num_ctx for run in upstream.runs] == [4096]
        assert held.dispatcher.models.estimate_tokens(chat(5_000), small) > 5_000  # it was counted, after all


async def test_a_raise_that_cannot_be_loaded_leaves_it_to_the_upstream_to_count(autojump_clock: MockClock) -> None:
    async with line(num_ctx=2048) as held:
        held.upstream.bytes_per_token = 4.0
        await held.ask()
        held.upstream.then_load(Refuse(text="no memory"))
        fits, does_not = held.submit("x" * 7_000), held.submit("x" * 39_000)
        await fits.whole()
        with pytest.raises(PromptTooLong) as refused:
            await does_not.whole()
        assert (refused.value.tokens, refused.value.maximum) == (9_750, 2048)
        assert [load.key.num_ctx for load in held.upstream.loads] == [2048, 4096, 2048]
        await held.ask("x" * 7_000)


async def test_without_fitting_a_refusal_is_the_end(autojump_clock: MockClock) -> None:
    async with line(fit_context=False) as held:
        held.upstream.bytes_per_token = 1.0
        with pytest.raises(PromptTooLong):
            await held.ask("x" * 12_000)
        assert len(held.upstream.runs) == 1


async def test_a_prompt_that_was_probably_cut_teaches_nothing(autojump_clock: MockClock) -> None:
    class Cutting(ScriptedUpstream):
        async def run(self, model: Model, num_ctx: int, request: Request, emit: Callable[[Piece], None]) -> Completion:
            return msgspec.structs.replace(await super().run(model, num_ctx, request, emit), truncated=self.cuts)

        cuts = True

    upstream = Cutting(known=[MODEL], bytes_per_token=1.0)
    async with line(upstream, fit_context=False) as held:
        await held.ask("x" * 6_000)
        assert held.dispatcher.models.estimate_tokens(chat(6_000), MODEL) == 2_008
        upstream.cuts = False
        await held.ask("x" * 6_000)
        assert held.dispatcher.models.estimate_tokens(chat(6_000), MODEL) > 6_000


async def test_an_upstream_without_a_context_to_choose_raises_none(autojump_clock: MockClock) -> None:
    upstream = ScriptedUpstream(known=[MODEL, OTHER], chooses_context=False)
    async with line(upstream) as held:
        ticket = held.submit("x" * 2_000_000)
        await ticket.whole()
        assert (ticket.job.wanted_ctx, ticket.job.fitted_ctx) == (0, None)


async def test_a_prompt_of_an_outage_is_fitted_when_its_model_is_known(autojump_clock: MockClock) -> None:
    small = scripted_model("scripted", trained=16384)
    upstream = ScriptedUpstream(known=[small])
    async with line(upstream) as held:
        ticket = held.submit("x" * 75_000, model=None)
        await ticket.whole()
        assert [load.key.num_ctx for load in upstream.loads] == [16384]
        assert ticket.job.fitted_ctx == 16384


async def test_a_failed_attempt_of_a_fitted_job_is_tried_again_at_its_size(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break())
        ticket = held.submit("x" * 39_000)
        await ticket.whole()
        assert [run.key.num_ctx for run in held.upstream.runs] == [16384, 16384]
        assert ticket.job.attempts == 2


def test_the_room_for_an_answer_is_bounded_from_both_sides() -> None:
    at_limit = chat((8192 - 8 - ROOM) * 3)
    assert fit(at_limit) == Fit(8192)
    assert fit(chat((8192 - 8 - ROOM) * 3 + 3)) == Fit(16384, raised=True)
