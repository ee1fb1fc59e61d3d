"""Ollama's integration tests, from its Go module at the version of the real Ollama that they run against.

They ask for models by their names. The real Ollama has one small model under all of these, made past the line by
``/api/create`` and ``/api/copy``, and the same once more as a model for embeddings.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from tests.e2e.conftest import Service
from tests.peers.commands import OFFLINE, CannotRun, prepare, run_suite, say
from tests.peers.gguf import with_pooling
from tests.peers.outcomes import Outcome, outcomes_of_go
from tests.real.install_ollama import MODELS, VERSION, Installation, installation
from tests.real.ollama import OwnOllama

MODULE = f"github.com/ollama/ollama@v{VERSION}"
SECONDS = 900.0
"""In which the tests must be through; on two cores they take one to two minutes."""

SKIP = "TestVision|TestAudio|TestTools|TestCreate|TestQuantization|TestImageGeneration"
"""What a small model of text, on a machine without a network, can only skip."""

MODELS_OF_THEIRS = {
    MODELS[0]: ("llama3.2:1b", "llama3.2:latest", "gemma2:2b"),
    MODELS[1]: ("gemma4:latest", "gemma4:12b", "gpt-oss:20b", "qwen3.5:2b-nvfp4", "qwen3:0.6b", "gemma3:270m"),
}
"""The names that they ask for, by what stands for them here. Those that they load in turn have different weights: for
Ollama a name is no model of its own."""
EMBEDDING = "nomic-embed-text"
PARAMETERS = {"num_predict": 200, "temperature": 0.3, "seed": 3}
"""Where they ask for nothing else: a small model that is left alone goes on for minutes, and each time differently.
With these it says the words that they look for."""


class OllamaTests:
    """The compiled tests, and where they look for their data."""

    def __init__(self, folder: Path) -> None:
        self.binary = folder / "ollama-integration.test"
        if not shutil.which("go"):
            raise CannotRun("Ollama's tests are written in Go, and there is none: see go.dev/dl")
        say(f"compiling the tests of {MODULE}")
        source = Path(json.loads(prepare(["go", "mod", "download", "-json", MODULE]))["Dir"])
        self.cwd = source / "integration"
        tags = "integration,release"
        prepare(["go", "test", "-c", "-tags", tags, "-o", self.binary, "./integration"], cwd=source)

    def run(self, url: str, output: Path, only: Sequence[str] = ()) -> dict[str, Outcome]:
        """Ask ``url``. With ``only``, run these cases alone, each with what it consists of."""
        found: dict[str, Outcome] = {}
        environ = {"OLLAMA_TEST_EXISTING": "1", "OLLAMA_HOST": url}
        limits = ["-test.v", "-test.timeout", f"{SECONDS:.0f}s", "-test.skip", SKIP]
        for number, case in enumerate(only or [""]):
            chosen = ["-test.run", pattern_of(case)] if case else []
            name = output if not case else output.with_suffix(f".{number}{output.suffix}")
            said = run_suite([self.binary, *limits, *chosen], self.cwd, environ, SECONDS, name)
            found |= outcomes_of_go(said)
        return {name: found[name] for name in only if name in found} if only else found


def pattern_of(case: str) -> str:
    """What ``-test.run`` must be for one case: a regular expression for each level of its name."""
    return "/".join(f"^{re.escape(part)}$" for part in case.split("/"))


@contextlib.contextmanager
def ollama_with_their_models(log: Path) -> Iterator[OwnOllama]:
    """The installed Ollama, over a copy of its models, so that the names that are added here stay in no one's way."""
    installed = installation()
    if not installed.ready:
        raise CannotRun("there is no real Ollama: install one with `python -m tests.real.install_ollama`")
    with tempfile.TemporaryDirectory(dir=installed.folder.parent) as folder:
        models = Path(folder, "models")
        shutil.copytree(installed.folder / "models", models, copy_function=_link)
        environ = installed.environ | OFFLINE | {"OLLAMA_MODELS": str(models)}
        with contextlib.closing(OwnOllama(installed.binary, environ, log)) as ollama:
            _add_models(ollama, installed, Path(folder))
            yield ollama


def _link(source: str, target: str) -> None:
    """The weights are large, and nobody writes into them."""
    Path(target).hardlink_to(source)


def _add_models(ollama: OwnOllama, installed: Installation, folder: Path) -> None:
    weights, description = folder / "embedder.gguf", folder / "Modelfile"
    with_pooling(installed.folder / "model.gguf", weights)
    description.write_text(f"FROM {weights}\n")
    environ = installed.environ | {"OLLAMA_HOST": ollama.url}
    prepare([installed.binary, "create", EMBEDDING, "-f", description], environ=environ)
    fields = {"parameters": PARAMETERS, "license": "Apache-2.0", "stream": False}
    with httpx.Client(base_url=ollama.url, trust_env=False, timeout=60) as http:
        for source, names in MODELS_OF_THEIRS.items():
            first, *others = names
            http.post("/api/create", json={"model": first, "from": source, **fields}).raise_for_status()
            for name in others:
                http.post("/api/copy", json={"source": first, "destination": name}).raise_for_status()


@contextlib.contextmanager
def line_before(ollama: OwnOllama) -> Iterator[str]:
    """The service in front of it: its address. Contexts are as large as Ollama's own, so that both take as long."""
    service = Service(ollama.url, environ={"OLLAMA_MODEL": MODELS[0], "OLLAMA_NUM_CTX": "4096"})
    try:
        yield service.url
    finally:
        service.end()
