"""Find a real Ollama, or start one: for the tests, and for a command that needs one.

``python -m tests.real.ollama COMMAND ...`` runs the command with ``LLM_QUEUE_REAL_OLLAMA`` set to where it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.real.install_ollama import MODELS, CannotInstall, free_port, installation, serving

FIRST, SECOND = MODELS
VARIABLE = "LLM_QUEUE_REAL_OLLAMA"
NEEDS = (
    f"these tests need a real Ollama with {FIRST} and {SECOND}: set {VARIABLE} to its URL, or install one with "
    "`python -m tests.real.install_ollama`"
)


class RealOllama:
    """A real Ollama, past the line."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def names(self) -> set[str]:
        """The models that it has."""
        return {model["name"] for model in self._http.get("/api/tags").json()["models"]}

    def resident(self) -> dict[str, int]:
        """What is loaded, and at which context size."""
        return {model["name"]: model["context_length"] for model in self._http.get("/api/ps").json()["models"]}

    def chat(self, prompt: str, model: str = FIRST, num_ctx: int = 2048, **fields: Any) -> httpx.Response:
        """Ask it directly, for a whole answer; ``options`` may be among the fields."""
        options = {"num_ctx": num_ctx} | fields.pop("options", {})
        messages = [{"role": "user", "content": prompt}] if prompt else []
        body = {"model": model, "messages": messages, "options": options, "stream": False} | fields
        return self._http.post("/api/chat", json=body)

    def request(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        """Ask anything."""
        return self._http.request(method, path, content=content)

    def unload(self) -> None:
        """Nothing is resident afterwards. An engine ends a moment after Ollama has said that it will."""
        while resident := self.resident():
            for name in resident:
                self.chat("", name, keep_alive=0)

    def close(self) -> None:
        """Close the connection to it."""
        self._http.close()


class OwnOllama(RealOllama):
    """One that the tests have started, and may kill."""

    def __init__(self, command: Path, environ: dict[str, str], log: Path) -> None:
        self._port = free_port()
        self._command, self._environ, self._log = command, environ, log
        self._child = contextlib.ExitStack()
        self._process = self._start()
        super().__init__(f"http://127.0.0.1:{self._port}")

    def _start(self) -> subprocess.Popen[bytes]:
        return self._child.enter_context(serving(self._command, self._port, self._environ, self._log))

    def kill(self) -> None:
        """As the kernel does when memory is short: its engine stays behind, and nobody says good-bye."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def start_again(self) -> None:
        """On the same port."""
        self._child.close()
        self._process = self._start()

    def close(self) -> None:
        super().close()
        self._child.close()


@contextlib.contextmanager
def own_ollama() -> Iterator[OwnOllama | None]:
    """One of our own: the one on the PATH if it has the models, else the installed one, else None."""
    on_path, installed = shutil.which("ollama"), installation()
    candidates: list[tuple[Path, dict[str, str]]] = [(Path(on_path), {})] if on_path else []
    if installed.ready:
        candidates.append((installed.binary, installed.environ))
    with tempfile.TemporaryDirectory() as folder:
        for command, environ in candidates:
            with contextlib.closing(OwnOllama(command, environ, Path(folder, "ollama.log"))) as ollama:
                if {FIRST, SECOND} <= ollama.names():
                    yield ollama
                    return
        yield None


@contextlib.contextmanager
def any_ollama() -> Iterator[RealOllama]:
    """The one that the environment names, else one of our own. Raises ``CannotInstall`` with what is needed."""
    url = os.environ.get(VARIABLE)
    if url:
        with contextlib.closing(RealOllama(url)) as ollama:
            if not {FIRST, SECOND} <= ollama.names():
                raise CannotInstall(f"{NEEDS}; the one at {url} has {', '.join(sorted(ollama.names())) or 'no models'}")
            yield ollama
        return
    with own_ollama() as own:
        if own is None:
            raise CannotInstall(NEEDS)
        yield own


def main() -> None:
    """Run the command that the arguments are."""
    try:
        with any_ollama() as ollama:
            ended = subprocess.run(sys.argv[1:], env=os.environ | {VARIABLE: ollama.url}, check=False)
    except CannotInstall as error:
        sys.exit(str(error))
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
