"""llama.cpp's server tests, from the source package of llama-cpp-python, and llama.cpp's server from xllamacpp's wheel.

The model that the tests are written for is in no package registry, so what they say of its words fails either way; the
server is started as they would start it, but for the templates and the switches that single cases ask for.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tarfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.e2e.conftest import Service
from tests.peers.commands import OFFLINE, CannotRun, prepare, run_suite, say
from tests.peers.gguf import with_pooling
from tests.peers.outcomes import Outcome, outcomes_of_junit
from tests.real import install_ollama
from tests.real.install_ollama import free_port, installation

VERSION = "0.3.36"
SOURCE = f"llama-cpp-python=={VERSION} --hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TESTS = "vendor/llama.cpp/tools/server/tests"
NEEDED = ("filelock", "numpy", "openai", "pytest", "requests", "wget")
"""Of what their requirements name, what the files that are run import. The versions are theirs."""
TIMEOUT = "pytest-timeout~=2.4"
SECONDS = 600.0
"""In which one file must be through; all of them take one to two minutes on two cores."""
CASE_SECONDS = 60
MODEL = "smollm2"

SAMPLING = ("--temp", "0.8", "--seed", "42")
"""For all of their cases that do not say otherwise."""


@dataclass(frozen=True)
class Part:
    """One of their files, and how its cases have the server started."""

    file: str
    flags: tuple[str, ...]
    embedding: bool = False


PARTS = (
    Part("unit/test_chat_completion.py", ("-c", "512", "-np", "2", "-b", "32")),
    Part("unit/test_tool_call.py", ("-c", "512", "-np", "2", "-b", "32")),
    Part("unit/test_compat_oai_responses.py", ("-c", "512", "-np", "2", "-b", "32")),
    Part("unit/test_compat_anthropic.py", ("-c", "8192", "-np", "1", "-b", "2048")),
    Part(
        "unit/test_embedding.py", ("-c", "1024", "-np", "2", "-b", "512", "-ub", "512", "--embedding"), embedding=True
    ),
)


class LlamaCppTests:
    """Their files, and an environment of their own for them."""

    def __init__(self, folder: Path) -> None:
        self.cwd = folder / f"llama-cpp-python-{VERSION}" / TESTS
        self.python = folder / "llama-cpp-tests" / "bin" / "python"
        if not self.python.exists():
            say("making an environment for the tests of llama.cpp")
            venv.create(self.python.parent.parent, with_pip=True, clear=True)
        if not self.cwd.exists():
            say(f"fetching the source package of llama-cpp-python {VERSION}, 77 MB")
            unpack_tests(folder, fetch_source(folder, self.python))
        theirs = (self.cwd / "requirements.txt").read_text(encoding="utf-8").splitlines()
        wanted = [line for line in theirs if re.split(r"\W", line.strip())[0] in NEEDED]
        prepare([self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted, TIMEOUT])

    def run(self, part: Part, url: str, output: Path, only: Sequence[str] = ()) -> dict[str, Outcome]:
        """Ask ``url``. With ``only``, run these cases alone."""
        report = output.with_suffix(".xml")
        report.unlink(missing_ok=True)
        environ = {"DEBUG_EXTERNAL": "1", "PORT": url.rpartition(":")[2]}
        options = [
            "-m",
            "not slow",
            "--timeout",
            str(CASE_SECONDS),
            "--junitxml",
            str(report),
            "-p",
            "no:cacheprovider",
        ]
        command = [str(self.python), "-m", "pytest", "--tb", "short", *options, *(only or [part.file])]
        run_suite(command, self.cwd, environ, SECONDS, output)
        if not report.exists():
            say(f"the tests in {part.file} did not come to their end: {output} says why")
            return {}
        return outcomes_of_junit(report.read_text(encoding="utf-8"))


def fetch_source(folder: Path, python: Path) -> Path:
    """Have pip fetch it. It asks the package for its metadata, which compiles nothing."""
    wanted = folder / "requirements.txt"
    wanted.write_text(SOURCE + "\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    only_source = ["--no-binary", "llama-cpp-python"]
    prepare([python, "-m", "pip", "download", *options, *only_source, "--dest", folder, "-r", wanted])
    (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
    return archive


def unpack_tests(folder: Path, archive: Path) -> None:
    """Take the tests alone, all at once or not at all."""
    with tarfile.open(archive) as packed:
        root = f"llama_cpp_python-{VERSION}"
        wanted = [member for member in packed.getmembers() if member.name.startswith(f"{root}/{TESTS}/")]
        partly = folder / "unpacked"
        shutil.rmtree(partly, ignore_errors=True)
        packed.extractall(partly, wanted, filter="data")
    (partly / root).rename(folder / f"llama-cpp-python-{VERSION}")
    archive.unlink()


@contextlib.contextmanager
def llama_server_for(part: Part, folder: Path, log: Path) -> Iterator[str]:
    """llama.cpp's server with the small model, which it calls ``MODEL``: its address."""
    installed = installation()
    if not installed.ready:
        raise CannotRun("there is no llama.cpp: install one with `python -m tests.real.install_ollama`")
    models = folder / ("embedder" if part.embedding else "chat")
    models.mkdir(exist_ok=True)
    model = models / MODEL  # it is known by its path, as it was given
    if not model.exists():
        original = installed.folder / "model.gguf"
        if part.embedding:
            with_pooling(original, model)
        else:
            model.symlink_to(original)
    port = free_port()
    python = installed.folder / "venv" / "bin" / "python"
    script = Path(install_ollama.__file__).resolve().with_name("llama_server.py")
    command = [str(python), str(script), "--model", MODEL, "--port", str(port), *SAMPLING, *part.flags]
    with log.open("ab") as output:
        child = subprocess.Popen(command, cwd=models, env=os.environ | OFFLINE, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, child, log)
        yield url
    finally:
        child.terminate()
        child.wait(20)


def _wait_for(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    last_moment = time.monotonic() + 60
    with httpx.Client(trust_env=False) as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if http.get(f"{url}/health").status_code == 200:
                    return
            if child.poll() is not None or time.monotonic() > last_moment:
                raise CannotRun(f"llama.cpp's server does not come up: {log} says why")
            time.sleep(0.1)


@contextlib.contextmanager
def line_before(url: str) -> Iterator[str]:
    """The service in front of it: its address. The tests ask for all kinds of models, so every name is an alias."""
    flags = ["--engine", "openai", "--upstream-url", url, "--alias", f"*={MODEL}"]
    service = Service(url, *flags, environ={"OLLAMA_MODEL": MODEL})
    try:
        yield service.url
    finally:
        service.end()
