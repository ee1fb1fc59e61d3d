"""The dialects that callers speak, as bodies to send and answers to read.

A text is asked for in each of them with a ``secret``, which stands in front of the question where the dialect has a
place for it (a system message), and a ``question``, which steers the fake Ollama.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

Body = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One thing to ask for in one dialect.

    ``body`` makes a request of the model, the secret, the question and whether it is streamed. ``whole`` takes the text
    out of an answer's JSON; ``piece`` that of one event, and ``last`` says whether an event is the end of a stream that
    has come to its end. ``error`` is true for the JSON of an error of this dialect.
    """

    name: str
    path: str
    body: Callable[[str, str, str, bool], Body]
    whole: Callable[[Any], str]
    error: Callable[[Any], bool]
    piece: Callable[[Any], str] | None = None
    last: Callable[[Any], bool] = lambda event: False
    headers: tuple[tuple[str, str], ...] = ()
    lines: bool = False
    steered: bool = True
    """False where the fake does what it does whatever the question says."""

    def events(self, heard: bytes) -> Iterator[Any]:
        """The events of a stream; one that is no JSON as its text."""
        for raw in heard.split(b"\n"):
            line = raw.strip()
            if self.lines and line:
                yield json.loads(line)
            elif line.startswith(b"data:"):
                data = line[5:].strip()
                yield "[DONE]" if data == b"[DONE]" else json.loads(data)


def as_text(vector: list[float]) -> str:
    """A vector, in as many digits as survive its way."""
    return json.dumps([round(number, 5) for number in vector])


def _chat(secret: str, question: str) -> list[Body]:
    return [{"role": "system", "content": secret}, {"role": "user", "content": question}]


def _responses(model: str, secret: str, question: str, stream: bool) -> Body:
    return {"model": model, "instructions": secret, "input": question, "stream": stream, "store": False}


def _messages(model: str, secret: str, question: str, stream: bool) -> Body:
    asked = [{"role": "user", "content": question}]
    return {"model": model, "system": secret, "messages": asked, "stream": stream, "max_tokens": 500}


def _openai_error(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("error"), dict) and bool(answer["error"].get("message"))


def _anthropic_error(answer: Any) -> bool:
    return _openai_error(answer) and answer.get("type") == "error" and bool(answer["error"].get("type"))


def _responses_error(answer: Any) -> bool:
    if isinstance(answer, dict) and answer.get("type") in ("error", "response.failed"):
        return True
    return _openai_error(answer)


def _ollama_error(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("error"), str) and bool(answer["error"])


def _of_choice(part: str) -> Callable[[Any], str]:
    def text(answer: Any) -> str:
        return "".join(choice.get(part, {}).get("content") or "" for choice in answer["choices"])

    return text


def _delta(event: Any) -> str:
    return _of_choice("delta")(event) if isinstance(event, dict) and "choices" in event else ""


def _done(event: Any) -> bool:
    return bool(event == "[DONE]")


CHAT: Final = Kind(
    "chat",
    "/v1/chat/completions",
    lambda model, secret, question, stream: {"model": model, "messages": _chat(secret, question), "stream": stream},
    _of_choice("message"),
    _openai_error,
    _delta,
    _done,
)

COMPLETIONS: Final = Kind(
    "completions",
    "/v1/completions",
    lambda model, secret, question, stream: {"model": model, "prompt": question, "stream": stream, "max_tokens": 500},
    lambda answer: "".join(choice["text"] for choice in answer["choices"]),
    _openai_error,
    lambda event: "".join(choice.get("text", "") for choice in event.get("choices", ())) if event != "[DONE]" else "",
    _done,
)

RESPONSES: Final = Kind(
    "responses",
    "/v1/responses",
    _responses,
    lambda answer: "".join(
        part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"]
    ),
    _responses_error,
    lambda event: event.get("delta", "") if event.get("type") == "response.output_text.delta" else "",
    lambda event: event.get("type") == "response.completed",
)

MESSAGES: Final = Kind(
    "messages",
    "/v1/messages",
    _messages,
    lambda answer: "".join(part["text"] for part in answer["content"] if part["type"] == "text"),
    _anthropic_error,
    lambda event: event["delta"].get("text", "") if event.get("type") == "content_block_delta" else "",
    lambda event: event.get("type") == "message_stop",
    headers=(("anthropic-version", "2023-06-01"),),
)

EMBEDDINGS: Final = Kind(
    "embeddings",
    "/v1/embeddings",
    lambda model, secret, question, stream: {"model": model, "input": question, "encoding_format": "float"},
    lambda answer: as_text(answer["data"][0]["embedding"]),
    _openai_error,
    steered=False,
)

OLLAMA_CHAT: Final = Kind(
    "ollama chat",
    "/api/chat",
    lambda model, secret, question, stream: {"model": model, "messages": _chat(secret, question), "stream": stream},
    lambda answer: str(answer["message"]["content"]),
    _ollama_error,
    lambda event: event.get("message", {}).get("content", ""),
    lambda event: event.get("done") is True,
    lines=True,
)

OLLAMA_GENERATE: Final = Kind(
    "ollama generate",
    "/api/generate",
    lambda model, secret, question, stream: {"model": model, "system": secret, "prompt": question, "stream": stream},
    lambda answer: str(answer["response"]),
    _ollama_error,
    lambda event: event.get("response", ""),
    lambda event: event.get("done") is True,
    lines=True,
)

KINDS: Final = {
    kind.name: kind for kind in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE)
}
"""All there are. A service that does not have one of them answers 404 to it, which is said, and it is left out."""
