"""A Chromium with an extension in it, and what that reports."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.clients.install import CHROMIUM

EXTENSION = Path(__file__).parent / "extension"
PATIENCE = 150.0
"""Seconds after which a report that has not come never will: the slowest comes after two answers of 42 s each."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root has none of
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=DisableLoadExtensionCommandLineSwitch",
    "--host-resolver-rules=MAP page.example 127.0.0.1",
)


def chromium() -> str | None:
    """The command, if it is installed."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


class Reports:
    """What was reported, by name."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Any]] = {}
        self._more = threading.Condition()

    def add(self, name: str, seen: dict[str, Any]) -> None:
        """One came."""
        with self._more:
            self._seen[name] = seen
            self._more.notify_all()

    def wait_for(self, name: str) -> dict[str, Any]:
        """The report of that name, come or to come."""
        with self._more:
            assert self._more.wait_for(lambda: name in self._seen, PATIENCE), (name, self._seen)
            return self._seen[name]


@contextmanager
def listening(reports: Reports, service: str) -> Iterator[int]:
    """A site with one page, to which everything is reported; gives its port."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(f'<!doctype html><html data-service="{service}"><title>A page</title></html>'.encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reports.add(self.path.removeprefix("/"), json.loads(body))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browsing(command: str, service: str, folder: Path) -> Iterator[Reports]:
    """The extension at work in a browser of its own, on a page of a foreign site; no debugger is attached to it."""
    reports = Reports()
    with listening(reports, service) as port, (folder / "chromium.log").open("wb") as log:
        extension = folder / "extension"
        shutil.copytree(EXTENSION, extension)
        settings = {"REPORTS": f"http://127.0.0.1:{port}", "SERVICE": service}
        lines = [f"export const {name} = {json.dumps(value)};\n" for name, value in settings.items()]
        (extension / "settings.js").write_text("".join(lines))
        child = subprocess.Popen(
            [
                *(command, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--load-extension={extension}"),
                f"http://page.example:{port}/",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield reports
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
