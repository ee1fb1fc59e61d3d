"""Contexts that fit, and models that run elsewhere, with real processes."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.conftest import Ollama, Service, until


def error_of(answer: object) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]  # type: ignore[attr-defined]


def test_a_long_prompt_raises_the_context_once(ollama: Ollama, service: Service) -> None:
    short, long = "a few words", "sentence " * 4000
    sizes = [service.chat(text).headers["x-llm-queue-num-ctx"] for text in (short, long, short, long)]
    assert sizes == ["8192", "16384", "16384", "16384"]
    assert [load["num_ctx"] for load in ollama.log()["loads"]] == [8192, 16384]
    assert [event["num_ctx"] for event in service.events() if event["event"] == "a prompt needs a larger context"] == [
        16384
    ]


def test_what_ollama_counts_decides_where_the_estimate_does_not(ollama: Ollama, service: Service) -> None:
    """Two bytes a token, where three are reckoned with: the estimate fits, the prompt does not."""
    answer = service.chat("x " * 10_000)
    assert (answer.status_code, answer.headers["x-llm-queue-fit-context"]) == (200, "16384")
    refused = service.chat("x " * 70_000)
    assert error_of(refused) == (400, "context_length_exceeded")
    assert refused.headers["x-llm-queue-num-ctx"] == "65536"
    assert [work["outcome"] for work in ollama.work()] == ["refused", "done", "refused"]


def test_switched_off_a_prompt_is_cut_as_ever(start_service: Callable[..., Service]) -> None:
    service = start_service("--fit-context", "off")
    answer = service.chat("x " * 10_000)
    assert (answer.status_code, answer.headers["x-llm-queue-num-ctx"]) == (200, "8192")
    assert answer.headers["x-llm-queue-truncated"] == "maybe"


def test_a_model_that_runs_elsewhere_is_served_beside_the_line(ollama: Ollama, service: Service) -> None:
    running = service.chat_later("!first 2 !say here")
    until(lambda: ollama.log()["in_flight"] == 1)
    assert service.chat("!say there", model="large:cloud").json()["choices"][0]["message"]["content"] == "there"
    assert not running.done()
    assert service.line()["remote"] == {"running": 0, "ended": {"succeeded": 1}}
    assert running.result().status_code == 200
    assert len(ollama.log()["loads"]) == 1


def test_who_hangs_up_on_a_model_that_runs_elsewhere_ends_its_request(ollama: Ollama, service: Service) -> None:
    service.hang_up_after("!stall 1", ollama.work, model="large:cloud")
    until(lambda: ollama.work()[0]["outcome"] == "aborted")
    until(lambda: service.line()["remote"] == {"running": 0, "ended": {"cancelled": 1}})
