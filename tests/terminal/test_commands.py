"""The commands that ask a service once: what they say, and with which code they end."""

from __future__ import annotations

import json

import httpx
import pytest

from llm_queue.settings import load
from llm_queue.terminal.run import COMMANDS
from tests.terminal.desks import JOB, LINE, MODELS, NOBODY, FakeService, Ran

ASKING = sorted(set(COMMANDS) - {"doctor"})
SHORT = JOB["job"][:3]


@pytest.mark.parametrize("command", ASKING)
def test_without_a_service_each_says_so_and_what_to_do(command: str) -> None:
    ran = Ran(command, "job", service=FakeService(NOBODY))
    assert ran.code == 1
    assert ran.out == ""
    assert "llm-queue serve" in ran.err
    assert "--port" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", ASKING)
def test_a_program_that_is_none_of_ours_is_told_from_a_service(command: str) -> None:
    ran = Ran(command, "job", service=FakeService({"GET /ready": httpx.Response(404, text="404 page not found")}))
    assert ran.code == 1
    assert "no llm-queue" in ran.err


def test_a_service_that_asks_for_a_key_is_told_how_to_be_given_one() -> None:
    ran = Ran("status", service=FakeService({"GET /ready": httpx.Response(401, json={"error": "Send a key"})}))
    assert ran.code == 1
    assert "LLM_QUEUE_API_KEYS" in ran.err


def test_the_service_is_found_by_its_own_settings() -> None:
    settings = load({}, {"PORT": "12345,11434", "HOST": "::1", "LLM_QUEUE_API_KEYS": "me=secret-1234567890"})
    ran = Ran("status", settings=settings)
    assert str(ran.service.requests[0].url) == "http://[::1]:12345/ready"
    assert ran.service.requests[0].headers["Authorization"] == "Bearer secret-1234567890"
    assert ran.code == 0


def test_status_shows_the_line() -> None:
    ran = Ran("status")
    assert (ran.code, ran.err) == (0, "")
    assert "Claude Code" in ran.out
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_status_as_json_is_what_the_service_says() -> None:
    assert json.loads(Ran("status", json=True).out) == LINE


def test_where_the_encoding_has_no_signs_plain_ones_stand() -> None:
    ran = Ran("status", encoding="ascii")
    assert ran.out.isascii()
    assert "> q3Xk0T" in ran.out


def test_a_service_that_does_not_say_what_it_should_is_of_another_version() -> None:
    ran = Ran("status", service=FakeService({"GET /queue": {"jobs": "many"}}))
    assert ran.code == 1
    assert "different versions" in ran.err


def test_a_service_that_says_no_is_quoted() -> None:
    ran = Ran(
        "models", service=FakeService({"GET /v1/models": httpx.Response(502, json={"error": {"message": "gone"}})})
    )
    assert (ran.code, ran.err) == (1, "llm-queue: gone\n")
    ran = Ran("models", service=FakeService({"GET /v1/models": httpx.Response(502, text="<html>")}))
    assert "502" in ran.err


def test_a_service_that_hangs_is_not_waited_for_long() -> None:
    def hang(request: httpx.Request) -> httpx.Response:
        assert request.extensions["timeout"]["read"] == 10.0
        raise httpx.ReadTimeout("too long")

    ran = Ran("status", service=FakeService({"GET /queue": hang}))
    assert ran.code == 1
    assert "did not answer" in ran.err


def test_why_explains_a_job_by_the_beginning_of_its_id() -> None:
    ran = Ran("why", SHORT)
    assert ran.code == 0
    words = " ".join(ran.out.split())
    for sentence in JOB["explanation"]["sentences"]:
        assert sentence in words
    assert "at most the rest of this turn" in words
    assert "cold prompt 22 s" in ran.out
    assert json.loads(Ran("why", SHORT, json=True).out) == JOB


def test_why_cuts_nothing_off_that_a_job_took() -> None:
    took = {"prompt_tokens": 140_000, "cached_tokens": 129_000, "completion_tokens": 1_234, "wait_s": 1234.0}
    ran = Ran("why", SHORT, service=FakeService({f"GET /queue/jobs/{JOB['job']}": JOB | took}))
    assert "140000 tokens of prompt (129000 kept), 1234 of answer" in " ".join(ran.out.split())
    assert max(map(len, ran.out.splitlines())) <= 80


