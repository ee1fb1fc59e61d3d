"""Services that say what a test wants, and streams that are what a test wants."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from llm_queue.settings import Settings
from llm_queue.terminal.desk import Asked
from llm_queue.terminal.run import run

DOCS = Path(__file__).resolve().parents[2] / "docs"
LINE: dict[str, Any] = json.loads((DOCS / "terminal_line.json").read_text(encoding="utf-8"))
"""What a service with everything says of its line, in the words of the contract."""
JOB: dict[str, Any] = json.loads((DOCS / "terminal_job.json").read_text(encoding="utf-8"))
MODELS = {
    "data": [
        {"id": "granite4.1:8b", "context_length": 8192, "meta": {"n_ctx_train": 131072}},
        {"id": "qwen3-coder:30b", "context_length": 32768},
    ]
}
READY = {"ready": True}


class Stream(io.TextIOWrapper):
    """A stream of text that may be a terminal."""

    def __init__(self, text: str = "", *, terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(text.encode(encoding)), encoding=encoding, newline="\n", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


Answer = httpx.Response | Callable[[httpx.Request], httpx.Response] | dict[str, Any]


class FakeService:
    """Answers by method and path, and remembers what it was asked. What it has not is 404, as with an older service."""

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self.answers: dict[str, Answer] = {
            "GET /ready": READY,
            "GET /queue": LINE,
            "GET /v1/models": MODELS,
            f"GET /queue/jobs/{JOB['job']}": JOB,
            **(answers or {}),
        }
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(f"{request.method} {request.url.path}")
        if answer is None:
            text = "There is no such job." if "/jobs/" in request.url.path else "There is nothing at this address."
            return httpx.Response(404, json={"error": {"message": text, "code": "not_found"}})
        if isinstance(answer, dict):
            return httpx.Response(200, json=answer)
        return answer if isinstance(answer, httpx.Response) else answer(request)

    @property
    def asked(self) -> list[str]:
        return [f"{one.method} {one.url.path}" for one in self.requests]

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


class Ran:
    """What one command said, and its exit code."""

    def __init__(
        self,
        command: str,
        *words: str,
        service: FakeService | None = None,
        settings: Settings | None = None,
        environ: Mapping[str, str] | None = None,
        terminal: bool = False,
        encoding: str = "utf-8",
        stdin: str | None = None,
        **asked: Any,
    ) -> None:
        self.service = service or FakeService()
        self.streams = [Stream(terminal=terminal, encoding=encoding) for _ in range(2)]
        self.code = run(
            command,
            settings or Settings(),
            Asked(words, **asked),
            environ or {},
            out=self.streams[0],
            err=self.streams[1],
            stdin=Stream(stdin or "", terminal=stdin is None),
            transport=self.service.transport,
        )

    @property
    def out(self) -> str:
        return self.streams[0].text

    @property
    def err(self) -> str:
        return self.streams[1].text


def refuse(_request: httpx.Request) -> httpx.Response:
    """Nobody listens there."""
    raise httpx.ConnectError("refused")


NOBODY: dict[str, Answer] = {"GET /ready": refuse}
