"""What is said of models, how long they stay, and changing them, on a real Ollama."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_queue.wire.callers.ollama_request import NO_TOKENS
from tests.e2e.conftest import Service, until
from tests.real.ollama import FIRST, SECOND, RealOllama
from tests.real.tap import Tap

HI = [{"role": "user", "content": "Hi"}]
EMBEDDER = "embedder:135m"


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines() if line]


def chat(http: httpx.Client, **fields: Any) -> httpx.Response:
    options = {"num_predict": 3} | fields.pop("options", {})
    return http.post("/api/chat", json={"model": FIRST, "messages": HI, "stream": False, "options": options} | fields)


def stays(ollama: RealOllama, model: str = FIRST) -> float:
    """For about how many more seconds it is loaded."""
    (found,) = (one for one in ollama.request("GET", "/api/ps").json()["models"] if one["name"] == model)
    stamp = re.sub(r"(\.\d{6})\d*", r"\1", found["expires_at"])
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() - time.time()


# --- what is said of them ---


def test_what_ollama_says_of_its_models_is_passed_on_but_for_the_context(ollama: RealOllama, service: Service) -> None:
    def alike(mine: Any, theirs: Any) -> None:
        """The same, but for the context that the line grants."""
        if isinstance(theirs, dict):
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                if name.endswith("context_length"):
                    assert mine[name] == 2048
                elif name == "parameters":
                    assert mine[name].splitlines()[:-1] == value.splitlines()
                    assert mine[name].splitlines()[-1].split() == ["num_ctx", "2048"]
                else:
                    alike(mine[name], value)
        elif isinstance(theirs, list):
            assert len(mine) == len(theirs)
            for one, other in zip(mine, theirs, strict=True):
                alike(one, other)
        else:
            assert mine == theirs

    assert chat(service.http).status_code == 200
    for method, path, body in (
        ("GET", "/api/version", b""),
        ("GET", "/api/tags", b""),
        ("GET", "/api/ps", b""),
        ("POST", "/api/show", b'{"model":"%b"}' % FIRST.encode()),
        ("POST", "/api/show", b'{"NAME":"%b","verbose":true}' % SECOND.encode()),
    ):
        expected = ollama.request(method, path, body)
        answer = service.http.request(method, path, content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, expected.headers["content-type"])
        alike(answer.json(), expected.json())


def test_what_the_granted_context_says_is_true(service: Service, ollama: RealOllama) -> None:
    chat(service.http, options={"num_ctx": 4096})
    assert ollama.resident() == {FIRST: 4096}
    shown = service.http.post("/api/show", json={"model": FIRST}).json()
    assert shown["model_info"]["llama.context_length"] == 4096
    assert service.http.get("/api/ps").json()["models"][0]["context_length"] == 4096
    other = service.http.post("/api/show", json={"model": SECOND}).json()
    assert other["model_info"]["llama.context_length"] == 2048


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/"), ("GET", "/"), ("HEAD", "/api/tags"), ("HEAD", "/api/version")]
)
def test_whether_it_is_there(ollama: RealOllama, service: Service, method: str, path: str) -> None:
    expected, answer = ollama.request(method, path), service.http.request(method, path)
    assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
    assert answer.headers["content-type"] == expected.headers["content-type"]


def test_ps_is_for_get_alone(ollama: RealOllama, service: Service) -> None:
    assert service.http.head("/api/ps").status_code == ollama.request("HEAD", "/api/ps").status_code == 405


# --- how an answer ends, and how long a model stays ---


def test_an_answer_of_no_tokens_has_an_end(service: Service) -> None:
    options = {"num_predict": 0, "temperature": 0, "stop": ["never to be said"]}
    last = lines(chat(service.http, stream=True, options=options))[-1]
    assert last["done"]
    assert last["eval_count"] <= NO_TOKENS


def test_an_option_that_newer_ones_refuse_is_left_out(service: Service) -> None:
    answer = chat(service.http, options={"typical_p": 0.9})
    assert (answer.status_code, answer.headers["X-LLM-Queue-Dropped"]) == (200, "typical_p")


def test_a_model_stays_for_the_longest_time_that_anybody_asked_for(
    ollama: RealOllama, start_service: Callable[..., Service]
) -> None:
    ollama.unload()
    service = start_service("--keep-alive", "10m")
    for asked, expected in ((None, 600), ("1m", 600), ("30m", 1800), (60, 1800), (0, 1800), ("2h", 7200), (None, 7200)):
        assert chat(service.http, keep_alive=asked).status_code == 200
        assert expected - 60 < stays(ollama) < expected + 60, asked
    assert service.http.post("/api/generate", json={"model": FIRST, "keep_alive": -1}).json()["done_reason"] == "load"
    assert stays(ollama) > 10**9
    chat(service.http, keep_alive="1m")
    assert stays(ollama) > 10**9


def test_a_model_is_unloaded_if_nobody_else_wants_it(ollama: RealOllama, tap: Tap, service: Service) -> None:
    chat(service.http)
    body = {"model": FIRST, "keep_alive": 0}
    running = service.chat_later("Count to two hundred in words.", model=FIRST, max_tokens=150)
    until(lambda: service.line()["slot"])
    began = time.monotonic()
    assert service.http.post("/api/generate", json=body).json()["done_reason"] == "unload"
    assert time.monotonic() - began < 1, "it does not wait for what runs"
    assert running.result().status_code == 200
    assert ollama.resident() == {FIRST: 2048}
    assert service.http.post("/api/chat", json=body).json()["done_reason"] == "unload"
    until(lambda: not ollama.resident())
    assert chat(service.http).status_code == 200
    assert len(tap.loads) == 2
    assert service.line()["surprise_loads"] == 0


# --- what changes it ---


def test_a_pull_is_refused_and_said_so(service: Service) -> None:
    answer = service.http.post("/api/pull", json={"model": "x"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert ["--allow-ollama-admin" in line["error"] for line in lines(answer)] == [True]
    answer = service.http.post("/api/pull", json={"model": "x", "stream": False})
    assert answer.status_code == 403
    assert "ollama pull" in answer.json()["error"]


def embedding_weights(ollama: RealOllama) -> bytes:
    """The same weights, said to be a model that embeds: two entries more in the header, of a length that moves no
    tensor out of its place.
    """

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    shown = ollama.request("POST", "/api/show", json.dumps({"model": FIRST}).encode()).json()
    found = re.search(r"^FROM (/.*)$", shown["modelfile"], re.MULTILINE)
    if found is None or not Path(found[1]).exists():
        pytest.skip("the Ollama that was named is on another machine, and its weights are not here")
    weights = Path(found[1]).read_bytes()
    magic, version, tensors, entries = struct.unpack("<4sIQQ", weights[:24])
    pooling = text("llama.pooling_type") + struct.pack("<II", 4, 1)
    filler = text("general.note") + struct.pack("<I", 8)
    filler += text("x" * (-(len(pooling) + len(filler) + 8) % 32))
    return struct.pack("<4sIQQ", magic, version, tensors, entries + 2) + pooling + filler + weights[24:]


@pytest.fixture
def administered(ollama: RealOllama, start_service: Callable[..., Service]) -> Iterator[Service]:
    ollama.unload()
    yield start_service("--allow-ollama-admin")
    ollama.unload()  # a model that is loaded outlives its deletion, and has no name then to unload it by
    ollama.request("DELETE", "/api/delete", json.dumps({"model": EMBEDDER}).encode())


def test_a_model_that_embeds_is_made_through_the_line_and_answers_alike(
    ollama: RealOllama, administered: Service
) -> None:
    http, weights = administered.http, embedding_weights(ollama)
    digest = "sha256:" + hashlib.sha256(weights).hexdigest()
    # in pieces, without a length
    sent = http.post(f"/api/blobs/{digest}", content=iter([weights[:70_000], weights[70_000:]]))
    assert sent.status_code in (200, 201), sent.text
    assert http.head(f"/api/blobs/{digest}").status_code == 200
    made = http.post("/api/create", json={"model": EMBEDDER, "files": {"model.gguf": digest}})
    assert lines(made)[-1] == {"status": "success"}, made.text
    assert "embedding" in http.post("/api/show", json={"model": EMBEDDER}).json()["capabilities"]

    options = {"num_ctx": 2048}
    with httpx.Client(base_url=ollama.url, timeout=120, trust_env=False) as direct:
        for path, fields in (
            ("/api/embed", {"input": ["a cat", "a dog"], "dimensions": 64}),
            ("/api/embed", {"input": "a cat"}),
            ("/api/embed", {"input": ["a cat", ""]}),
            ("/api/embed", {"input": []}),
            ("/api/embed", {"input": [1]}),
            ("/api/embed", {"input": "cat " * 5000, "truncate": False}),
            ("/api/embeddings", {"prompt": "a cat"}),
            ("/api/embeddings", {"prompt": ""}),
            ("/api/chat", {"messages": HI}),
        ):
            body = {"model": EMBEDDER, "options": options} | fields
            expected, answer = (client.post(path, json=body) for client in (direct, http))
            assert (answer.status_code, rounded(answer)) == (expected.status_code, rounded(expected)), (path, fields)
    vectors = http.post("/api/embed", json={"model": EMBEDDER, "input": ["a", "b"], "dimensions": 64}).json()[
        "embeddings"
    ]
    assert [len(vector) for vector in vectors] == [64, 64]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1, 1])

    copied = http.post("/api/copy", json={"source": EMBEDDER, "destination": "copied:135m"})
    assert copied.status_code == 200
    assert http.post("/api/embed", json={"model": "copied:135m", "input": "a"}).status_code == 200
    gone = http.request("DELETE", "/api/delete", json={"model": "copied:135m"})
    assert gone.status_code == 200
    assert http.post("/api/embed", json={"model": "copied:135m", "input": "a"}).status_code == 404
    assert http.request("DELETE", "/api/delete", json={"model": "copied:135m"}).status_code == 404


def rounded(answer: httpx.Response) -> Any:
    """Its JSON, without times, with numbers as far as two runs agree on them."""

    def part(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: part(one) for name, one in value.items() if not name.endswith("_duration")}
        if isinstance(value, list):
            return [part(one) for one in value]
        return round(value, 4) if isinstance(value, float) else value

    return part(answer.json())
