"""The demo in pieces: what the programs ask, what is shown of the line, and what is said at the end."""

from __future__ import annotations

import importlib.util
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from llm_queue import __main__, cli
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.counts import Counts
from llm_queue.core.jobs import Lane
from llm_queue.core.seat import Seat
from llm_queue.demo import run
from llm_queue.demo.endpoint import NoService, service
from llm_queue.demo.programs import POSTINGS, PROGRAMS, Answered, DemoProgram, Record, play
from llm_queue.demo.summary import Costs, costs, summary, without_the_line
from llm_queue.demo.view import Plain, drawn, on_terminal, plain, why
from llm_queue.dispatch.status import JobStatus, Status, line_status
from llm_queue.settings import Settings
from llm_queue.testing import ScriptedUpstream
from llm_queue.testing.fake_ollama.behaviour import Play, read_directives

CRON, EXTENSION, PERSON = PROGRAMS


def job(client: str, place: int, *, lane: str = "normal", state: str = "queued", resident: bool = True) -> JobStatus:
    return JobStatus(
        job=f"{client} {place}",
        id=f"{client} {place}",
        client=client,
        lane=lane,
        model="small",
        num_ctx=8192,
        resident=resident,
        state=state,
        place=place,
        starts_in_s=None,
        wait_s=1.25,
        waited_s=1.25,
    )


def status(*jobs: JobStatus, held_for: str | None = None, **counts: Any) -> Status:
    seat = Seat(ContextSizes(8192, 8192), now=0.0)
    empty = line_status(
        ScriptedUpstream(), seat, Counts(), away=None, waiting={}, jobs=jobs, rejected={}, unknown_lanes=0
    )
    waiting = {"interactive": 0, "normal": sum(one.place > 0 for one in jobs), "background": 0}
    return msgspec.structs.replace(empty, waiting=waiting, held=held_for is not None, held_for=held_for, **counts)


def record(program: DemoProgram, *waits: float, ran: float = 0.5, loaded: float = 0.0, num_ctx: int = 16384) -> Record:
    return Record(program, [Answered("fine", waited, loaded, ran, num_ctx) for waited in waits])


# --- the programs ---


def test_there_are_sixty_postings_and_no_two_are_the_same() -> None:
    assert len(set(POSTINGS)) == 60
    assert all(len(posting) < 100 for posting in POSTINGS)


def test_no_question_steers_the_fake() -> None:
    for program in PROGRAMS:
        for question in program.questions:
            assert read_directives(question) == Play()


def test_each_program_asks_in_its_own_way() -> None:
    cron, extension, person = (program.body("What?", "small", 8192) for program in PROGRAMS)
    assert cron["response_format"]["type"] == "json_schema"
    assert (extension["numCtx"], person["priority"]) == (16384, True)
    assert "numCtx" not in cron
    assert "priority" not in cron
    assert cron["model"] == "small"
    assert "model" not in CRON.body("What?", "", 8192)


class Asked:
    """A service that answers after two seconds, of which one was spent waiting and a half loading."""

    def __init__(self, broken: int = 0) -> None:
        self.requests: list[httpx.Request] = []
        self.in_flight = self.most_in_flight = 0
        self.broken = broken

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        await trio.sleep(2.0)
        self.in_flight -= 1
        if self.broken:
            self.broken -= 1
            return httpx.Response(502, json={"error": {"message": "it broke"}})
        headers = {"X-LLM-Queue-Wait-Ms": "1000", "X-LLM-Queue-Load-Ms": "500", "X-LLM-Queue-Num-Ctx": "8192"}
        return httpx.Response(200, json={"choices": [{"message": {"content": "fine"}}]}, headers=headers)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(self))


async def test_the_cron_job_asks_sixty_times_and_never_more_than_three_at_once(autojump_clock: MockClock) -> None:
    asked, done, over = Asked(), Record(CRON), trio.Event()
    async with asked.client() as http:
        await play(http, done, "small", 8192, over)
    assert len(asked.requests) == len(done.answers) == 60
    assert asked.most_in_flight == 3
    assert over.is_set()
    assert {request.headers["X-LLM-Queue-Client"] for request in asked.requests} == {"cron job"}
    assert len({request.content for request in asked.requests}) == 60


async def test_an_answer_is_kept_with_what_its_wait_its_load_and_its_run_took(autojump_clock: MockClock) -> None:
    done = Record(replace(PERSON, jobs=1))
    async with Asked().client() as http:
        await play(http, done, "small", 8192, trio.Event())
    [answer] = done.answers
    assert (answer.text, answer.waited, answer.loaded, answer.num_ctx) == ("fine", 1.5, 0.5, 8192)
    assert answer.ran == pytest.approx(0.5)


async def test_who_would_ask_for_ever_ends_with_the_answer_that_is_on_its_way(autojump_clock: MockClock) -> None:
    done, over = Record(EXTENSION), trio.Event()
    async with Asked().client() as http, trio.open_nursery() as nursery:
        nursery.start_soon(play, http, done, "small", 8192, over)
        started = trio.current_time()
        await trio.sleep(EXTENSION.start + 1.0)
        over.set()
    assert len(done.answers) == 1
    assert trio.current_time() == pytest.approx(started + EXTENSION.start + 2.0)