def test_why_says_so_where_the_service_explains_nothing() -> None:
    older = {name: value for name, value in JOB.items() if name != "explanation"} | {"error": "it broke"}
    ran = Ran("why", SHORT, service=FakeService({f"GET /queue/jobs/{JOB['job']}": older}))
    assert ran.code == 0
    assert "older than this command" in ran.out
    assert "it broke" in ran.out


def test_an_id_that_several_jobs_begin_with_is_too_short() -> None:
    jobs = [{"job": "abc1"}, {"job": "abc2"}, {"job": "b"}]
    ran = Ran("why", "ab", service=FakeService({"GET /queue": {"jobs": jobs}}))
    assert ran.code == 1
    assert "abc1, abc2" in ran.err


def test_a_job_that_is_not_there_is_said_to_be_not_there() -> None:
    for command in ("why", "cancel"):
        ran = Ran(command, "zzz")
        assert ran.code == 1
        assert "begins with zzz" in ran.err
        ran = Ran(command, "z" * 22)
        assert (ran.code, ran.err) == (1, "llm-queue: There is no such job.\n")


def test_a_whole_id_needs_no_list() -> None:
    assert "GET /queue" not in Ran("why", JOB["job"]).service.asked


def test_a_job_is_cancelled_by_the_beginning_of_its_id() -> None:
    path = f"POST /queue/jobs/{JOB['job']}/cancel"
    ran = Ran("cancel", SHORT, service=FakeService({path: {"job": JOB["job"], "state": "cancelled"}}))
    assert ran.code == 0
    assert ran.service.asked[-1] == path
    assert ran.out == f"{JOB['job']}: cancelled\n"


@pytest.mark.parametrize("unload", [True, False])
def test_a_pause_is_asked_for_and_how_to_end_it_is_said(unload: bool) -> None:
    ran = Ran("pause", unload=unload, service=FakeService({"POST /queue/pause": {"paused": {"since_s": 0.0}}}))
    assert ran.code == 0
    assert json.loads(ran.service.requests[-1].content) == {"unload": unload}
    assert "llm-queue resume" in ran.out
    assert ("unloaded" in ran.out) is unload


def test_a_line_that_was_paused_goes_on() -> None:
    said = {"paused": None}
    ran = Ran("resume", service=FakeService({"POST /queue/resume": said}), json=True)
    assert (ran.code, json.loads(ran.out)) == (0, said)
    assert "goes on" in Ran("resume", service=FakeService({"POST /queue/resume": httpx.Response(200, text="")})).out


@pytest.mark.parametrize("command", ["pause", "resume", "cancel"])
def test_a_service_that_is_too_old_for_a_command_is_said_to_be(command: str) -> None:
    ran = Ran(command, SHORT)
    assert ran.code == 1
    assert "older than this command" in ran.err


def test_models_are_listed_with_what_they_get_and_the_loaded_ones_first() -> None:
    ran = Ran("models")
    rows = ran.out.splitlines()
    assert rows[1].split() == ["qwen3-coder:30b", "32,768", "loaded", "20.0", "GiB"]
    assert rows[2].split() == ["granite4.1:8b", "8,192", "131,072"]
    assert ran.service.requests[-1].url.query == b"limit=0"
    assert json.loads(Ran("models", json=True).out) == MODELS


def test_a_line_without_models_says_how_to_get_one() -> None:
    assert "ollama pull" in Ran("models", service=FakeService({"GET /v1/models": {"data": []}})).out


@pytest.mark.parametrize(
    ("paused", "words"),
    [
        ({"since_s": 0.0, "unloaded": True}, "All models are unloaded."),
        ({"since_s": 0.0, "unloaded": False, "kept": "it decides by itself."}, "unloaded: it decides by itself."),
        (None, "as soon as nothing runs"),
    ],
)
def test_what_became_of_the_memory_is_said(paused: dict[str, object] | None, words: str) -> None:
    ran = Ran("pause", unload=True, service=FakeService({"POST /queue/pause": {"paused": paused}}))
    assert words in " ".join(ran.out.split())
