"""The same request, sent to a real Ollama and through the line, is answered alike.

But for times, for the ids of tool calls, and for the context that a model is said to have. What differs beside these is
listed with its reason.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Service
from tests.real.ollama import FIRST, RealOllama

TIMES = {"created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
EXACT = {"temperature": 0, "seed": 7, "num_predict": 4, "num_ctx": 2048}
HI = [{"role": "user", "content": "Hi"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Count to three."},
    {"role": "assistant", "content": "One, two, three."},
    {"role": "user", "content": "Go on."},
]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "enum": [4]}}, "required": ["n"]}
CALLS = [
    *HI,
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": {"a": [1, {"b": 1.5}]}}}],
    },
    {"role": "tool", "content": "a garden", "tool_name": "look", "tool_call_id": "c"},
    {"role": "user", "content": "What is there?"},
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def chat(**fields: Any) -> tuple[str, Any]:
    return "/api/chat", {"model": FIRST, "messages": HI, "options": EXACT} | fields


def generate(**fields: Any) -> tuple[str, Any]:
    return "/api/generate", {"model": FIRST, "prompt": "Once upon a", "options": EXACT} | fields


def options(**given: Any) -> dict[str, Any]:
    return {"options": EXACT | given}


WHOLE: dict[str, Any] = {"stream": False}

ANSWERED: dict[str, tuple[str, Any]] = {
    # chats
    "a chat": chat(),
    "a whole chat": chat(**WHOLE),
    "stream null": chat(stream=None),
    "stream true": chat(stream=True),
    "a longer talk": chat(messages=TALK),
    "a longer talk, whole": chat(messages=TALK, **WHOLE),
    "roles in capitals": chat(messages=[{"role": "USER", "content": "Hi"}], **WHOLE),
    "no role": chat(messages=[{"content": "Hi"}], **WHOLE),
    "content null": chat(messages=[{"role": "user", "content": None}], **WHOLE),
    "content absent": chat(messages=[{"role": "user"}], **WHOLE),
    "unicode": chat(messages=[{"role": "user", "content": "日本語 \U0001f600 é \u0000 \n\t"}], **WHOLE),
    "thinking in an earlier turn": chat(messages=[*HI, {"role": "assistant", "content": "a", "thinking": "hm"}, *HI]),
    "calls and their results": chat(messages=CALLS, **WHOLE),
    "think false": chat(think=False, **WHOLE),
    "think null": chat(think=None, **WHOLE),
    "tools empty": chat(tools=[], **WHOLE),
    "logprobs": chat(logprobs=True, **WHOLE),
    "logprobs, streamed": chat(logprobs=True),
    "logprobs of others": chat(logprobs=True, top_logprobs=3, **WHOLE),
    "logprobs of others, streamed": chat(logprobs=True, top_logprobs=2),
    "a chat in any JSON": chat(format="json", **WHOLE),
    "a chat by a schema": chat(format=SCHEMA, **WHOLE, **options(num_predict=20)),
    "a chat by a schema, streamed": chat(format=SCHEMA, **options(num_predict=20)),
    "format empty": chat(format="", **WHOLE),
    "format null": chat(format=None, **WHOLE),
    "stop": chat(**WHOLE, **options(stop=["phrase", "x"], num_predict=9)),
    "stop empty": chat(**WHOLE, **options(stop=[])),
    "sampled": chat(**WHOLE, **options(temperature=1.3, top_k=5, top_p=0.9, min_p=0.01, repeat_penalty=1.2)),
    "penalties": chat(**WHOLE, **options(frequency_penalty=0.5, presence_penalty=0.5, repeat_last_n=8)),
    "a seed with a point": chat(**WHOLE, **options(seed=7.9)),
    "options that there are not": chat(**WHOLE, **options(mirostat=2, penalize_newline=True, nonsense=[1])),
    "options null": chat(**WHOLE, **options(top_k=None)),
    "keep_alive as a number": chat(keep_alive=300, **WHOLE),
    "keep_alive for ever": chat(keep_alive=-1, **WHOLE),
    "keep_alive as a duration": chat(keep_alive="10m", **WHOLE),
    "keep_alive null": chat(keep_alive=None, **WHOLE),
    "truncate": chat(truncate=True, **WHOLE),
    "fields that there are not": chat(nonsense={"a": 1}, priority_of_mine=3, **WHOLE),
    # texts
    "a text": generate(),
    "a whole text": generate(**WHOLE),
    "a raw text": generate(raw=True),
    "a raw text, whole": generate(raw=True, **WHOLE),
    "a text with a system": generate(system="Be brief.", **WHOLE),
    "a text with a template": generate(template="{{ .System }}>{{ .Prompt }}<", system="S", **WHOLE),
    "a text that goes on": generate(context=[1, 4093, 198, 26843, 2, 198], **WHOLE),
    "a text in any JSON": generate(format="json", **WHOLE),
    "a text by a schema": generate(format=SCHEMA, **options(num_predict=20)),
    "logprobs of a text": generate(logprobs=True, top_logprobs=1, **WHOLE),
    "logprobs of a text, streamed": generate(logprobs=True),
    "suffix empty": generate(suffix="", **WHOLE),
    "a text that stops": generate(raw=True, **WHOLE, **options(stop=["time", " "])),
    "unicode in a text": generate(prompt="日本語 \U0001f600", raw=True),
    # loads
    "a load by a chat": ("/api/chat", {"model": FIRST, "messages": [], "options": {"num_ctx": 2048}}),
    "a load without messages": ("/api/chat", {"model": FIRST, "stream": True, "options": {"num_ctx": 2048}}),
    "a load by a text": ("/api/generate", {"model": FIRST, "options": {"num_ctx": 2048}}),
    "a load by an empty text": ("/api/generate", {"model": FIRST, "prompt": "", "options": {"num_ctx": 2048}}),
    "a load by an embed": ("/api/embed", {"model": FIRST, "options": {"num_ctx": 2048}}),
    "a load by an embed of nothing": ("/api/embed", {"model": FIRST, "input": [], "options": {"num_ctx": 2048}}),
    "a load by the older embeddings": ("/api/embeddings", {"model": FIRST, "options": {"num_ctx": 2048}}),
    # refusals in Ollama's own words
    "no body": ("/api/chat", b""),
    "no body of a text": ("/api/generate", b" "),
    "no body of an embed": ("/api/embed", b""),
    "no body of the older embeddings": ("/api/embeddings", b""),
    "no model of a chat": ("/api/chat", {"messages": HI}),
    "no model of a text": ("/api/generate", {"prompt": "a"}),
    "no model of an embed": ("/api/embed", {"input": "a"}),
    "no model of the older embeddings": ("/api/embeddings", {"prompt": "a"}),
    "a model that there is not": ("/api/chat", {"model": "nope", "messages": HI}),
    "a model that there is not, for a text": ("/api/generate", {"model": "nope", "prompt": "a"}),
    "a model that there is not, for an embed": ("/api/embed", {"model": "nope:x", "input": "a"}),
    "a model that there is not, for the older embeddings": ("/api/embeddings", {"model": "nope", "prompt": "a"}),
    "think where there is none": chat(think=True),
    "think high where there is none": chat(think="high", **WHOLE),
    "think at an effort that there is not": chat(think="xhigh"),
    "think at no effort": chat(think=""),
    "think as a number": chat(think=3),
    "tools where there are none": chat(tools=[TOOL]),
    "too many logprobs": chat(logprobs=True, top_logprobs=30),
    "a suffix where there is none": generate(suffix="b"),
    "raw with a system": generate(raw=True, system="b"),
    "raw with a context": generate(raw=True, context=[1]),
    "texts to embed that are none": ("/api/embed", {"model": FIRST, "input": [1]}),
    "show": ("/api/show", {"model": "nope"}),
    "show nothing": ("/api/show", {}),
    "show without a body": ("/api/show", b""),
    "an image in a data URL": chat(messages=[{"role": "user", "images": ["=" + PIXEL]}]),
}  # fmt: skip
"""Requests that are answered alike."""

LIBERTIES: dict[str, tuple[str, Any]] = {
    "keys in other cases": ("/api/chat", b'{"Model":"%b","MESSAGES":[{"Role":"USER","Content":"Hi"}],"stream":false,'
                            b'"options":{"num_predict":2,"num_ctx":2048,"temperature":0}}' % FIRST.encode()),
    "a second value": ("/api/chat", b'{"model":"%b","messages":[{"content":"Hi"}],"stream":false,'
                       b'"options":{"num_predict":2,"num_ctx":2048,"temperature":0}}{"model":3' % FIRST.encode()),
}  # fmt: skip

DIFFERENT: dict[str, tuple[tuple[str, Any], int, int, str]] = {
    "a format that is none": (chat(format="xml"), 500, 400, "the caller's fault is a 4xx"),
    "an option of a wrong type": (chat(**options(temperature="hot")), 500, 400, "the same"),
    "stop as a text": (chat(**WHOLE, **options(stop="x")), 500, 200, "OpenAI's form is read as well"),
    "a list as content": (chat(messages=[{"role": "user", "content": [{"type": "text"}]}]), 400, 400, "named"),
    "arguments as a text": (
        chat(messages=[{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]), 400, 400, "named"),
    "no JSON": (("/api/chat", b"{bad"), 400, 400, "other words"),
    "keep_alive without a unit": (chat(keep_alive="-1"), 400, 400, "its field is named"),
    "an image for a model that reads": (
        chat(messages=[{"role": "user", "content": "Hi", "images": [PIXEL]}]), 400, 400, "no JSON in JSON"),
    "an image for a text": (generate(images=[PIXEL]), 400, 400, "no JSON in JSON"),
    "a data URL": (
        chat(messages=[{"role": "user", "images": ["data:image/png;base64," + PIXEL]}]), 400, 400, "says what to send"),
    "an embed of a model that chats": (("/api/embed", {"model": FIRST, "input": "a", **options()}), 501, 400, "as all"),
    "the older embed of it": (("/api/embeddings", {"model": FIRST, "prompt": "a", **options()}), 500, 400, "as all"),
    "an address that there is not": (("/api/nothing", {}), 404, 404, "in JSON"),
}  # fmt: skip
"""Requests whose answers differ: the status that Ollama gives, the line's, and how they differ and why."""


