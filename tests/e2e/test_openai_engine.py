"""The line in front of an OpenAI-compatible server, which here is a second line in front of the fake Ollama."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Ollama, Service, until


@pytest.fixture
def outer(service: Service, start_service: Callable[..., Service]) -> Service:
    return start_service("--engine", "openai", "--upstream-url", f"{service.url}/v1", environ={"OLLAMA_MODEL": ""})


def test_the_text_goes_through_verbatim_whole_and_streamed(outer: Service) -> None:
    text = " two  spaces, `é` and 🙂 "
    assert outer.chat(f"!say {text}").json()["choices"][0]["message"]["content"] == text
    assert "🙂" in outer.chat(f"!say {text}", stream=True).text
    assert outer.chat("hello").json()["usage"]["completion_tokens"] > 0


def test_texts_and_vectors_go_through(
    start_ollama: Callable[..., Ollama], start_service: Callable[..., Service]
) -> None:
    both = ("--capability", "completion", "--capability", "embedding")
    inner = start_service(url=start_ollama(*both).url)
    outer = start_service("--engine", "openai", "--upstream-url", inner.url, environ={"OLLAMA_MODEL": ""})
    body = {"prompt": "!say  upon a time", "max_tokens": 3}
    assert outer.http.post("/v1/completions", json=body).json()["choices"][0]["text"] == " upon a time"
    assert '"text":" time"' in outer.http.post("/v1/completions", json=body | {"stream": True}).text
    vectors = [one.http.post("/v1/embeddings", json={"input": ["a", "b"]}).json() for one in (inner, outer)]
    assert vectors[0]["data"] == vectors[1]["data"]


def test_a_call_that_must_be_made_is_the_server_s_affair_and_so_is_its_refusal(outer: Service) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    [call] = outer.chat("x", tools=tools, tool_choice="required").json()["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("weather", "{}")
    refused = outer.chat("x", tools=tools, tool_choice="required", response_format={"type": "json_object"})
    assert (refused.status_code, "one form" in refused.json()["error"]["message"]) == (400, True)


def test_its_models_are_those_of_the_server_and_the_first_is_the_default(outer: Service) -> None:
    assert [model["id"] for model in outer.http.get("/v1/models").json()["data"]] == ["fake:latest", "second:latest"]
    assert outer.chat("!say x").json()["model"] == "fake:latest"
    assert outer.chat("!say x", model="second").status_code == 200
    assert outer.http.get("/v1/models/second").json()["context_length"] == 8192


def test_a_context_size_is_accepted_and_is_the_servers_affair(outer: Service, ollama: Ollama) -> None:
    answer = outer.chat("!say x", numCtx=16384)
    assert answer.status_code == 200
    assert "x-llm-queue-num-ctx" not in answer.headers
    assert ollama.work()[0]["num_ctx"] == 8192


def test_a_refusal_keeps_its_status_and_a_failure_is_a_502(outer: Service) -> None:
    refused = outer.chat("!refuse 422 cannot do that")
    assert (refused.status_code, refused.json()["error"]["message"]) == (422, "cannot do that")
    assert outer.chat("!error500 out of memory").status_code == 502


def test_a_hang_up_goes_through_to_the_last_server(outer: Service, ollama: Ollama) -> None:
    outer.hang_up_after("!hang", lambda: ollama.log()["in_flight"] == 1)
    until(lambda: ollama.log()["in_flight"] == 0)
    assert outer.chat("!say next").status_code == 200
    assert ollama.log()["max_in_flight"] == 1


def test_a_key_that_is_not_accepted_is_named_and_never_shown(start_service: Callable[..., Service]) -> None:
    inner = start_service(environ={"LLM_QUEUE_API_KEYS": "the-right-one"})
    url = ("--engine", "openai", "--upstream-url", inner.url)
    right = start_service(*url, environ={"LLM_QUEUE_UPSTREAM_KEY": "the-right-one"})
    assert right.chat("!say x").status_code == 200
    wrong = start_service(*url, "--first-outage-wait", "0.3", environ={"LLM_QUEUE_UPSTREAM_KEY": "the-wrong-one"})
    assert wrong.chat("!say x").status_code == 502
    assert "--upstream-key" in wrong.http.get("/ready").json()["reason"]
    assert not any("the-wrong-one" in line for line in wrong.lines)
