"""Several jobs of one request: one after the other in the line, and one answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from llm_queue.dispatch.fingerprints import fingerprint
from llm_queue.dispatch.tickets import Submission, Ticket
from llm_queue.errors import LineFull, QueueError, UpstreamBroke
from llm_queue.settings import Settings
from llm_queue.web.app import create_quart
from llm_queue.web.series import in_turn
from llm_queue.wire.shapes import Answer, Completion, Delta, TextRequest
from tests.web.conftest import Caller, FakeLine


def answers(*words: str | QueueError) -> Callable[[Ticket], None]:
    """A line that answers each job at once with the next of these words, or fails it."""
    left = list(words)

    def script(ticket: Ticket) -> None:
        said = left.pop(0)
        if isinstance(said, QueueError):
            ticket.settle(said)
        elif ticket.submission.stream:
            ticket.put(Delta(said))
            ticket.settle(Completion("stop", 2, 1))
        else:
            ticket.settle(Answer(Delta(said), Completion("stop", 2, 1)))

    return script


async def ask(line: FakeLine, **fields: Any) -> tuple[int, str, Any]:
    body = msgspec.json.encode({"model": "small", "prompt": ["a", "b", "c"]} | fields)
    response: Any = await create_quart(Settings(), line).test_client().post("/v1/completions", data=body)
    return response.status_code, (await response.get_data()).decode(), response.headers


async def test_each_text_is_a_job_of_its_own_and_all_answers_are_one(line: FakeLine) -> None:
    line.script = answers("x", "y", "z")
    status, body, headers = await ask(line, priority="background", seed=3)
    assert status == 200
    choices = msgspec.json.decode(body)["choices"]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, "x"), (1, "y"), (2, "z")]
    assert msgspec.json.decode(body)["usage"]["total_tokens"] == 9
    requests = [ticket.submission.request for ticket in line.tickets]
    assert [request.prompt for request in requests if isinstance(request, TextRequest)] == ["a", "b", "c"]
    assert {request.model for request in requests} == {"small"}
    assert {ticket.job.lane.label for ticket in line.tickets} == {"background"}
    assert headers["X-LLM-Queue-Job"] == "job_2"


async def test_each_text_has_a_fingerprint_of_its_own(line: FakeLine) -> None:
    line.script = answers("x", "y")
    texts = ["the first text of them", "the second text of them"]
    await ask(line, prompt=texts)
    first, second = (ticket.submission.fingerprint for ticket in line.tickets)
    assert first == fingerprint(TextRequest("small", texts[0]))
    assert second == fingerprint(TextRequest("small", texts[1]))
    assert first != second


async def test_the_answers_are_streamed_one_after_the_other(line: FakeLine) -> None:
    line.script = answers("x", "y", "z")
    _, body, _ = await ask(line, stream=True)
    events = [msgspec.json.decode(event[6:]) for event in body.split("\n\n") if event.startswith("data: {")]
    said = [(event["choices"][0]["index"], event["choices"][0]["text"]) for event in events]
    assert said == [(0, "x"), (0, ""), (1, "y"), (1, ""), (2, "z"), (2, "")]
    assert body.endswith("data: [DONE]\n\n")


async def test_a_job_goes_into_the_line_when_the_one_before_has_ended(
    line: FakeLine, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(ask, line)
    await line.submitted.wait()
    for number in range(3):
        await trio.testing.wait_all_tasks_blocked()
        assert len(line.tickets) == number + 1
        line.tickets[number].settle(Answer(Delta("x"), Completion("stop")))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_job_that_fails_ends_the_series(line: FakeLine, stream: bool) -> None:
    line.script = answers("x", UpstreamBroke("It broke."), "z")
    status, body, _ = await ask(line, stream=stream)
    assert (status, "It broke." in body, "[DONE]" in body) == (200 if stream else 502, True, False)
    assert ('"text":"x"' in body) is stream
    assert len(line.tickets) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_job_that_the_line_does_not_take_ends_the_series(line: FakeLine, stream: bool) -> None:
    def script(ticket: Ticket) -> None:
        answers("x")(ticket)
        line.error = LineFull("Full.", retry_after=3)

    line.script = script
    status, body, _ = await ask(line, stream=stream)
    assert (status, "Full." in body, "[DONE]" in body) == (200 if stream else 429, True, False)
    assert ('"text":"x"' in body) is stream


async def test_a_prompt_that_was_cut_is_told_of_whichever_it_was(line: FakeLine) -> None:
    def script(ticket: Ticket) -> None:
        cut = ticket.submission.request == TextRequest("small", "b")
        ticket.settle(Answer(Delta("x"), Completion("stop", truncated=cut)))

    line.script = script
    _, _, headers = await ask(line)
    assert headers["X-LLM-Queue-Truncated"] == "maybe"


async def test_who_leaves_ends_the_job_that_is_at_work_and_there_is_none_after_it(
    line: FakeLine, serving: Callable[[], AbstractAsyncContextManager[Caller]], clock: trio.testing.MockClock
) -> None:
    second = trio.Event()

    def script(ticket: Ticket) -> None:
        if len(line.tickets) == 1:
            answers("x")(ticket)
        else:
            second.set()

    line.script = script
    body = b'{"model":"small","prompt":["a","b","c"]}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving() as caller:
        stream = await caller.connect(head + body)
        await second.wait()
        await stream.aclose()
        await line.gone.wait()
        await trio.sleep(1)
    assert (line.left, line.leaving, len(line.tickets)) == (["job_1"], ["cancelled"], 2)


async def test_cancelled_between_two_of_them_it_loses_no_answer(
    line: FakeLine, autojump_clock: trio.testing.MockClock
) -> None:
    submission = Submission(request=TextRequest("small", "a"), model=None)
    ticket = in_turn(line.submit, submission, [TextRequest("small", "b"), TextRequest("small", "c")])
    for number, word in enumerate("xyz"):
        with trio.move_on_after(1) as patience:
            await ticket.whole()
        assert patience.cancelled_caught
        line.tickets[number].settle(Answer(Delta(word), Completion("stop")))
    answer = await ticket.whole()
    assert [one.message.content for one in (*answer.earlier, answer)] == ["x", "y", "z"]
