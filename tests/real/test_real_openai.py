"""OpenAI's texts, vectors and models in front of a real Ollama: as Ollama's own addresses of these names answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Service
from tests.real.ollama import FIRST, RealOllama
from tests.real.tap import Tap

FRANCE: dict[str, Any] = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0, "seed": 7}


def complete(service: Service, **fields: Any) -> httpx.Response:
    answer = service.http.post("/v1/completions", json=FRANCE | fields)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_text_goes_on_as_ollama_goes_on_with_it_itself(ollama: RealOllama, service: Service) -> None:
    ours = complete(service).json()
    direct = httpx.post(f"{ollama.url}/v1/completions", json=FRANCE | {"model": FIRST}, timeout=120, trust_env=False)
    theirs = direct.json()
    for name in ("text", "finish_reason", "index"):
        assert ours["choices"][0][name] == theirs["choices"][0][name]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert ours["usage"][name] == theirs["usage"][name]


def test_a_stream_of_a_text_says_the_same_and_so_does_a_list(service: Service) -> None:
    whole = complete(service).json()["choices"][0]
    streamed = complete(service, stream=True, stream_options={"include_usage": True}).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole["text"]
    assert events[-2]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert events[-1]["usage"]["completion_tokens"] > 0
    several = complete(service, prompt=[FRANCE["prompt"], "One, two, three,"]).json()["choices"]
    assert [choice["index"] for choice in several] == [0, 1]
    assert several[0]["text"] == whole["text"] != several[1]["text"]


def test_logprobs_of_a_text_are_those_of_its_tokens(service: Service) -> None:
    choice = complete(service, logprobs=2).json()["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for token, number, likely, offset in zip(*logprobs.values(), strict=True):
        assert choice["text"][offset:].startswith(token)
        assert likely[token] == number <= 0


def test_what_a_model_cannot_is_refused_in_ollamas_own_words(service: Service) -> None:
    suffix = service.http.post("/v1/completions", json=FRANCE | {"suffix": "."})
    assert (suffix.status_code, "does not support insert" in suffix.text) == (400, True)
    vectors = service.http.post("/v1/embeddings", json={"input": ["a", "b"]})
    assert (vectors.status_code, "embeddings" in vectors.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("asked", [None, 4096])
def test_the_list_tells_the_context_that_a_request_gets(asked: int | None, tap: Tap, service: Service) -> None:
    complete(service, **({"numCtx": asked} if asked else {}))
    model = service.http.get(f"/v1/models/{FIRST}").json()
    assert model["context_length"] == tap.work[-1].num_ctx == (asked or 2048)
    assert model["meta"]["n_ctx_train"] > 4096
