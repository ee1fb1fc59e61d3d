"""What the faulty server says, byte for byte, in each of the two dialects of upstreams."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from tests.faults.matrix import HALF, WHOLE

TOKENS = [word + " " for word in WHOLE.split()[:-1]] + [WHOLE.split()[-1]]
END = b"0\r\n\r\n"
CUT = b"40\r\n{"
"""The beginning of a chunk, of which no more comes."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body: object, status: int = 200) -> bytes:
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(data)) + data


def streaming(content_type: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % content_type


class Holds(Protocol):
    """What a wire must know of its server: the models that there are, and, by name, the context of those loaded."""

    models: list[str]
    resident: dict[str, int]
    in_flight: int


class Wire(Protocol):
    head: bytes
    garbage: bytes
    keeps: bool
    """True if a connection serves more than one request."""

    @property
    def half(self) -> bytes:
        """A piece with the first part of an answer."""

    def error(self, text: str) -> bytes:
        """An error in a stream, and the stream's end."""

    def refusal(self, status: int, text: str) -> bytes:
        """An answer with that status."""

    def whole(self, tokens: Iterable[str]) -> bytes:
        """Pieces with these tokens, and the true end, without the head."""

    def question(self, path: str, body: dict[str, Any], held: Holds) -> bytes | None:
        """The answer to a question; None for model work."""

    def loads(self, body: dict[str, Any]) -> bool:
        """True if that work is no more than a load."""


class OllamaWire:
    head = streaming(b"application/x-ndjson")
    garbage = chunk(b"<html>this is not JSON</html>\n") + END
    keeps = True

    @property
    def half(self) -> bytes:
        return self._line({"content": HALF})

    def error(self, text: str) -> bytes:
        return chunk(json.dumps({"error": text}).encode() + b"\n") + END

    def refusal(self, status: int, text: str) -> bytes:
        return answer({"error": text}, status)

    def whole(self, tokens: Iterable[str]) -> bytes:
        said = b"".join(self._line({"content": token}) for token in tokens)
        return said + self._line({"content": ""}, done=True, done_reason="stop", eval_count=3) + END

    def question(self, path: str, body: dict[str, Any], held: Holds) -> bytes | None:
        match path:
            case "/api/version":
                return answer({"version": "0.33.0"})
            case "/api/tags":
                return answer({"models": [{"name": f"{name}:latest", "digest": name} for name in held.models]})
            case "/api/show":
                return answer({"capabilities": ["completion"]})
            case "/api/ps":
                loaded = held.resident.items()
                return answer({"models": [{"name": n, "digest": n, "context_length": size} for n, size in loaded]})
        model = body["model"].removesuffix(":latest")
        if model not in held.models:
            return answer({"error": f"model '{model}' not found"}, 404)
        return None

    def loads(self, body: dict[str, Any]) -> bool:
        return not body["messages"]

    def _line(self, message: dict[str, str], **end: object) -> bytes:
        return chunk(json.dumps({"message": {"role": "assistant"} | message, "done": False} | end).encode() + b"\n")


class OpenAIWire:
    head = streaming(b"text/event-stream")
    garbage = chunk(b"data: <html>this is not JSON</html>\n\n") + END
    keeps = False

    @property
    def half(self) -> bytes:
        return self._event({"delta": {"content": HALF}})

    def error(self, text: str) -> bytes:
        return chunk(b"data: " + json.dumps({"error": {"message": text}}).encode() + b"\n\n") + END

    def refusal(self, status: int, text: str) -> bytes:
        return answer({"error": {"message": text}}, status)

    def whole(self, tokens: Iterable[str]) -> bytes:
        said = b"".join(self._event({"delta": {"content": token}}) for token in tokens)
        return said + self._event({"delta": {}, "finish_reason": "stop"}) + chunk(b"data: [DONE]\n\n") + END

    def question(self, path: str, body: dict[str, Any], held: Holds) -> bytes | None:
        if path == "/v1/models":
            return answer({"object": "list", "data": [{"id": name} for name in held.models]})
        if path == "/slots":
            return answer([{"id": 0, "is_processing": held.in_flight > 0}])
        if body["model"] not in held.models:
            return self.refusal(404, f"The model `{body['model']}` does not exist.")
        return None

    def loads(self, body: dict[str, Any]) -> bool:
        return False

    def _event(self, choice: dict[str, Any]) -> bytes:
        return chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
