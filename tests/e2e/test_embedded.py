"""The service with the engine of its own: the real llama.cpp and the small model that is fetched for it."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from llm_queue.upstream.embedded import Embedded
from llm_queue.upstream.embedded.weights import NAME, weights
from llm_queue.wire.shapes import ChatRequest, Completion, Message, Sampling
from tests.e2e.conftest import Service, until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="the extra `embedded` is not installed: pip install '.[embedded]', or run nox -s e2e",
)

STORY = "Write a very long story about a ship."
AT_ONCE = 12.0
"""Seconds within which the next job is served after a hang-up: a hundredth of that on a quiet machine, and far less
than the abandoned answer would take."""


@pytest.fixture(scope="session")
def model() -> Path:
    """The small model, from the user's cache."""
    return trio.run(weights, print)


@pytest.fixture
def start(model: Path) -> Iterator[Callable[..., Service]]:
    with ExitStack() as started:

        def start(*flags: str, gguf: Path = model, **environ: str) -> Service:
            engine = {"LLM_QUEUE_ENGINE": "embedded", "LLM_QUEUE_GGUF": str(gguf), "OLLAMA_MODEL": ""}
            service = Service("", *flags, environ=engine | {"OLLAMA_NUM_CTX": "2048"} | environ)
            started.callback(service.end)
            return service

        yield start


@pytest.fixture
def service(start: Callable[..., Service]) -> Service:
    return start()


def engine_of(service: Service) -> psutil.Process:
    (engine,) = psutil.Process(service.child.pid).children()
    return engine


def in_flight(engine: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in engine.net_connections("tcp"))


def running(service: Service) -> bool:
    slot = service.line()["slot"]
    return slot is not None and slot["phase"] == "running"


def test_the_command_in_the_first_lines_gets_an_answer(start: Callable[..., Service]) -> None:
    service = start()
    command = shlex.split(service.wait_for_line(r"try it +(curl .*)").group(1))
    assert command[:2] == ["curl", f"http://localhost:{service.port}/v1/chat/completions"]
    answer = service.http.post(command[1], content=command[3])
    assert answer.status_code == 200
    assert answer.json()["model"] == NAME
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["usage"]["prompt_tokens"] > 10


def test_a_stream_comes_in_pieces_and_says_its_end_and_its_counts(service: Service) -> None:
    answer = service.chat(
        "Count to ten.", stream=True, stream_options={"include_usage": True}, max_tokens=20, temperature=0
    )
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    *pieces, finish, usage = [json.loads(event) for event in events[:-1]]
    assert len(pieces) > 5
    assert finish["choices"][0]["finish_reason"] in ("stop", "length")
    assert 0 < usage["usage"]["completion_tokens"] <= 20


def test_what_was_found_of_a_prompt_that_comes_again_is_told_in_each_dialect(service: Service) -> None:
    rules = " ".join(f"Rule {number}: be brief." for number in range(40))
    ask = [{"role": "system", "content": rules}, {"role": "user", "content": "Hi"}]
    body = {"model": NAME, "messages": ask, "max_tokens": 4}
    http = service.http
    first, second = (http.post("/v1/chat/completions", json=body) for _ in range(2))
    usage = second.json()["usage"]
    tokens, found = usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
    assert first.json()["usage"]["prompt_tokens_details"]["cached_tokens"] < found
    assert 200 < tokens - 10 < found < tokens
    report = http.get(f"/queue/jobs/{second.headers['X-LLM-Queue-Job']}").json()
    assert (report["prompt_tokens"], report["cached_tokens"]) == (tokens, found)
    cold = http.get(f"/queue/jobs/{first.headers['X-LLM-Queue-Job']}").json()
    assert 0 < report["prompt_s"] < cold["prompt_s"]
    short = {"model": NAME, "messages": ask, "stream": False, "options": {"num_predict": 4}}
    ollama = http.post("/api/chat", json=short).json()
    assert ollama["prompt_eval_count"] == tokens
    assert ollama["prompt_eval_cached_count"] > tokens - 10
    assert ollama["prompt_eval_duration"] > 0
    asked = {"model": NAME, "instructions": rules, "input": "Hi", "max_output_tokens": 16}
    responses = http.post("/v1/responses", json=asked).json()
    assert responses["usage"]["input_tokens_details"]["cached_tokens"] > tokens - 10
    said = {"model": NAME, "system": rules, "messages": ask[1:], "max_tokens": 4}
    messages = http.post("/v1/messages", json=said).json()["usage"]
    assert messages["cache_read_input_tokens"] > tokens - 10
    assert messages["input_tokens"] + messages["cache_read_input_tokens"] == tokens


