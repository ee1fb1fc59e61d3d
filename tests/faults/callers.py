"""Callers, one for each dialect: what they ask, and what they make of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import h11
import trio

from llm_queue.errors import ModelNotFound, QueueError

JsonObject = dict[str, Any]


@dataclass
class Reply:
    """What came back. ``complete`` is false if the connection broke off before the answer's own end."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    def events(self) -> Iterator[JsonObject]:
        """The JSON of its server-sent events."""
        for event in self.body.decode().split("\n\n"):
            for line in event.splitlines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))


@dataclass(frozen=True)
class Heard:
    """What a client of the dialect makes of a reply: the text, whether it ended well, and the name of the error."""

    text: str
    ended: bool
    error: str | None


@dataclass(frozen=True)
class Dialect:
    """``whole`` and ``stream`` read a reply with status 200, and ``refused`` one with another. ``error_name`` is what
    the dialect has for an error: by our class, the status that it has outside of a stream, and our message.
    """

    name: str
    path: str
    ask: Callable[[str, str], JsonObject]
    whole: Callable[[JsonObject], str]
    stream: Callable[[Reply], Heard]
    refused: Callable[[JsonObject], str]
    error_name: Callable[[type[QueueError], int, str], str]

    def heard(self, reply: Reply, *, streamed: bool) -> Heard:
        if reply.status != 200:
            return Heard("", ended=False, error=self.refused(json.loads(reply.body)))
        if streamed:
            return self.stream(reply)
        return Heard(self.whole(json.loads(reply.body)), ended=True, error=None)


async def ask(port: int, dialect: Dialect, model: str, prompt: str, *, stream: bool) -> Reply:
    """Ask on a connection of its own, and read to its end."""
    body = json.dumps(dialect.ask(model, prompt) | {"stream": stream}).encode()
    head = (
        f"POST {dialect.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-LLM-Queue-Client: faults\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    http, reply = h11.Connection(h11.CLIENT), Reply()
    async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
        http.send(h11.Request(method="POST", target=dialect.path, headers=[("Host", "x"), ("Content-Length", "0")]))
        http.send(h11.EndOfMessage())
        await connection.send_all(head.encode() + body)
        while not reply.complete:
            event = http.next_event()
            match event:
                case h11.Response():
                    reply.status = event.status_code
                    reply.headers = {name.decode(): value.decode() for name, value in event.headers}
                case h11.Data():
                    reply.body += event.data
                case h11.EndOfMessage():
                    reply.complete = True
                case h11.NEED_DATA:
                    http.receive_data(bytes(await connection.receive_some(65536)))
    return reply


# --- the dialects -----------------------------------------------------------------------------------------------------


def _messages(model: str, prompt: str) -> JsonObject:
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


def _chat_stream(reply: Reply) -> Heard:
    text, error = "", None
    for event in reply.events():
        if "error" in event:
            error = event["error"]["code"]
        for choice in event.get("choices", ()):
            text += choice["delta"].get("content") or ""
            assert error is None, "after the error comes nothing"
    return Heard(text, b"data: [DONE]" in reply.body, error)


def _messages_stream(reply: Reply) -> Heard:
    text, ended, error = "", False, None
    for event in reply.events():
        assert error is None, "after the error comes nothing"
        if event["type"] == "error":
            error = event["error"]["type"]
        elif event["type"] == "content_block_delta":
            text += event["delta"]["text"]
        ended = ended or event["type"] == "message_stop"
    return Heard(text, ended, error)


def _responses_stream(reply: Reply) -> Heard:
    text, ended, error = "", False, None
    for number, event in enumerate(reply.events()):
        assert error is None, "after the error comes nothing"
        assert event["sequence_number"] == number
        if event["type"] == "response.failed":
            error = event["response"]["error"]["type"]
        elif event["type"] == "response.output_text.delta":
            text += event["delta"]
        ended = ended or event["type"] in ("response.completed", "response.incomplete")
    return Heard(text, ended, error)


def _lines(reply: Reply) -> Heard:
    text, ended, error = "", False, None
    for line in reply.body.splitlines():
        said = json.loads(line)
        assert error is None, "after the error comes nothing"
        error = said.get("error")
        text += said.get("message", {}).get("content", "")
        ended = ended or said.get("done", False)
    return Heard(text, ended, error)


def _code(error: type[QueueError], _status: int, _message: str) -> str:
    return error.code


def _anthropic(_error: type[QueueError], status: int, _message: str) -> str:
    names = {404: "not_found_error", 429: "rate_limit_error", 504: "timeout_error"}
    return names.get(status, "api_error")


CHAT: Final = Dialect(
    "OpenAI chat",
    "/v1/chat/completions",
    _messages,
    lambda said: said["choices"][0]["message"]["content"],
    _chat_stream,
    lambda said: said["error"]["code"],
    _code,
)
MESSAGES: Final = Dialect(
    "Anthropic Messages",
    "/v1/messages",
    lambda model, prompt: _messages(model, prompt) | {"max_tokens": 100},
    lambda said: said["content"][0]["text"],
    _messages_stream,
    lambda said: said["error"]["type"],
    _anthropic,
)
RESPONSES: Final = Dialect(
    "OpenAI Responses",
    "/v1/responses",
    lambda model, prompt: {"model": model, "input": prompt},
    lambda said: said["output"][0]["content"][0]["text"],
    _responses_stream,
    lambda said: said["error"]["code"],
    _code,
)

OLLAMA: Final = Dialect(
    "Ollama",
    "/api/chat",
    _messages,
    lambda said: said["message"]["content"],
    _lines,
    lambda said: said["error"],
    lambda error, _, message: "model 'alpha' not found" if error is ModelNotFound else message,
)

DIALECTS: Final = (CHAT, MESSAGES, RESPONSES, OLLAMA)
