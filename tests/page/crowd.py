"""Programs that ask a real service, and hold their connections while they wait."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Self

from llm_queue.descriptors import raise_limit
from llm_queue.dispatch.fingerprints import FIRST_MARK
from tests.e2e.conftest import Service, until

PROGRAMS = (
    ("Open WebUI", "interactive", "granite4.1:8b"),
    ("mail-sorter.py", "normal", "granite4.1:8b"),
    ("Zed", "interactive", "qwen3-coder:30b"),
    ("nightly-index.py", "background", "granite4.1:8b"),
    ("reader extension", "interactive", "granite4.1:8b"),
    ("Claude Code", "normal", "qwen3-coder:30b"),
)
"""A name, a lane and a model each."""

COMING = (0, 1, 3, 4, 5, 3, 2, 3, 1, 3, 5, 3)
"""Which of them comes next: few who are waited for, and many in the background."""

MODELS = ("granite4.1:8b", "qwen3-coder:30b")
LONG = "!slow 0.05 !tokens 6000 #"
"""A question whose answer takes five minutes."""


class Crowd:
    """Connections on which somebody waits. They are closed with it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sockets: list[socket.socket] = []
        raise_limit(10_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._sockets:
            one.close()

    def ask(self, client: str, lane: str, model: str, prompt: str = LONG) -> None:
        """One question more, whose answer nobody reads."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-LLM-Queue-Client: {client}\r\n"
            f"X-LLM-Queue-Lane: {lane}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self._service.port))
        connection.sendall(head.encode() + body)
        self._sockets.append(connection)

    def run_one(self) -> None:
        """One job gets the slot, and has begun to answer."""
        self.ask("Claude Code", "interactive", MODELS[0])
        until(lambda: any(job.get("tokens") for job in self._service.line()["jobs"]))

    def wait(self, waiting: int) -> None:
        """So many wait behind it."""
        for number in range(waiting):
            client, lane, model = PROGRAMS[COMING[number % len(COMING)]]
            self.ask(client, lane, model)
            if number % 200 == 199:
                until(lambda: self._service.waiting() >= number - 100)  # noqa: B023  # it is asked now
        until(lambda: self._service.waiting() == waiting)


def have_history(service: Service) -> None:
    """Some jobs of each program have ended, both models were loaded, and prompts were found in the cache and not."""
    for number in range(24):
        client, lane, model = PROGRAMS[(number // 4) % len(PROGRAMS)]
        headers = {"X-LLM-Queue-Client": client, "X-LLM-Queue-Lane": lane}
        beginning = f"A conversation with {client}" + " word" * (FIRST_MARK // 4)
        if client == "nightly-index.py":  # as programs do that nobody has told what a cache wants
            beginning += f" {number} minutes past three"
        prompt = beginning + " word" * (100 + 20 * number) + f"\n!tokens {10 + number}"
        assert service.chat(prompt, headers, model=model).status_code == 200
