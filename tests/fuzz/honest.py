"""A client that does nothing wrong: each dialect in turn, whole and streamed, and every answer is known."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio

from llm_queue.testing.fake_ollama.answer import vectors_of
from llm_queue.wire.callers.routes import ROUTES
from tests.fuzz.seeds import MODEL

Json = dict[str, Any]
PAUSE: Final = 0.02
"""Seconds between two questions: it is the attack that is to have the machine."""

LIMIT: Final = 60.0
"""Seconds in which each answer must have come."""


def _events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def _lines(text: str) -> Iterator[Json]:
    yield from map(json.loads, text.splitlines())


def _ends_with(text: str, end: str) -> None:
    assert text.rstrip().endswith(end), text[-300:]


def _chat(text: str, *, stream: bool) -> str:
    if not stream:
        answer = json.loads(text)["choices"][0]
        assert answer["finish_reason"] == "stop", answer
        return str(answer["message"]["content"])
    _ends_with(text, "data: [DONE]")
    return "".join(choice["delta"].get("content", "") for event in _events(text) for choice in event["choices"])


def _completion(text: str, *, stream: bool) -> str:
    if stream:
        _ends_with(text, "data: [DONE]")
    answers = _events(text) if stream else [json.loads(text)]
    return "".join(choice["text"] for answer in answers for choice in answer["choices"])


def _response(text: str, *, stream: bool) -> str:
    if stream:
        events = list(_events(text))
        assert events[-1]["type"] == "response.completed", events[-1]
        said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        whole = events[-1]["response"]
    else:
        whole = json.loads(text)
        said = ""
    assert whole["status"] == "completed", whole
    parts = "".join(part["text"] for item in whole["output"] for part in item.get("content") or ())
    assert said in ("", parts), (said, parts)
    return parts


def _message(text: str, *, stream: bool) -> str:
    if not stream:
        answer = json.loads(text)
        assert answer["stop_reason"] == "end_turn", answer
        return "".join(block["text"] for block in answer["content"])
    events = list(_events(text))
    assert events[-1]["type"] == "message_stop", events[-1]
    deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
    return "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")


def _vector(text: str, *, stream: bool) -> str:
    return str(json.loads(text)["data"][0]["embedding"])


def _ollama(said: Callable[[Json], str]) -> Callable[..., str]:
    def read(text: str, *, stream: bool) -> str:
        answers = list(_lines(text))
        assert answers[-1]["done"], answers[-1]
        return "".join(said(answer) for answer in answers)

    return read


@dataclass(frozen=True)
class Way:
    """One way to ask: where, with which body for a prompt, and where the answer is. Some say nothing in streams."""

    path: str
    body: Callable[[str], Json]
    read: Callable[..., str]
    streams: bool = True
    embeds: bool = False

    def answer_to(self, prompt: str) -> str:
        """What the fake Ollama makes of it."""
        return str(vectors_of([prompt])[0]) if self.embeds else prompt.removeprefix("!say ")


def _turns(prompt: str) -> Json:
    return {"messages": [{"role": "user", "content": prompt}]}


WAYS: Final = (
    Way("/v1/chat/completions", _turns, _chat),
    Way("/v1/completions", lambda prompt: {"prompt": prompt}, _completion),
    Way("/v1/embeddings", lambda prompt: {"input": prompt}, _vector, streams=False, embeds=True),
    Way("/v1/responses", lambda prompt: {"input": prompt}, _response),
    Way("/v1/messages", lambda prompt: _turns(prompt) | {"max_tokens": 500}, _message),
    Way("/api/chat", lambda prompt: _turns(prompt) | {"model": MODEL}, _ollama(lambda one: one["message"]["content"])),
    Way("/api/generate", lambda prompt: {"model": MODEL, "prompt": prompt}, _ollama(lambda one: one["response"])),
)


@dataclass
class Honest:
    """The client. ``answered`` counts right answers by path; ``longest`` is the most seconds that one took."""

    url: str
    answered: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    longest: float = 0.0
    _asked: int = 0

    @property
    def ways(self) -> list[tuple[Way, bool]]:
        """Every way whose route is there, and whether the answer is to be streamed."""
        there = {route.path for route in ROUTES}
        return [(way, stream) for way in WAYS if way.path in there for stream in (False, True)[: 1 + way.streams]]

    async def run(self, *, rounds: int | None = None) -> None:
        """Ask in each way, for so many rounds or until cancelled; a wrong answer is a fault, and it goes on."""
        async with httpx.AsyncClient(base_url=self.url, timeout=LIMIT, trust_env=False) as http:
            while rounds is None or rounds > 0:
                for way, stream in self.ways:
                    await self._ask(http, way, stream=stream)
                    await trio.sleep(PAUSE)
                rounds = None if rounds is None else rounds - 1

    async def _ask(self, http: httpx.AsyncClient, way: Way, *, stream: bool) -> None:
        self._asked += 1
        prompt = f"!say canary {self._asked}, twice: {self._asked} é"
        request_id = f"honest-{self._asked}"
        body = way.body(prompt) | ({"stream": stream} if way.streams else {})
        began = time.monotonic()
        try:
            answer = await http.post(way.path, json=body, headers={"X-Request-Id": request_id})
            assert answer.status_code == 200, f"{answer.status_code} {answer.text[:300]}"
            assert answer.headers["X-Request-Id"] == request_id, answer.headers
            said = way.read(answer.text, stream=stream)
            assert said == way.answer_to(prompt), said
        except (httpx.HTTPError, AssertionError, LookupError, ValueError) as error:
            self.faults.append(f"{way.path}, {'streamed' if stream else 'whole'}: {error!r}"[:1000])
            await trio.sleep(0.1)  # a service that is gone is no reason to spin
        else:
            self.answered[way.path] = self.answered.get(way.path, 0) + 1
        self.longest = max(self.longest, time.monotonic() - began)