def test_a_json_schema_is_kept(service: Service) -> None:
    schema = {
        "type": "object",
        "properties": {"relevant": {"type": "boolean"}, "reason": {"type": "string", "maxLength": 40}},
        "required": ["relevant", "reason"],
        "additionalProperties": False,
    }
    answer = service.http.post(
        "/v1/chat/completions",
        json={
            "messages": [
                {"role": "system", "content": 'Answer with JSON: {"relevant": true, "reason": "short reason"}'},
                {"role": "user", "content": "Senior Python developer. Relevant for a Python programmer?"},
            ],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            "temperature": 0,
            "max_tokens": 160,
        },
    )
    said = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert type(said["relevant"]) is bool
    assert set(said) == {"relevant", "reason"}


def test_a_prompt_that_is_too_long_is_a_clear_400(service: Service) -> None:
    answer = service.chat("ship " * 20_000)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "maximum context length is 8192 tokens" in answer.json()["error"]["message"]  # it was trained for no more


def test_an_unknown_model_is_a_404_that_names_those_there(service: Service) -> None:
    answer = service.chat("hello", model="nope")
    assert answer.status_code == 404
    assert NAME in answer.json()["error"]["message"]
    assert "--gguf" in answer.json()["error"]["message"]
    assert [model["id"] for model in service.http.get("/v1/models").json()["data"]] == [NAME]


def test_no_route_tells_where_the_file_is(service: Service, model: Path) -> None:
    job = service.chat("hello", max_tokens=2).headers["x-llm-queue-job"]
    told = [service.chat("hello", model="nope").text, service.chat("ship " * 20_000).text]
    told += [service.http.get(path).text for path in ("/queue", f"/queue/jobs/{job}", "/ready", "/v1/models")]
    told += [service.http.get(f"/v1/models/{name}").text for name in (NAME, "nope")]
    assert not [text for text in told if str(model.parent) in text]


def test_one_request_is_in_flight_whatever_is_asked_at_once(service: Service) -> None:
    jobs = [service.chat_later(f"Say {number}.", max_tokens=10) for number in range(8)]
    most = 0
    while not all(job.done() for job in jobs):
        for engine in psutil.Process(service.child.pid).children():
            most = max(most, in_flight(engine))
        time.sleep(0.01)
    assert [job.result().status_code for job in jobs] == [200] * 8
    assert most == 1
    assert service.line()["loads"] == 1


def test_a_larger_context_is_another_process_and_stays(service: Service) -> None:
    sizes, engines = [], []
    for asked in (None, 4096, None, 65536):
        answer = service.chat("hello", max_tokens=4, numCtx=asked)
        sizes.append(answer.headers["x-llm-queue-num-ctx"])
        engines.append(engine_of(service).pid)
    assert sizes == ["2048", "4096", "4096", "8192"]  # it was trained for no more
    assert engines[1] == engines[2]
    assert len(set(engines)) == 3
    assert service.line()["loads"] == 3


def test_two_models_take_turns_in_one_process_at_a_time(
    start: Callable[..., Service], model: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.gguf").symlink_to(model)
    service = start(gguf=tmp_path)
    jobs = [service.chat_later("hello", model=name, max_tokens=4) for name in ("one", "two") * 3]
    assert [job.result().json()["model"] for job in jobs] == ["one", "two"] * 3
    assert service.line()["loads"] == 2
    engine_of(service)


@pytest.mark.parametrize("phase", ["prompt", "generating"])
def test_after_a_hang_up_the_next_is_served_at_once(phase: str, service: Service) -> None:
    service.chat("hello", max_tokens=2)
    prompt = "ship " * 1200 if phase == "prompt" else STORY
    began: list[float] = []

    def reached() -> bool:
        if running(service):
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] > (0.1 if phase == "prompt" else 1.0)

    service.hang_up_after(prompt, reached, max_tokens=3000)
    left = time.monotonic()
    assert service.chat("hello", max_tokens=2).status_code == 200
    assert time.monotonic() - left < AT_ONCE
    assert service.line()["ended"]["cancelled"] == 1
    if phase == "generating":  # one batch of a prompt may take longer than an engine is given to let go
        assert service.line()["loads"] == 1


LARGEST = 9223372036854776000
"""2^63, as JavaScript prints it."""

ENDLESS: dict[str, dict[str, object]] = {
    "maximum": {"type": "integer", "maximum": LARGEST},
    "exclusiveMaximum": {"type": "integer", "exclusiveMaximum": LARGEST},
    "64 bits": {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST},
    "nested repetition": {"type": "string", "pattern": "^" + "(" * 30 + "a" + "){1,9}" * 30 + "$"},
    "many values": {"enum": [f"v{number}" for number in range(100_000)]},
}
"""Schemas of which llama.cpp makes a grammar for minutes or for ever, most of them in ever more memory."""


def asks_for(schema: dict[str, object]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, "max_tokens": 8}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_an_engine_that_does_not_let_go_is_killed_and_the_next_is_served(
    schema: dict[str, object], service: Service
) -> None:
    service.chat("hello", max_tokens=2)
    before = engine_of(service)
    began: list[float] = []

    def at_work() -> bool:
        if in_flight(before):
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] > 1.0

    service.hang_up_after("hi", at_work, **asks_for(schema))
    left = time.monotonic()
    assert service.chat("hello", max_tokens=2).status_code == 200
    assert time.monotonic() - left < AT_ONCE
    assert engine_of(service).pid != before.pid
    assert not before.is_running() or before.status() == psutil.STATUS_ZOMBIE
    assert service.line()["loads"] == 2


