"""A model that takes no time but what it is told to: Ollama's native API, as fast as Python has it.

``python -m tests.bench.engine`` listens on a free port, and says so. ``GET /_log`` tells when each request for model
work arrived and when its answer ended, in seconds of the system's monotonic clock, which all processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections.abc import Coroutine
from typing import Final

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_NOTHING: Final = re.compile(rb'"messages": ?\[\]')
_WHOLE: Final = re.compile(rb'"stream": ?false')
_MODEL: Final = {"name": "fake", "model": "fake", "digest": "sha", "modified_at": "2026-01-01T00:00:00Z", "size": 1}
_QUESTIONS: Final[dict[str, dict[str, object]]] = {
    "/api/version": {"version": "0.33.3"},
    "/api/tags": {"models": [_MODEL]},
    "/api/show": {
        "capabilities": ["completion", "tools"],
        "model_info": {"general.architecture": "fake", "fake.context_length": 131072},
        "details": {},
    },
}


class Engine:
    """What all connections share. ``seconds`` pass before an answer, and ``rate`` tokens come in a second (0: all at
    once); an answer has ``tokens`` of them. The first request of all takes ``first`` seconds more.
    """

    def __init__(self, seconds: float, tokens: int, rate: float, first: float) -> None:
        self.seconds = seconds
        self.first = first
        self.tokens = tokens
        self.rate = rate
        self.num_ctx = 8192
        self.arrivals: list[float] = []
        self.ends: list[float] = []
        self.running = 0
        self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side closes it."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                path = head.split(b" ", 2)[1].decode()
                await self._unless_left(reader, self._answer(path, body, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _unless_left(self, reader: asyncio.StreamReader, work: Coroutine[None, None, None]) -> None:
        """Do the work, and give it up when the caller closes its side, as Ollama does."""
        working, left = asyncio.create_task(work), asyncio.create_task(reader.read(1))
        await asyncio.wait((working, left), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            left.cancel()
            await asyncio.wait((left,))  # it reads until then, and a second reader would be an error
            await working
            return
        working.cancel()
        raise ConnectionResetError

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/_log":
            self._whole(writer, {"arrivals": self.arrivals, "ends": self.ends, "most": self.most})
        elif path == "/api/ps":
            self._whole(writer, {"models": [_MODEL | {"context_length": self.num_ctx}]})
        elif path in _QUESTIONS:
            self._whole(writer, _QUESTIONS[path])
        elif _NOTHING.search(body):
            self._whole(writer, {"model": "fake", "done": True, "done_reason": "load"})
        else:
            await self._work(body, writer)

    async def _work(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.arrivals.append(time.monotonic())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            wait = self.seconds + (self.first if len(self.arrivals) == 1 else 0)
            if wait:
                await asyncio.sleep(wait)
            if _WHOLE.search(body):
                self._whole(writer, self._last("x" * self.tokens))
                return
            await self._stream(writer)
        finally:
            self.running -= 1
            self.ends.append(time.monotonic())

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        line = json.dumps({"model": "fake", "message": {"role": "assistant", "content": "x "}, "done": False})
        token = _chunk(line.encode() + b"\n")
        if self.rate:
            begun = time.monotonic()
            for number in range(self.tokens):
                writer.write(token)
                await asyncio.sleep(max(0.0, begun + (number + 1) / self.rate - time.monotonic()))
                if writer.is_closing():
                    raise ConnectionResetError
        else:
            for _ in range(self.tokens):
                writer.write(token)
                await writer.drain()
        writer.write(_chunk(json.dumps(self._last("")).encode() + b"\n") + b"0\r\n\r\n")

    def _last(self, text: str) -> dict[str, object]:
        return {
            "model": "fake",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 10,
            "eval_count": self.tokens,
            "load_duration": 1_000_000,
        }

    def _whole(self, writer: asyncio.StreamWriter, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def run(engine: Engine) -> None:
    """Listen until cancelled."""
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Run one until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--first", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(run(Engine(given.seconds, given.tokens, given.rate, given.first)))


if __name__ == "__main__":
    main()
