"""A request that failed a moment ago is not tried as often as a new one."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from llm_queue.dispatch.repeats import REMEMBERED, REMEMBERED_FOR, Repeats
from llm_queue.dispatch.tickets import Submission
from llm_queue.errors import UpstreamBroke, UpstreamRefused, UpstreamUnreachable
from llm_queue.testing import Break, Hang, Refuse, Say
from llm_queue.web.headers import job_headers
from llm_queue.wire.shapes import ChatRequest, Message
from tests.harness import REMOTE, line


def submission(text: str, client: str = "sdk") -> Submission:
    return Submission(request=ChatRequest("m", (Message("user", text),)), model=None, client=client)


async def test_the_same_request_after_its_attempts_were_used_up_gets_one_attempt(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Break(after=1.0)
        with pytest.raises(UpstreamBroke) as first:
            await held.ask("again", client="sdk")
        assert "once only" not in str(first.value)
        await trio.sleep(5)
        for _ in range(3):
            with pytest.raises(UpstreamBroke, match="tried once only, because the same request failed") as repeated:
                await held.ask("again", client="sdk")
            assert repeated.value.code == first.value.code
        assert len(held.upstream.runs) == 2 + 3


async def test_a_request_that_goes_beside_the_line_gets_one_attempt_then_as_well(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Break(after=1.0)
        with pytest.raises(UpstreamBroke):
            await held.ask("again", client="sdk", model=REMOTE)
        with pytest.raises(UpstreamBroke, match="tried once only"):
            await held.ask("again", client="sdk", model=REMOTE)
        assert len(held.upstream.runs) == 2 + 1


async def test_the_answer_of_a_request_that_gets_one_attempt_says_so(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(), Break())
        first = held.submit("again")
        with pytest.raises(UpstreamBroke):
            await first.whole()
        again = held.submit("again")
        await again.whole()
        assert "X-LLM-Queue-Max-Attempts" not in job_headers(first.job)
        assert job_headers(again.job)["X-LLM-Queue-Max-Attempts"] == "1"


async def test_where_every_request_gets_one_attempt_none_is_told_that_it_got_fewer(autojump_clock: MockClock) -> None:
    async with line(max_attempts=1) as held:
        held.upstream.default = Break(text="it died")
        for _ in range(2):
            with pytest.raises(UpstreamBroke, match=r"^it died$"):
                await held.ask("again")


async def test_a_stream_that_broke_after_its_first_piece_is_not_remembered(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Break(after_tokens=1), Break())
        with pytest.raises(UpstreamBroke):
            await held.ask("a", stream=True)
        again = held.submit("a")
        await again.whole()
        assert again.job.attempts == 2


async def test_an_outage_that_ended_a_job_after_its_first_attempt_is_not_remembered(autojump_clock: MockClock) -> None:
    async with line(outage_wait=5.0) as held:
        held.upstream.default = Say(first_after=2.0)
        ticket = held.submit("a")
        await trio.sleep(2)
        held.upstream.down = True
        with pytest.raises(UpstreamUnreachable):
            await ticket.whole()
        assert ticket.job.attempts == 1
        held.upstream.down = False
        await held.dispatcher.watch.ready()
        held.upstream.then(Break())
        again = held.submit("a")
        await again.whole()
        assert again.job.attempts == 2


async def test_a_time_out_counts_as_well(autojump_clock: MockClock) -> None:
    async with line(attempt_timeout=10) as held:
        held.upstream.default = Hang()
        for _ in range(2):
            with pytest.raises(Exception, match="attempt-timeout"):
                await held.ask("slow", client="sdk")
        assert len(held.upstream.runs) == 2 + 1


async def test_another_client_another_text_and_a_later_time_are_new(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Break()
        for text, client, pause in (
            ("a", "sdk", 0.0),
            ("a", "other", 0.0),
            ("b", "sdk", REMEMBERED_FOR + 1),
            ("a", "sdk", 0),
        ):
            with pytest.raises(UpstreamBroke):
                await held.ask(text, client=client)
            await trio.sleep(pause)
        assert len(held.upstream.runs) == 4 * 2


async def test_a_refusal_of_the_upstream_is_not_remembered(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then(Refuse(), Break(), Break())
        with pytest.raises(UpstreamRefused):
            await held.ask("a", client="sdk")
        with pytest.raises(UpstreamBroke):
            await held.ask("a", client="sdk")
        assert len(held.upstream.runs) == 3


def test_what_is_remembered_is_bounded_and_cannot_be_read_back() -> None:
    repeats = Repeats()
    for number in range(REMEMBERED + 10):
        repeats.note(submission(f"secret {number}"), float(number) / 1000)
    assert len(repeats._failed) == REMEMBERED
    assert "secret" not in repr(repeats._failed)
    assert repeats.failed_ago(submission("secret 0"), 1.0) is None
    assert repeats.failed_ago(submission(f"secret {REMEMBERED}"), 1.0) == pytest.approx(1.0 - REMEMBERED / 1000)
    assert repeats.failed_ago(submission(f"secret {REMEMBERED}"), 100.0) is None