def ask(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(path, content=content, headers={"content-type": "application/x-www-form-urlencoded"})


def plain(answer: httpx.Response) -> tuple[int, str, list[Any]]:
    """Status, media type and lines, without what may differ."""
    media_type = answer.headers["content-type"].partition(";")[0]
    return answer.status_code, media_type, [without_times(json.loads(line)) for line in answer.text.split("\n") if line]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if name not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


@pytest.fixture
def direct(ollama: RealOllama) -> Any:
    with httpx.Client(base_url=ollama.url, timeout=120, trust_env=False) as http:
        yield http


def test_there_are_enough_of_them() -> None:
    assert len(ANSWERED) + len(LIBERTIES) >= 60


def test_requests_are_answered_as_ollama_answers_them(direct: httpx.Client, service: Service) -> None:
    different = []
    for name, (path, body) in (ANSWERED | LIBERTIES).items():
        ask(direct, path, body)  # so that both find the same in the cache of prompts
        expected = plain(ask(direct, path, body))
        got = plain(ask(service.http, path, body))
        if got != expected:
            different.append(f"{name}\n  ollama {expected}\n  line   {got}")
    assert not different, "\n".join(different)


def test_requests_that_are_answered_in_another_way(direct: httpx.Client, service: Service) -> None:
    for name, ((path, body), expected, ours, _) in DIFFERENT.items():
        assert ask(direct, path, body).status_code == expected, name
        answer = ask(service.http, path, body)
        assert answer.status_code == ours, (name, answer.text)
        for line in answer.text.split("\n")[:-1]:
            assert isinstance(json.loads(line).get("error", ""), str), name