async def test_nobody_asks_any_more_who_had_not_begun_when_it_was_over(autojump_clock: MockClock) -> None:
    asked, over = Asked(), trio.Event()
    over.set()
    async with asked.client() as http:
        await play(http, Record(PERSON), "small", 8192, over)
    assert asked.requests == []


async def test_an_error_is_counted_and_the_program_goes_on(autojump_clock: MockClock) -> None:
    done = Record(CRON)
    async with Asked(broken=2).client() as http:
        await play(http, done, "small", 8192, trio.Event())
    assert done.errors == ["it broke", "it broke"]
    assert len(done.answers) == 58


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"choices": []}'])
async def test_an_answer_of_another_shape_is_an_error_and_no_crash(body: bytes, autojump_clock: MockClock) -> None:
    done = Record(replace(PERSON, jobs=1))
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    async with httpx.AsyncClient(base_url="http://test", transport=transport) as http:
        await play(http, done, "small", 8192, trio.Event())
    assert (len(done.answers), len(done.errors)) == (0, 1)


# --- the line, shown ---


@pytest.mark.parametrize(
    ("shown", "held_for", "reason"),
    [
        (job("a", 0, state="running"), None, "runs"),
        (job("a", 0, state="loading", resident=False), None, "its model loads"),
        (job("a", 1), None, "its turn"),
        (job("a", 2), None, "its model is loaded"),
        (job("a", 1, resident=False), None, "needs a load, when its turn comes"),
        (job("a", 1, lane="interactive"), None, "in a hurry"),
        (job("a", 1, lane="interactive", resident=False), None, "in a hurry, needs a load"),
        (job("a", 3, lane="background"), None, "has time"),
        (job("a", 1, resident=False), "cron job", "held for cron job, who is about to ask again"),
    ],
)
def test_it_says_why_a_job_stands_where_it_stands(shown: JobStatus, held_for: str | None, reason: str) -> None:
    assert why(shown, status(held_for=held_for)) == reason


def test_the_plain_line_says_who_runs_and_who_waits_in_order() -> None:
    line = status(job("person", 0, lane="interactive", state="running"), job("cron job", 1), job("extension", 2))
    expected = "person (runs); waiting: cron job (its turn), extension (its model is loaded)"
    assert plain(line) == expected
    assert plain(status()) == "nobody runs; waiting: nobody"


def test_a_long_line_is_cut_and_counted() -> None:
    assert plain(status(*(job("cron job", place) for place in range(1, 31)))).endswith(
        "(its model is loaded) and 20 more"
    )


def test_without_a_terminal_a_line_comes_when_something_changed_and_once_a_second_at_most() -> None:
    written: list[str] = []
    view = Plain(written.append)
    running = status(job("a", 0, state="running"))
    for seconds, seen in [(0.0, status()), (0.2, running), (1.0, running), (1.2, status()), (3.0, running)]:
        view(seconds, seen, [])
    assert [line.split(" s  ")[0].strip() for line in written] == ["0.0", "1.0"]


def console(file: io.StringIO | None = None) -> Console:
    return Console(file=file or io.StringIO(), record=True, width=110, height=30, force_terminal=True)


def test_the_drawn_line_has_a_row_for_each_job_and_one_for_each_program() -> None:
    screen = console()
    cron = Record(CRON, [Answered('{"field":\n "crafts"}', 0.1, 0, 0.5, 8192)])
    line = status(
        job("[bold]cron", 0, state="running"), job("person", 1, lane="interactive"), loads=2, reloads_avoided=7
    )
    screen.print(drawn(3.2, line, [cron, Record(PERSON)]))
    text = screen.export_text()
    assert "The line after 3 s" in text
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "▶ [bold]cron normal small 8192 1.2 s runs" in rows
    assert "1 person interactive small 8192 1.2 s in a hurry" in rows
    assert 'cron job 1 of 60 {"field": "crafts"}' in rows
    assert "person 0 answers" in rows
    assert "loads 2 loads avoided 7 Ctrl-C ends it" in rows


