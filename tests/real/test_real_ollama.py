"""What the fakes claim, on a real Ollama. Answers are short: what is tested is the line and not the model."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from llm_queue.dispatch.attempts import SURPRISE_LOAD
from tests.e2e.conftest import Service, until
from tests.real.ollama import FIRST, SECOND, OwnOllama, RealOllama
from tests.real.tap import Tap

EXACT: dict[str, Any] = {"temperature": 0, "seed": 7}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
LONG = " ".join(str(number) for number in range(1, 300))
UNICODE = "\u65e5\u672c\u8a9e \U0001f600 \u00e9"
"""Characters of one to four bytes, some of which are several tokens."""


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def streamed(answer: httpx.Response) -> list[dict[str, Any]]:
    *events, last = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert last == "[DONE]"
    return [json.loads(event) for event in events]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def error_of(answer: httpx.Response) -> str:
    text: str = answer.json()["error"]["message"]
    return text


def exactly(text: str) -> dict[str, Any]:
    """A format that leaves the model nothing else to say."""
    return {"type": "json_schema", "json_schema": {"name": "text", "schema": {"type": "string", "enum": [text]}}}


def long_prompt(words: int) -> str:
    return " ".join(f"{time.monotonic_ns() % 997 + number}" for number in range(words))


# --- one model, and what it costs to change it ---


def test_two_programs_at_two_context_sizes_cause_one_raise_and_no_further_load(
    ollama: RealOllama, tap: Tap, service: Service
) -> None:
    said(service.chat("hello", max_tokens=3, numCtx=2048))
    jobs = [service.chat_later(f"hello {number}", max_tokens=3, numCtx=2048 * (1 + number % 2)) for number in range(12)]
    assert [job.result().status_code for job in jobs] == [200] * 12
    assert [load.num_ctx for load in tap.loads] == [2048, 4096]
    assert ollama.resident() == {FIRST: 4096}
    line = service.line()
    assert (line["loads"], line["loads_failed"], line["surprise_loads"]) == (2, 0, 0)
    asked = [work.num_ctx for work in tap.work]
    assert asked == sorted(asked)


def test_what_was_found_of_a_prompt_is_told_and_the_rest_is_timed(service: Service) -> None:
    def ask(prompt: str) -> dict[str, Any]:
        answer = service.chat(prompt, max_tokens=1)
        assert answer.status_code == 200, answer.text
        report: dict[str, Any] = service.http.get(f"/queue/jobs/{answer.headers['X-LLM-Queue-Job']}").json()
        details = answer.json()["usage"]["prompt_tokens_details"]
        assert details == {"cached_tokens": report["cached_tokens"]}
        return report

    begun = long_prompt(200)
    cold, warm, other = ask(begun), ask(begun + " Go on."), ask("Else. " + begun)
    assert cold["cached_tokens"] < cold["prompt_tokens"] / 4
    assert cold["prompt_tokens"] / 2 < warm["cached_tokens"] < warm["prompt_tokens"]
    assert other["cached_tokens"] < other["prompt_tokens"] / 4
    assert 0 < warm["prompt_s"] < cold["prompt_s"]


def in_closed_loops(service: Service, models: list[str], seconds: float) -> list[int]:
    """How many answers each program got: one program per model, each asking as soon as it has its answer."""

    def program(number: int, model: str) -> int:
        answers = 0
        while time.monotonic() < over:
            prompt = f"Posting {answers}: a bakery looks for somebody who gets up early. Answer briefly."
            said(service.chat(prompt, {"X-LLM-Queue-Client": f"program {number}"}, model=model, max_tokens=20, **EXACT))
            answers += time.monotonic() < over
        return answers

    for model in reversed(models):
        said(service.chat("hello", model=model, max_tokens=1))
    over = time.monotonic() + seconds
    with ThreadPoolExecutor() as programs:
        return list(programs.map(program, range(len(models)), models))


def test_two_programs_on_two_models_do_not_thrash(service: Service) -> None:
    """A bound for sanity, far above the 0.2 without the line; ``nox -s bench-real`` measures."""
    (alone,) = in_closed_loops(service, [FIRST], 12.0)
    both = in_closed_loops(service, [FIRST, SECOND], 36.0)
    print(f"alone {alone / 12:.2f}/s, both {sum(both) / 36:.2f}/s, each {both}, {service.line()['loads']} loads")
    assert min(both) > 0
    assert sum(both) / 36 >= 0.4 * alone / 12


def test_a_loaded_model_is_adopted_at_a_restart(
    ollama: RealOllama, tap: Tap, start_service: Callable[..., Service]
) -> None:
    first = start_service()
    said(first.chat("hello", max_tokens=1, numCtx=4096))
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    loads = len(tap.loads)
    second = start_service()
    assert second.chat("hello", max_tokens=1).headers["x-llm-queue-num-ctx"] == "4096"
    assert len(tap.loads) == loads
    assert ollama.resident() == {FIRST: 4096}
    assert second.line()["surprise_loads"] == 0


@pytest.mark.parametrize("bypass", ["evicts it", "loads another size of it", "loads another model"])
def test_a_program_that_bypasses_the_line_is_noticed(
    bypass: str, ollama: RealOllama, tap: Tap, service: Service
) -> None:
    said(service.chat("hello", max_tokens=1))
    if bypass == "evicts it":
        ollama.unload()
    elif bypass == "loads another size of it":
        ollama.chat("", FIRST, num_ctx=1024)
    else:
        ollama.chat("", SECOND)
    for _ in range(2):
        said(service.chat("hello", max_tokens=1))
    assert ollama.resident()[FIRST] == 2048
    first, second = (work.load_seconds for work in tap.work[1:])
    assert second < 0.1 < first
    assert service.line()["surprise_loads"] == (first >= SURPRISE_LOAD)  # what is quicker is not worth a word
    assert service.line()["loads"] == 1


# --- the text, as it is ---


@pytest.mark.parametrize("prompt", ["Tell me a story.", f"Say {UNICODE} twice.", "  1\n\n2 \t", "def add(a, b):"])
def test_the_text_is_the_one_that_ollama_gives_directly(prompt: str, ollama: RealOllama, service: Service) -> None:
    """Each way twice: a prompt that is in the engine's cache is computed in another order than a new one."""
    options = EXACT | {"num_predict": 15}
    for _ in range(2):
        through = service.chat(prompt, max_tokens=15, **EXACT)
    for _ in range(2):
        direct = ollama.chat(prompt, options=options).json()
    assert said(through) == direct["message"]["content"]
    body = through.json()
    assert body["choices"][0]["finish_reason"] == direct["done_reason"]
    counts = {"prompt_tokens": direct["prompt_eval_count"], "completion_tokens": direct["eval_count"]}
    assert {name: body["usage"][name] for name in counts} == counts