def test_an_attempt_that_does_not_stop_is_ended_with_its_engine_and_not_repeated(
    start: Callable[..., Service],
) -> None:
    service = start("--attempt-timeout", "2")  # and 2 s to stop: some machines have made this grammar in 6
    service.chat("hello", max_tokens=2)
    answer = service.chat("hi", **asks_for(ENDLESS["nested repetition"]))
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "engine_stuck"
    assert answer.headers["x-llm-queue-attempts"] == "1"
    assert answer.headers["x-should-retry"] == "false"
    assert service.chat("hello", max_tokens=2).status_code == 200
    assert service.line()["retries"] == 0


def test_an_engine_that_takes_too_much_memory_is_ended_and_the_caller_is_told_the_setting(
    start: Callable[..., Service],
) -> None:
    service = start("--engine-memory", "700MiB")
    service.chat("hello", max_tokens=2)
    answer = service.chat("hi", **asks_for(ENDLESS["maximum"]))
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "engine_out_of_memory"
    assert "--engine-memory" in answer.json()["error"]["message"]
    assert answer.headers["x-llm-queue-attempts"] == "1"
    assert service.chat("hello", max_tokens=2).status_code == 200


def test_a_picture_is_a_400(service: Service) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    answer = service.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": [image]}]})
    assert answer.status_code == 400
    assert f"{NAME} does not support images" in answer.json()["error"]["message"]


async def test_an_answer_ends_at_the_engines_limit_unless_the_request_has_its_own(model: Path) -> None:
    engine = Embedded(model, answer_tokens=16)
    (small,) = await engine.models()

    async def ask(max_tokens: int | None) -> Completion:
        request = ChatRequest("x", (Message("user", STORY),), sampling=Sampling(temperature=0), max_tokens=max_tokens)
        return await engine.run(small, 2048, request, lambda delta: None)

    await engine.load(small, 2048)
    answers = [await ask(limit) for limit in (None, 40, 4)]
    await engine.aclose()
    assert [(one.finish_reason, one.completion_tokens) for one in answers] == [
        ("length", 16),
        ("length", 40),
        ("length", 4),
    ]


def test_an_engine_killed_while_it_works_is_started_again_and_the_job_is_answered(service: Service) -> None:
    service.chat("hello", max_tokens=2)
    before = engine_of(service)
    job = service.chat_later(STORY, max_tokens=150, temperature=0)
    until(lambda: in_flight(before))
    time.sleep(0.1)  # a connection that is lost before it was made is an outage, and no attempt
    before.kill()
    answer = job.result()
    assert answer.status_code == 200
    assert answer.headers["x-llm-queue-attempts"] == "2"
    assert engine_of(service).pid != before.pid
    assert (service.line()["loads"], service.line()["retries"]) == (2, 1)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completion", "/tokenize", "/apply-template", "/slots"])
def test_nobody_without_its_key_can_ask_the_engine(path: str, service: Service) -> None:
    service.chat("hello", max_tokens=2)
    listening = [one for one in engine_of(service).net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
    url = f"http://127.0.0.1:{listening[0].laddr.port}{path}"
    for headers in ({}, {"Authorization": "Bearer any"}, {"X-Api-Key": "any"}):
        body = {"messages": [{"role": "user", "content": "hello"}], "prompt": "hello", "content": "hello"}
        assert service.http.post(url, json=body, headers=headers).status_code == 401


def test_a_service_that_is_killed_leaves_no_engine_behind(service: Service) -> None:
    service.chat("hello", max_tokens=2)
    engine = engine_of(service)
    service.chat_later(STORY, max_tokens=3000, temperature=0)
    until(lambda: running(service))
    service.child.kill()
    until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("everybody", [False, True], ids=["the service", "all its processes"])
def test_a_signal_lets_the_running_job_finish_and_ends_the_engine(everybody: bool, service: Service) -> None:
    service.chat("hello", max_tokens=2)
    engine = engine_of(service)
    job = service.chat_later(STORY, max_tokens=60, temperature=0)
    until(lambda: running(service))
    if everybody:  # as Ctrl-C does, and a service manager
        engine.send_signal(signal.SIGINT)
        engine.send_signal(signal.SIGTERM)
    service.signal(signal.SIGTERM)
    assert job.result().status_code == 200
    assert job.result().headers["x-llm-queue-attempts"] == "1"
    assert service.wait() == 0
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_a_file_that_is_no_model_fails_its_job_with_the_reason(start: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(200))
    answer = start(gguf=tmp_path).chat("hello")
    assert answer.status_code == 502
    assert re.search(r"could not load broken .*\w", answer.json()["error"]["message"])
    assert str(tmp_path) not in answer.text


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "llm_queue", "--port", "0", "--engine", "embedded", "--gguf", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert str(tmp_path) in refused.stderr
