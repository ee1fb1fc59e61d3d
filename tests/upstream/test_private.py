"""The private folder: where it is made, who may enter, and what is wiped of it and when."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import trio

from llm_queue.upstream.embedded import private
from llm_queue.upstream.embedded.kept import keep_prompts
from llm_queue.upstream.embedded.private import PREFIX, PrivateFolder, place_for, places, wipe_leftovers

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes, and links need a privilege")

KILLED = """
import os, signal, sys
from pathlib import Path
from llm_queue.upstream.embedded.private import PrivateFolder
folder = PrivateFolder(Path(sys.argv[1]))
folder.make()
(folder.path / "0.prompt").write_text("secret")
(folder.path / "new.prompt").write_text("secret")
os._exit(9)
"""


def leftover(place: Path) -> Path:
    """The folder of a process that is dead."""
    subprocess.run([sys.executable, "-c", KILLED, str(place)], check=False)
    (folder,) = place.iterdir()
    return folder


# --- made and wiped ---------------------------------------------------------------------------------------------------


@posix
def test_it_is_made_once_and_only_its_owner_may_enter(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path / "not" / "there")
    assert folder.make()
    assert not folder.make()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.wipe()


def test_there_is_none_before_it_is_made_and_after_it_is_wiped(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    with pytest.raises(FileNotFoundError):
        _ = folder.path
    folder.make()
    (folder.path / "3.prompt").write_text("secret")
    folder.wipe()
    folder.wipe()
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        _ = folder.path


@posix
def test_what_somebody_else_put_into_it_is_left_and_no_link_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    folder = PrivateFolder(tmp_path / "place")
    folder.make()
    path = folder.path
    (path / "notes.txt").write_text("x")
    (path / "1.prompt").symlink_to(precious / "file")
    (path / "2.prompt").symlink_to(precious)
    (path / "3.prompt").write_text("secret")
    folder.wipe()
    assert {file.name for file in path.iterdir()} == {"notes.txt", "1.prompt", "2.prompt"}
    assert (precious / "file").read_text() == "x"


@posix
def test_a_folder_that_became_a_link_is_not_wiped(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "1.prompt").write_text("x")
    folder = PrivateFolder(tmp_path / "place")
    folder.make()
    shutil.rmtree(folder.path)
    folder.path.symlink_to(other)
    folder.wipe()
    assert (other / "1.prompt").exists()


# --- leftovers --------------------------------------------------------------------------------------------------------


def test_what_a_killed_service_left_is_wiped(tmp_path: Path) -> None:
    left = leftover(tmp_path)
    assert len(list(left.iterdir())) == 3
    wipe_leftovers([tmp_path / "not there", tmp_path])
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_service_that_lives_is_left(tmp_path: Path) -> None:
    living = PrivateFolder(tmp_path)
    living.make()
    (living.path / "0.prompt").write_text("secret")
    wipe_leftovers([tmp_path])
    assert {file.name for file in living.path.iterdir()} == {"lock", "0.prompt"}
    living.wipe()


@posix
def test_a_folder_that_is_just_being_made_holds_nothing_that_could_be_lost(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}empty").mkdir(mode=0o700)
    full = tmp_path / f"{PREFIX}full"
    full.mkdir(mode=0o700)
    (full / "0.prompt").write_text("x")
    wipe_leftovers([tmp_path])
    assert list(tmp_path.iterdir()) == [full]  # without a lock, nobody knows whose it is


@posix
def test_neither_links_nor_folders_of_others_are_wiped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = leftover(tmp_path / "elsewhere")
    place = tmp_path / "place"
    place.mkdir()
    (place / f"{PREFIX}link").symlink_to(left)
    wipe_leftovers([place])
    assert (left / "0.prompt").exists()
    left.chmod(0o755)  # ours would let nobody in
    wipe_leftovers([left.parent])
    assert (left / "0.prompt").exists()
    left.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # it is somebody else's
    wipe_leftovers([left.parent])
    assert (left / "0.prompt").exists()


@pytest.mark.parametrize("size", [None, 2**20])
def test_leftovers_are_wiped_at_the_start_whether_prompts_are_kept_now_or_not(
    size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover(tmp_path)
    monkeypatch.setattr(private, "SHARED_MEMORY", tmp_path / "not there")
    monkeypatch.setattr(private, "cache_folder", lambda: tmp_path)
    prompts = trio.run(keep_prompts, size, {})
    assert not list(tmp_path.iterdir())
    assert (prompts is None) == (size is None)
    if prompts is not None:
        assert prompts.note == f"prompts are kept as files in {tmp_path}, 1 MiB at most"


# --- where ------------------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places: the user's with 100 bytes free, the machine's with 1000, and a disk."""
    candidates = [tmp_path / name for name in ("runtime", "shm", "cache")]
    for path in candidates[:2]:
        path.mkdir()
    free = {candidates[0]: 100, candidates[1]: 1000}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free[path]))
    monkeypatch.setattr(private, "_file_system", lambda path: "tmpfs")
    return candidates


@pytest.mark.parametrize(("size", "expected"), [(50, "runtime"), (51, "shm"), (500, "shm"), (501, "cache")])
def test_it_is_in_memory_where_it_takes_no_more_than_half_of_what_is_free(
    size: int, expected: str, memory: list[Path]
) -> None:
    place, in_memory = place_for(size, memory)
    assert (place.name, in_memory) == (expected, expected != "cache")


def test_a_place_that_is_on_a_disk_or_not_there_is_not_taken_for_memory(
    memory: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "_file_system", lambda path: "ext4" if path.name == "runtime" else "tmpfs")
    assert place_for(1, memory)[0].name == "shm"
    shutil.rmtree(memory[1])
    monkeypatch.setattr(private, "_file_system", lambda path: str(path.resolve(strict=True)))
    assert place_for(1, memory) == (memory[2], False)


def test_the_places_are_those_of_the_user_of_the_machine_and_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "cache_folder", lambda: tmp_path)
    shared = private.SHARED_MEMORY
    assert places({"XDG_RUNTIME_DIR": str(tmp_path / "run")}) == [tmp_path / "run", shared, tmp_path]
    for nowhere in ("", "not/absolute"):
        assert places({"XDG_RUNTIME_DIR": nowhere}) == [shared, tmp_path]


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="only Linux has a file system in memory to ask for")
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount() -> None:
    assert private._file_system(Path("/proc/self")) == "proc"
    if os.path.ismount("/dev/shm"):
        assert private._file_system(Path("/dev/shm")) == "tmpfs"
