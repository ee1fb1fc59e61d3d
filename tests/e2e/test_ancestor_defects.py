"""What the Node ancestor gets wrong, each held up against this one."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from tests.e2e.conftest import Ollama, Service, until


def test_defect_1_after_a_timeout_it_retries_while_the_first_request_still_runs(
    start_ollama: Callable[..., Ollama], start_service: Callable[..., Service]
) -> None:
    ollama = start_ollama("--close-seconds", "0.3")
    service = start_service(url=ollama.url, environ={"LLM_TIMEOUT_MS": "200"})
    answer = service.chat("!hang #once")
    assert answer.status_code == 200
    assert answer.headers["x-llm-queue-attempts"] == "2"
    first, second = ollama.work()
    assert first["outcome"] == "aborted"
    assert second["start"] >= first["end"]
    assert ollama.log()["max_in_flight"] == 1


def test_defect_2_a_caller_that_hung_up_while_queued_is_still_run(ollama: Ollama, service: Service) -> None:
    running = service.chat_later("!first 0.5 running")
    until(lambda: len(ollama.work()) == 1)
    service.hang_up_after("!say left", lambda: service.waiting() == 1)
    until(lambda: service.waiting() == 0)
    assert running.result().status_code == 200
    assert service.chat("!say after").status_code == 200
    assert [work["prompt"] for work in ollama.work()] == ["!first 0.5 running", "!say after"]


def test_defect_2_a_caller_that_hung_up_while_running_keeps_the_gpu_busy(ollama: Ollama, service: Service) -> None:
    for stream in (False, True):
        service.hang_up_after("!hang", lambda: "running" in [work["outcome"] for work in ollama.work()], stream=stream)
        until(lambda: ollama.work()[-1]["outcome"] == "aborted")
        assert service.chat("!say next").json()["choices"][0]["message"]["content"] == "next"
    assert ollama.log()["max_in_flight"] == 1


def test_defect_3_a_stream_that_breaks_in_the_middle_looks_whole(service: Service) -> None:
    for breakage in ("!break 2", "!short 2", "!cut 2"):
        text = service.chat(breakage, stream=True).text
        assert '"error"' in text
        assert "[DONE]" not in text
        assert '"finish_reason":"' not in text


def test_defect_3_a_whole_answer_that_breaks_twice_is_an_error_and_not_half_an_answer(service: Service) -> None:
    for breakage in ("!break 2", "!short 2", "!cut 2", "!garble"):
        answer = service.chat(breakage)
        assert answer.status_code == 502
        assert answer.headers["x-should-retry"] == "false"
        assert "choices" not in answer.json()


def test_defect_4_finish_reason_is_always_stop_and_usage_is_guessed(service: Service) -> None:
    cut = service.chat("!tokens 50 a long story", max_tokens=5).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 5
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    called = service.chat("!tool look", tools=[tool]).json()["choices"][0]
    assert called["finish_reason"] == "tool_calls"
    assert called["message"]["tool_calls"][0]["function"]["name"] == "look"


def test_defect_5_the_text_is_trimmed_and_content_given_as_parts_is_dropped(service: Service) -> None:
    text = "\n  verbatim \t\u00e9\U0001f600 \n\n"
    assert service.chat(f"!say {text}x").json()["choices"][0]["message"]["content"] == f"{text}x"
    parts = [{"type": "text", "text": "!say in "}, {"type": "text", "text": "parts"}]
    answer = service.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}]})
    content = answer.json()["choices"][0]["message"]["content"]
    assert content.startswith("in ")
    assert content.endswith("parts")


def test_defect_6_every_upstream_failure_is_a_500(service: Service) -> None:
    assert service.chat("!refuse 422 no").status_code == 422
    assert service.chat("!error500").status_code == 502
    missing = service.chat("hello", model="missing")
    assert missing.status_code == 404
    assert "second" in missing.json()["error"]["message"]


def test_defect_6_the_line_the_body_and_num_ctx_are_unbounded(
    ollama: Ollama, start_service: Callable[..., Service]
) -> None:
    service = start_service("--max-waiting", "2", "--max-body", "2000")
    running = service.chat_later("!first 0.7 running")
    until(lambda: len(ollama.work()) == 1)
    waiting = [service.chat_later("!say waiting") for _ in range(2)]
    until(lambda: service.waiting() == 2)
    full = service.chat("!say one too many")
    assert full.status_code == 429
    assert 1 <= int(full.headers["retry-after"]) <= 60
    assert service.chat("x" * 3000).status_code == 413
    assert service.chat("hello", numCtx=1_000_000).status_code == 400
    assert "65536" in service.chat("hello", numCtx=1_000_000).json()["error"]["message"]
    assert [job.result().status_code for job in [running, *waiting]] == [200] * 3
    assert [load["num_ctx"] for load in ollama.log()["loads"]] == [8192]


def test_defect_7_two_models_in_turn_reload_at_every_request(
    start_ollama: Callable[..., Ollama], start_service: Callable[..., Service]
) -> None:
    ollama = start_ollama("--model", "fake", "--model", "second", "--load-seconds", "0.5", "--token-seconds", "0.001")
    service = start_service(url=ollama.url)
    blocker = service.chat_later("!first 0.5 blocker")
    until(lambda: len(ollama.work()) == 1)
    jobs = [service.chat_later("!say x", model=model) for _ in range(6) for model in ("fake", "second")]
    until(lambda: service.waiting() == 12)
    assert {job.result().status_code for job in [blocker, *jobs]} == {200}
    assert len(ollama.log()["loads"]) <= 3


def test_two_programs_that_ask_for_different_context_sizes_cause_one_raise(ollama: Ollama, service: Service) -> None:
    for _ in range(3):
        assert service.chat("!say x", numCtx=8192).headers["x-llm-queue-num-ctx"] in ("8192", "16384")
        assert service.chat("!say y", numCtx=16384).headers["x-llm-queue-num-ctx"] == "16384"
    assert [load["num_ctx"] for load in ollama.log()["loads"]] == [8192, 16384]
    assert httpx.codes.is_success(service.http.get("/health").status_code)