def test_the_terminal_is_as_before_however_the_drawing_ends() -> None:
    file = io.StringIO()

    def draw_until_interrupted() -> None:
        with on_terminal(console(file)) as view:
            view(1.0, status(job("a", 0, state="running")), [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_until_interrupted()
    written = file.getvalue()
    assert "\x1b[?25l" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


# --- the end ---


def test_a_load_costs_what_was_seen_here_else_what_the_service_has_seen_else_a_guess() -> None:
    seen = [record(CRON, 1.0, loaded=2.0), record(PERSON, 1.0)]
    assert costs(seen, status(loads=4, load_seconds=40.0)) == Costs(2.0, True, True)
    unseen = [record(CRON, 1.0)]
    assert costs(unseen, status(loads=4, load_seconds=40.0)) == Costs(10.0, True, True)
    assert costs(unseen, status()) == Costs(3.0, False, True)
    assert costs([record(CRON, 1.0, num_ctx=0)], status()).sizes is False


def test_without_the_line_every_change_of_size_is_a_load() -> None:
    programs = [record(CRON, *[0.1] * 60), record(EXTENSION, *[0.1] * 5), record(PERSON, *[0.1] * 5)]
    result = without_the_line(programs, Costs(2.0, True, sizes=True), 60.0)
    assert result.loads > 10
    assert result.answers < 60
    assert result.served[Lane.INTERACTIVE, "person"].longest_wait > 2.0
    assert without_the_line(programs, Costs(2.0, True, sizes=False), 60.0).loads == 1


def test_the_simulation_draws_from_the_measured_run_times() -> None:
    [result] = [without_the_line([record(PERSON, 0.1, ran=1.5)], Costs(2.0, True, sizes=True), 30.0)]
    served = result.served[Lane.INTERACTIVE, "person"]
    assert served.run_seconds == pytest.approx(1.5 * len(served.waits))
    assert served.waits[0] == 2.0


def test_the_summary_has_what_was_measured_and_says_what_was_simulated() -> None:
    programs = [record(CRON, 1.0, 2.0, 6.0, loaded=2.0), record(EXTENSION, 3.0), record(PERSON)]
    programs[2].errors += ["no", "the door is shut"]
    before, after = status(loads=5, reloads_avoided=10), status(loads=7, reloads_avoided=40)
    text = summary(programs, before, after, 30.0)
    measured, simulated = text.split("(simulated, not measured)")
    rows = [" ".join(row.split()) for row in measured.splitlines()]
    assert "30 seconds through the line:" in rows
    assert "cron job 3 2.0 s 6.0 s" in rows
    assert "extension 1 3.0 s 3.0 s" in rows
    assert "person 0 0.0 s 0.0 s" in rows
    assert "2 loads, 30 avoided" in rows
    assert "person: 2 errors, the last: the door is shut" in rows
    assert "a load of 2.0 s (as measured here)" in simulated
    assert "extension" in simulated


def test_a_guess_is_called_one_and_an_engine_of_one_size_is_told_apart() -> None:
    text = summary([record(CRON, 1.0, num_ctx=0)], status(), status(), 30.0)
    assert "a guess" in text
    assert "This engine has one context size" in text


def test_where_nothing_was_answered_nothing_is_compared() -> None:
    assert "nothing to compare" in summary([Record(CRON)], status(), status(), 30.0)


def test_pauses_are_those_of_the_program() -> None:
    draw = random.Random(1)
    assert all(2.0 <= PERSON.pause(draw) <= 6.0 for _ in range(100))


# --- the service ---


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[httpx.Request]]:
    """What stands at the address of the service."""

    def answer_with(handler: Callable[[httpx.Request], httpx.Response]) -> list[httpx.Request]:
        requests: list[httpx.Request] = []
        usual = httpx.AsyncClient

        def handle(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return handler(request)

        def client(**fields: Any) -> httpx.AsyncClient:
            return usual(transport=httpx.MockTransport(handle), **fields)

        monkeypatch.setattr(httpx, "AsyncClient", client)
        return requests

    return answer_with


async def test_the_service_that_runs_is_used(answering: Any, autojump_clock: MockClock) -> None:
    said: list[str] = []
    replies = iter([{"ready": False, "reason": "not yet"}] * 3 + [{"ready": True}] * 2)
    requests = answering(lambda request: httpx.Response(200, json=next(replies)))
    settings = Settings(port=(4711,), api_keys=("cron=secret==",))
    async with service(settings, {}, said.append) as http:
        assert str(http.base_url) == "http://127.0.0.1:4711"
    assert said == ["using the service at http://127.0.0.1:4711"]
    assert {request.headers["Authorization"] for request in requests} == {"Bearer secret=="}


async def test_a_service_that_does_not_get_ready_is_given_up(answering: Any, autojump_clock: MockClock) -> None:
    answering(lambda request: httpx.Response(503, json={"ready": False, "reason": "Ollama is away"}))
    with pytest.raises(NoService, match="Ollama is away"):
        async with service(Settings(), {}, lambda line: None):
            pass


async def test_a_service_that_asks_for_a_key_is_not_taken_for_a_stranger(answering: Any) -> None:
    answering(lambda request: httpx.Response(401, json={"error": {"message": "Who are you?"}}))
    with pytest.raises(NoService, match="LLM_QUEUE_API_KEYS"):
        async with service(Settings(), {}, lambda line: None):
            pass


def test_without_rich_it_says_how_to_get_it_and_shows_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = Terminal()
    with run._view(out) as view:
        view(0.0, status(job("person", 0, state="running")), [])
    assert out.getvalue().splitlines() == [run.NO_RICH, "  0.0 s  person (runs); waiting: nobody"]


def test_ctrl_c_outside_of_it_has_no_traceback_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    assert __main__.main() == 130
    monkeypatch.setattr(trio, "run", interrupted)
    assert run.demo(Settings(), 1.0, {}) == 130


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(CRON.fields))["response_format"]["json_schema"]["name"] == "posting"
