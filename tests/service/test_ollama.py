"""Where Ollama listens, and what moves it: as data."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from llm_queue.service import ollama
from llm_queue.service.ollama import Place, Unit, as_root, move_app, move_unit, moved_to, read_unit
from llm_queue.service.units import MARK


@pytest.mark.parametrize(
    ("raw", "host", "port", "url", "is_open"),
    [
        ("", "127.0.0.1", 11434, "http://localhost:11434", False),
        ("127.0.0.1", "127.0.0.1", 11434, "http://localhost:11434", False),
        ("localhost:9000", "localhost", 9000, "http://localhost:9000", False),
        ("0.0.0.0", "0.0.0.0", 11434, "http://localhost:11434", True),
        ("0.0.0.0:11435", "0.0.0.0", 11435, "http://localhost:11435", True),
        (":8080", "", 8080, "http://localhost:8080", True),
        ("[::]:11434", "::", 11434, "http://localhost:11434", True),
        ("[::1]", "::1", 11434, "http://localhost:11434", False),
        ("192.168.1.5", "192.168.1.5", 11434, "http://192.168.1.5:11434", True),
        ("[fd00::5]:1", "fd00::5", 1, "http://[fd00::5]:1", True),
        ("http://0.0.0.0:11434/", "0.0.0.0", 11434, "http://localhost:11434", True),
        ("https://gpu.lan", "gpu.lan", 443, "http://gpu.lan:443", True),
        ('"0.0.0.0"', "0.0.0.0", 11434, "http://localhost:11434", True),
        ("127.0.0.1:99999", "127.0.0.1", 11434, "http://localhost:11434", False),
    ],
)
def test_ollamas_host_is_read_as_ollama_reads_it(raw: str, host: str, port: int, url: str, is_open: bool) -> None:
    place = Place.of(raw)
    assert (place.host, place.port, place.url, place.open) == (host, port, url, is_open)
    assert Place.of(str(place)) == place


LOADED = "LoadState=loaded\nActiveState=active\n"


def test_a_unit_is_read_with_its_environment_and_its_files() -> None:
    said = LOADED + (
        'Environment=PATH=/usr/bin "A=b c" OLLAMA_HOST=0.0.0.0 OLLAMA_DEBUG=1\n'
        "EnvironmentFiles=/etc/default/ollama (ignore_errors=yes)\nEnvironmentFiles=/etc/more (ignore_errors=no)\n"
    )
    unit = read_unit(said, of_system=True)
    assert unit == Unit(True, True, "0.0.0.0", ("/etc/default/ollama", "/etc/more"))
    assert unit.place == Place("0.0.0.0", 11434)


@pytest.mark.parametrize("environment", ["", "PATH=/usr/bin", "MY_OLLAMA_HOST=x", '"broken'])
def test_without_the_variable_ollama_is_where_it_is_by_default(environment: str) -> None:
    unit = read_unit(f"{LOADED}Environment={environment}\nEnvironmentFiles=\n", of_system=False)
    assert unit == Unit(False, True, None, ())
    assert unit.place == Place("127.0.0.1", 11434)


@pytest.mark.parametrize("said", ["", "LoadState=not-found\nActiveState=inactive\n", "LoadState=masked\n"])
def test_what_is_not_loaded_is_no_unit(said: str) -> None:
    assert read_unit(said, of_system=True) is None


def test_the_drop_in_sets_one_variable_and_is_the_last_by_name(tmp_path: Path) -> None:
    move = move_unit(Unit(of_system=True, host="0.0.0.0"), tmp_path)
    assert move.path == Path("/etc/systemd/system/ollama.service.d/zz-llm-queue.conf")
    assert move.text == f'# {MARK}\n[Service]\nEnvironment="OLLAMA_HOST=0.0.0.0:11435"\n'
    assert move.start == move.undo == (("systemctl", "daemon-reload"), ("systemctl", "restart", "ollama.service"))
    assert (move.root, move.before.port, move.after.url) == (True, 11434, "http://localhost:11435")
    of_user = move_unit(Unit(of_system=False), tmp_path)
    assert of_user.path == tmp_path / "ollama.service.d/zz-llm-queue.conf"
    assert of_user.start[0] == ("systemctl", "--user", "daemon-reload")
    assert not of_user.root


@pytest.mark.parametrize("host", [None, "0.0.0.0", "[::]:11434", "192.168.1.5"])
def test_where_ollama_was_moved_can_be_read_back(host: str | None, tmp_path: Path) -> None:
    for move in (move_unit(Unit(of_system=True, host=host), tmp_path), move_app(host, tmp_path, 501)):
        assert moved_to(move.text) == move.after
        assert move.after.at(11434) == move.before
    assert moved_to("[Service]\n") is None


def test_the_agent_of_a_mac_sets_the_variable_at_each_login(tmp_path: Path) -> None:
    move = move_app("", tmp_path, 501)
    agent = plistlib.loads(move.text.encode())
    assert agent["ProgramArguments"] == ["/bin/launchctl", "setenv", "OLLAMA_HOST", "127.0.0.1:11435"]
    assert agent["RunAtLoad"] is True
    assert MARK in move.text
    assert move.start[0] == ("launchctl", "bootstrap", "gui/501", str(tmp_path / "llm-queue.ollama.plist"))
    assert ("launchctl", "unsetenv", "OLLAMA_HOST") in move.undo


def test_what_a_person_types_as_root_writes_the_very_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama, "SYSTEM", tmp_path)
    move = move_unit(Unit(of_system=True), tmp_path)
    typed = as_root(move)
    assert "sudo systemctl daemon-reload" in typed
    assert "sudo systemctl restart ollama.service" in typed
    assert f"sudo rm {move.path}" in as_root(move, undo=True)
    shell = shutil.which("sh")
    if shell is None:
        return
    as_we_are = typed.replace("sudo systemctl", "true").replace("sudo ", "")
    subprocess.run([shell, "-c", as_we_are], check=True, capture_output=True)
    assert move.path.read_text() == move.text
