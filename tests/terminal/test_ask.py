"""A question in the terminal: the answer is all that standard output has, and the wait is drawn beside it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from llm_queue import running
from llm_queue.settings import Settings
from llm_queue.terminal.ask import Answer, Wait, ask
from llm_queue.terminal.desk import Asked, Desk
from llm_queue.terminal.line import Line
from llm_queue.terminal.paper import Paper
from llm_queue.terminal.shapes import JobView
from tests.terminal.desks import FakeService, Ran, Stream

CHAT = "POST /v1/chat/completions"


def events(*values: Any, done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(value)}" for value in values] + (["data: [DONE]"] if done else [])
    return httpx.Response(200, text=": queued, 3 ahead\n\n" + "".join(f"{line}\n\n" for line in lines))


def piece(text: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": delta | ({"content": text} if text is not None else {}), "finish_reason": finish}]}


BLUE = events(piece(role="assistant"), piece("Bl"), piece("ue."), piece(finish="stop"), {"choices": [], "usage": {}})


def asked(*words: str, answer: Any = BLUE, **more: Any) -> Ran:
    return Ran("ask", *words, service=FakeService({CHAT: answer}), **more)


def test_the_answer_is_all_of_the_output() -> None:
    ran = asked("Why", "is the sky blue?")
    assert (ran.code, ran.out, ran.err) == (0, "Blue.\n", "")
    request = ran.service.requests[-1]
    body = json.loads(request.content)
    assert body == {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "stream": True}
    assert request.headers["X-LLM-Queue-Lane"] == "interactive"


def test_the_lane_and_the_model_can_be_said() -> None:
    ran = asked("?", lane="background", settings=Settings(model="small"))
    request = ran.service.requests[-1]
    assert request.headers["X-LLM-Queue-Lane"] == "background"
    assert json.loads(request.content)["model"] == "small"


def test_what_is_piped_in_comes_before_the_question() -> None:
    ran = asked("What is this?", stdin="a letter\n")
    assert json.loads(ran.service.requests[-1].content)["messages"][0]["content"] == "a letter\n\nWhat is this?"
    ran = asked(stdin="Why?\n")
    assert json.loads(ran.service.requests[-1].content)["messages"][0]["content"] == "Why?"


def test_no_question_is_code_2() -> None:
    ran = asked()
    assert ran.code == 2
    assert "llm-queue ask 'Why" in ran.err
    assert CHAT not in ran.service.asked


def test_thoughts_are_no_answer() -> None:
    assert asked("?", answer=events(piece(reasoning="hm"), piece("Yes\n", "stop"))).out == "Yes\n"


def test_an_answer_that_was_cut_off_says_so_beside_it() -> None:
    ran = asked("?", answer=events(piece("To be", "length")))
    assert (ran.code, ran.out) == (0, "To be\n")
    assert "cut off" in ran.err


@pytest.mark.parametrize(
    ("answer", "out", "said"),
    [
        (events(piece("Bl"), done=False), "Bl\n", "broke off"),
        (events(piece("Bl"), {"error": {"message": "the engine died"}}, done=False), "Bl\n", "the engine died"),
        (events({"error": {}}, done=False), "", "broke off"),
        (httpx.Response(200, text="data: <html>\n\n"), "", "no answer"),
        (httpx.Response(200, text="data: 7\n\n"), "", "no answer"),
        (httpx.Response(429, json={"error": {"message": "The line is full."}}), "", "The line is full."),
        (httpx.Response(500, text="oops"), "", "500"),
    ],
)
def test_no_whole_answer_is_code_1(answer: httpx.Response, out: str, said: str) -> None:
    ran = asked("?", answer=answer)
    assert (ran.code, ran.out) == (1, out)
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_connection_that_is_lost_is_code_1() -> None:
    def lose(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert "connection to the service was lost" in asked("?", answer=lose).err
    assert "llm-queue serve" in asked("?", answer=refuse).err


def test_a_model_cannot_make_a_terminal_do_anything_but_a_file_gets_all() -> None:
    answer = events(piece("a\x1b[2Jb\tc\n", "stop"))
    service = FakeService({CHAT: answer})
    assert Ran("ask", "?", service=service, terminal=True).out == "a?[2Jb\tc\n"
    assert asked("?", answer=answer).out == "a\x1b[2Jb\tc\n"


def test_an_encoding_that_cannot_say_it_gets_a_question_mark() -> None:
    assert asked("?", answer=events(piece("né", "stop")), encoding="ascii").out == "n?\n"


# --- the wait ---


class SlowService:
    """Has us wait ten seconds, load one, and then answer; and says so of the line."""

    def __init__(self) -> None:
        self.request_id = ""
        self.began = 0.0
        self.others = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        passed = trio.current_time() - self.began
        match request.url.path:
            case "/queue":
                mine = {"job": "mine", "lane": "interactive", "model": "small", "place": 3, "starts_in_s": 10 - passed}
                if passed > 10:
                    mine |= {"place": 0, "state": "loading"}
                other = {"job": "other", "lane": "interactive", "place": 1}
                return httpx.Response(200, json={"jobs": [other, {"job": "older", "wait_s": 99.0}, mine]})
            case "/queue/jobs/mine":
                return httpx.Response(200, json={"request_id": self.request_id})
            case "/queue/jobs/other":
                self.others += 1
                return httpx.Response(200, json={"request_id": "another"})
            case "/queue/jobs/older":
                raise AssertionError("it waits for longer than we do")
            case _:
                self.request_id, self.began = request.headers["X-Request-Id"], trio.current_time()
                return httpx.Response(200, stream=Slow())


class Slow(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        await trio.sleep(11)
        yield f"data: {json.dumps(piece(reasoning='hm'))}\n\n".encode()
        await trio.sleep(1)
        yield f"data: {json.dumps(piece('Blue.', 'stop'))}\n\n".encode()


async def ask_slowly(*, terminal: bool, environ: dict[str, str] | None = None) -> tuple[Stream, Stream, int]:
    out, err = Stream(), Stream(terminal=terminal)
    service = SlowService()
    async with running.client("http://test", Settings(), httpx.MockTransport(service)) as http:
        desk = Desk(Line(http), Settings(), Asked(("?",)), environ or {}, out, err)
        code = await ask(desk)
    assert service.others <= 1, "a job that is another's is looked at once"
    return out, err, code


async def test_the_wait_is_drawn_beside_the_answer_and_is_gone_when_that_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    out, err, code = await ask_slowly(terminal=True, environ={"NO_COLOR": "1"})
    assert (out.text, code) == ("Blue.\n", 0)
    drawn = err.text.split("\r\x1b[2K")
    assert "asked, 0.3 s" in drawn[1]
    waiting = [text for text in drawn if "2 before you" in text]
    assert "about 9.0 s to go" in " ".join(waiting)
    bars = [text.count("█") for text in waiting if "to go" in text]
    assert bars == sorted(bars)
    assert bars[0] < 3 < 17 < bars[-1], "the bar fills"
    assert "any moment" in waiting[-1]
    assert any("small loads" in text for text in drawn)
    assert any("it thinks" in text for text in drawn)
    assert drawn[-1] == "", "nothing of it is left"


@pytest.mark.parametrize(("terminal", "environ"), [(False, {}), (True, {"TERM": "dumb"})])
async def test_nothing_is_drawn_where_nobody_could_see_it(
    terminal: bool, environ: dict[str, str], autojump_clock: trio.testing.MockClock
) -> None:
    out, err, _ = await ask_slowly(terminal=terminal, environ=environ)
    assert (out.text, err.text) == ("Blue.\n", "")


async def test_a_line_that_does_not_say_how_it_stands_spoils_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(SlowService):
        async def __call__(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/queue":
                return httpx.Response(500)
            return await super().__call__(request)

    out, err = Stream(), Stream(terminal=True)
    async with running.client("http://test", Settings(), httpx.MockTransport(Silent())) as http:
        assert await ask(Desk(Line(http), Settings(), Asked(("?",)), {}, out, err)) == 0
    assert out.text == "Blue.\n"


async def test_a_question_that_is_given_up_leaves_a_clean_terminal(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(5):
        err = Stream(terminal=True)
        async with running.client("http://test", Settings(), httpx.MockTransport(SlowService())) as http:
            await ask(Desk(Line(http), Settings(), Asked(("?",)), {}, Stream(), err))
    assert err.text.endswith("\r\x1b[2K")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (None, "asked, 2.0 s"),
        (JobView(place=0, state="running", model="small"), "small reads, 2.0 s"),
        (JobView(place=1), "you are next, 2.0 s"),
        (JobView(place=2, starts_in_s=0.0), "1 before you, any moment"),
    ],
)
def test_the_wait_says_what_is_known(job: JobView | None, said: str) -> None:
    desk = Desk(Line(httpx.AsyncClient(base_url="http://test")), Settings(), out=Stream(), err=Stream())
    paper = Paper()
    wait = Wait(desk)
    wait.job = job
    assert said in paper.line(wait.row(2.0, "|", paper))


def test_an_answer_that_ends_its_line_gets_no_other() -> None:
    out = Stream()
    answer = Answer(Desk(Line(httpx.AsyncClient(base_url="http://test")), Settings(), out=out, err=Stream()))
    answer.write({"delta": {"content": "a\n"}})
    answer.end()
    assert out.text == "a\n"
