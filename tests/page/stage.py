"""A service that shows what it is told to: the page's own files, and scripted JSON behind them, over real HTTP."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llm_queue.web.page import ADDRESS, FILES, INDEX, page_headers

State = dict[str, Any]


class Stage:
    """What the page sees. ``show`` changes it for every page that watches."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.key: str | None = None
        self.reports: dict[str, State] = {}
        self.answers: dict[str, tuple[int, State]] = {}
        """What commands get, by path; without one, 200 and an empty object."""
        self.commands: list[tuple[str, State]] = []
        self.asked: list[str] = []
        self.last_ids: list[str | None] = []
        """``Last-Event-ID`` of each stream that was asked for."""
        self.away = False
        self.url = ""
        self._number = 0
        self._watching: list[queue.Queue[bytes | None]] = []
        self._lock = threading.Lock()

    def show(self, state: State) -> None:
        """Send ``state`` to all who watch."""
        with self._lock:
            self.state = state
            self._number += 1
            for one in self._watching:
                one.put(self._event("change"))

    def asked_about(self) -> list[str]:
        """The jobs that were asked about, in order of their names."""
        return sorted(path.rpartition("/")[2] for path in self.asked if path.startswith("/queue/jobs/"))

    def hang_up(self) -> None:
        """End every stream, and let nobody in while ``away``."""
        with self._lock:
            for one in self._watching:
                one.put(None)

    def watch(self, last_id: str | None) -> queue.Queue[bytes | None]:
        """A new stream, with its snapshot in it; or a comment for one that has had the event of ``last_id``, if that is
        the latest.
        """
        stream: queue.Queue[bytes | None] = queue.Queue()
        with self._lock:
            self.last_ids.append(last_id)
            stream.put(b": here\n\n" if last_id == str(self._number) else self._event("snapshot"))
            self._watching.append(stream)
        return stream

    def leave(self, stream: queue.Queue[bytes | None]) -> None:
        """It is over."""
        with self._lock:
            self._watching.remove(stream)

    def _event(self, name: str) -> bytes:
        return f"id: {self._number}\nevent: {name}\ndata: {json.dumps(self.state)}\n\n".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stage: Stage

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = INDEX if path in ("/", ADDRESS) else path.removeprefix(f"{ADDRESS}/")
        if name in FILES:
            file = FILES[name]
            self._answer(200, file.body, {"Content-Type": file.media_type, **page_headers(file)})
        elif self._let_in():
            self.stage.asked.append(path)
            if path == "/queue/events":
                self._stream()
            elif path.startswith("/queue/jobs/"):
                report = self.stage.reports.get(path.rpartition("/")[2])
                self._json(404 if report is None else 200, report or {"error": {"message": "There is no such job."}})
            else:
                self._json(404, {"error": {"message": "Nothing is here."}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._let_in():
            self.stage.commands.append((self.path, json.loads(body)))
            self._json(*self.stage.answers.get(self.path, (200, {})))

    def _let_in(self) -> bool:
        if self.stage.away:
            self._json(503, {"error": {"message": "The service is shutting down."}})
            return False
        if self.stage.key is not None and self.headers["Authorization"] != f"Bearer {self.stage.key}":
            self._json(401, {"error": {"message": "The API key is missing or wrong."}})
            return False
        return True

    def _stream(self) -> None:
        stream = self.stage.watch(self.headers["Last-Event-ID"])
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while (event := stream.get()) is not None:
                self.wfile.write(event)
                self.wfile.flush()
        except OSError:
            pass  # the page has gone
        finally:
            self.stage.leave(stream)

    def _json(self, status: int, body: State) -> None:
        self._answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a stream that nobody reads may hold its thread

    def handle_error(self, *arguments: object) -> None:
        return  # a page that closes its connection is no error


@contextmanager
def playing(stage: Stage) -> Iterator[Stage]:
    """The stage on a free port of this machine."""
    handler = type("Handler", (_Handler,), {"stage": stage})
    with _Server(("127.0.0.1", 0), handler) as server:
        stage.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield stage
        finally:
            stage.hang_up()
            server.shutdown()
            thread.join()