def test_a_json_object_is_json(service: Service) -> None:
    answer = service.chat("hi", max_tokens=40, response_format={"type": "json_object"}, **EXACT)
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    assert isinstance(json.loads(said(answer)), dict)


def test_a_json_schema_is_obeyed(service: Service) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["baker", "nurse"]}, "hours": {"type": "integer", "enum": [20, 40]}},
        "required": ["kind", "hours"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "posting", "schema": schema}}
    kind = json.loads(said(service.chat("A bakery, 20 hours.", max_tokens=40, response_format=form, **EXACT)))
    assert kind["kind"] in ("baker", "nurse")
    assert kind["hours"] in (20, 40)


def test_a_stream_says_the_same_as_the_whole_answer(service: Service) -> None:
    fields = EXACT | {"max_tokens": 12}
    for _ in range(2):
        whole = service.chat("Tell me a story.", **fields)
    answer = service.chat("Tell me a story.", stream=True, stream_options={"include_usage": True}, **fields)
    chunks = streamed(answer)
    assert text_of(chunks) == said(whole)
    assert len(chunks) > 5
    assert chunks[-1]["usage"] == whole.json()["usage"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_unicode_comes_through(stream: bool, service: Service) -> None:
    answer = service.chat(f"Say {UNICODE}.", max_tokens=40, response_format=exactly(UNICODE), stream=stream)
    assert json.loads(text_of(streamed(answer)) if stream else said(answer)) == UNICODE


# --- refusals ---


def test_an_unknown_model_is_a_404_that_names_those_there_and_costs_nothing(tap: Tap, service: Service) -> None:
    answer = service.chat("hello", model="nobody")
    assert answer.status_code == 404
    assert FIRST in error_of(answer)
    assert SECOND in error_of(answer)
    assert not tap.seen


def test_tools_for_a_model_without_tools_are_refused_in_ollamas_own_words(ollama: RealOllama, service: Service) -> None:
    direct = ollama.chat("hello", tools=[TOOL])
    answer = service.chat("hello", tools=[TOOL])
    assert answer.status_code == direct.status_code == 400
    assert error_of(answer) == direct.json()["error"]
    assert "does not support tools" in error_of(answer)


def test_a_message_that_is_too_long_is_cut_by_ollama_and_the_caller_is_told(
    ollama: RealOllama, start_service: Callable[..., Service]
) -> None:
    """Ollama drops the middle of it, down to half of the context, and says nothing."""
    ollama.unload()
    service = start_service("--fit-context", "off", num_ctx=512)
    answer = service.chat(long_prompt(400), max_tokens=2)
    said(answer)
    assert answer.json()["usage"]["prompt_tokens"] == 258
    assert answer.headers["x-llm-queue-truncated"] == "maybe"
    assert "x-llm-queue-truncated" not in service.chat("short", max_tokens=2).headers


# --- contexts that fit ---


def test_a_prompt_that_would_not_fit_raises_the_context_and_nothing_of_it_is_lost(
    ollama: RealOllama, tap: Tap, start_service: Callable[..., Service]
) -> None:
    ollama.unload()
    service = start_service(num_ctx=512)
    assert service.chat("short", max_tokens=2).headers["x-llm-queue-num-ctx"] == "512"
    answer = service.chat("The quick brown fox jumps over the lazy dog. " * 60, max_tokens=2)
    said(answer)
    assert answer.headers["x-llm-queue-fit-context"] == answer.headers["x-llm-queue-num-ctx"] == "1024"
    assert 600 < answer.json()["usage"]["prompt_tokens"] < 1024
    assert "x-llm-queue-truncated" not in answer.headers
    after = service.chat("short", max_tokens=2)
    assert after.headers["x-llm-queue-num-ctx"] == "1024"
    assert "x-llm-queue-fit-context" not in after.headers
    assert [work.body["options"]["num_ctx"] for work in tap.work if work.body.get("messages")] == [512, 1024, 1024]


def test_a_prompt_that_fits_into_no_context_is_refused_with_ollamas_own_count(
    ollama: RealOllama, start_service: Callable[..., Service]
) -> None:
    ollama.unload()
    service = start_service("--num-ctx-ceiling", "512", num_ctx=512)
    answer = service.chat(long_prompt(400), max_tokens=2)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert re.search(r"The prompt has \d+ tokens, and its context 512\. ", error_of(answer))
    surely = service.chat("word " * 40_000, max_tokens=2)
    assert (surely.status_code, surely.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "x-llm-queue-job" not in surely.headers
    said(service.chat("short", max_tokens=2))


def test_a_prompt_that_was_underestimated_runs_again_with_the_context_that_it_needs(
    ollama: RealOllama, tap: Tap, start_service: Callable[..., Service]
) -> None:
    """A digit is a token of its own here: one byte, where three are reckoned with."""
    ollama.unload()
    service = start_service(num_ctx=2048)
    answer = service.chat("7" * 2500, max_tokens=2)
    said(answer)
    assert answer.headers["x-llm-queue-fit-context"] == answer.headers["x-llm-queue-num-ctx"] == "4096"
    assert answer.headers["x-llm-queue-attempts"] == "1"
    assert answer.json()["usage"]["prompt_tokens"] > 2500
    assert [work.body["options"]["num_ctx"] for work in tap.work if work.body.get("messages")] == [2048, 4096]


# --- hang-ups ---


def test_who_hangs_up_while_waiting_is_never_asked_for(tap: Tap, service: Service) -> None:
    said(service.chat("warm", max_tokens=1))
    running = service.chat_later("Count.", response_format=exactly(LONG), max_tokens=60)
    until(lambda: tap.in_flight == 1)
    service.hang_up_after("left", lambda: service.waiting() == 1)
    until(lambda: service.waiting() == 0)
    said(service.chat("after", max_tokens=1))
    assert running.result().status_code == 200
    assert [work.body["messages"][0]["content"] for work in tap.work] == ["warm", "Count.", "after"]


def test_who_hangs_up_while_the_model_loads_does_not_end_the_load(tap: Tap, service: Service) -> None:
    service.hang_up_after("left", lambda: tap.in_flight == 1 and tap.loads)
    said(service.chat("after", max_tokens=1))
    assert [load.whole for load in tap.loads] == [True]
    assert [work.body["messages"][0]["content"] for work in tap.work] == ["after"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["prompt", "answer"])
def test_who_hangs_up_is_let_go_within_a_second_and_the_next_one_is_served(
    phase: str, stream: bool, tap: Tap, service: Service
) -> None:
    said(service.chat("warm", max_tokens=1))
    prompt = long_prompt(450) if phase == "prompt" else "Count."

    def so_far() -> bool:
        work = tap.work[-1]
        if len(tap.work) == 1:
            return False
        return work.first is not None if phase == "answer" else not work.first and time.monotonic() > work.start + 0.3

    service.hang_up_after(prompt, so_far, stream=stream, response_format=exactly(LONG))
    left_at = time.monotonic()
    said(service.chat("next", max_tokens=1))
    left, following = tap.work[1:]
    assert not left.whole
    assert left.end is not None
    assert left.end <= following.start <= left_at + 1.0
    assert following.end is not None
    began, ended = following.start - left_at, following.end - left_at
    print(f"{phase}: the next one began after {began:.3f} s and had its answer after {ended:.3f} s")
    assert following.end <= left_at + (15.0 if phase == "prompt" else 5.0)


def test_an_attempt_that_takes_too_long_is_ended_and_tried_once_more(
    tap: Tap, start_service: Callable[..., Service]
) -> None:
    service = start_service("--attempt-timeout", "0.6")
    said(service.chat("warm", max_tokens=1))
    answer = service.chat("Count.", response_format=exactly(LONG))
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"
    assert service.line()["retries"] == 1
    first, second = tap.work[1:]
    assert not first.whole
    assert not second.whole
    assert first.end is not None
    assert first.end <= second.start
    said(service.chat("next", max_tokens=1))


# --- ends ---


def test_ollama_killed_under_a_line_of_20_and_started_again_answers_all_20(
    own: OwnOllama, start_service: Callable[..., Service]
) -> None:
    service = start_service(url=own.url)
    jobs = [service.chat_later(f"hello {number}", max_tokens=5) for number in range(20)]
    until(lambda: service.line()["ended"].get("succeeded", 0) >= 3)
    own.kill()
    service.wait_for_line("is not there")
    assert service.waiting() > 0
    own.start_again()
    assert [job.result().status_code for job in jobs] == [200] * 20
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_sigterm_lets_the_line_finish(tap: Tap, service: Service) -> None:
    jobs = [service.chat_later("Count.", response_format=exactly(LONG), max_tokens=30) for _ in range(5)]
    until(lambda: service.waiting() == 4)
    service.signal(signal.SIGTERM)
    assert [job.result().status_code for job in jobs] == [200] * 5
    assert service.wait() == 0
    assert tap.in_flight == 0


def test_what_a_drain_could_not_finish_is_ended_at_ollama_too(
    ollama: RealOllama, tap: Tap, start_service: Callable[..., Service]
) -> None:
    service = start_service("--drain-timeout", "0.2")
    said(service.chat("warm", max_tokens=1))
    jobs = [service.chat_later("Count.", response_format=exactly(LONG)) for _ in range(3)]
    until(lambda: service.waiting() == 2)
    service.signal(signal.SIGTERM)
    assert [job.result().status_code for job in jobs] == [503] * 3
    assert service.wait() == 1
    assert tap.in_flight == 0
    assert ollama.chat("hello", options={"num_predict": 1}).status_code == 200
