"""`llm-queue service install --take-over`: what it shows, what it writes, in which order, and the way back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from llm_queue.service import ollama
from llm_queue.service.actions import act
from llm_queue.service.machine import Machine
from llm_queue.service.units import MARK, flags_in
from llm_queue.settings import Settings
from llm_queue.settings.values import ServerUrl

LOADED = "LoadState=loaded\nActiveState=active\nEnvironment={}\nEnvironmentFiles={}\n"
ABSENT = "LoadState=not-found\nActiveState=inactive\n"

Answer = Callable[[str], bool]


class Computer:
    """A machine with an Ollama that systemd or launchd starts, and everything that was done to it, in order."""

    def __init__(self, home: Path, platform: str = "linux") -> None:
        self.home = home
        self.platform = platform
        self.of_user = ABSENT
        self.of_system = LOADED.format("PATH=/bin", "")
        self.launchd_host = ""
        self.user = 1000
        self.sudo = False
        self.silent: tuple[str, ...] = ()
        self.failing: tuple[str, ...] = ()
        self.done: list[str] = []
        self.said: list[str] = []
        self.asked: list[str] = []

    def run(self, arguments: Sequence[str]) -> int:
        self.done.append(" ".join(arguments))
        return 5 if any(word in arguments for word in self.failing) else 0

    def query(self, arguments: Sequence[str]) -> str:
        if arguments[0] == "launchctl":
            return self.launchd_host + "\n"
        assert "ollama.service" in arguments
        return self.of_user if "--user" in arguments else self.of_system

    def answers(self, url: str) -> bool:
        self.done.append(f"GET {url}")
        return not any(part in url for part in self.silent)

    def take_over(
        self, settings: Settings | None = None, *, undo: bool = False, answer: str | None = None, yes: bool = False
    ) -> int:
        return self._act("install", settings, take_over=True, undo=undo, answer=answer, yes=yes)

    def install(self, settings: Settings) -> int:
        return self._act("install", settings, yes=True)

    def uninstall(self) -> int:
        return self._act("uninstall", None)

    def _act(self, action: str, settings: Settings | None, *, answer: str | None = None, **how: Any) -> int:
        self.done.clear()
        self.said.clear()

        def ask(question: str) -> str:
            self.asked.append(question)
            assert answer is not None
            return answer

        environ = {"SUDO_USER": "me"} if self.sudo else {}
        here = ("localhost", "127.0.0.1", "192.168.1.5", "::1")
        machine = Machine(self.query, self.answers, here.__contains__, self.user, environ)
        with mock.patch.dict(os.environ, {"HOME": str(self.home), "XDG_CONFIG_HOME": ""}):
            return act(
                action, settings or Settings(), platform=self.platform, machine=machine, run=self.run,
                say=self.said.append, ask=ask if answer is not None else None, **how,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    @property
    def unit(self) -> Path:
        where = {"linux": ".config/systemd/user/llm-queue.service", "darwin": "Library/LaunchAgents/llm-queue.plist"}
        return self.home / where[self.platform]

    def flags(self) -> list[str]:
        return flags_in(self.unit.read_text())


@pytest.fixture
def drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ollama, "SYSTEM", tmp_path / "etc")
    return tmp_path / "etc/ollama.service.d/zz-llm-queue.conf"


@pytest.fixture
def root(tmp_path: Path, drop_in: Path) -> Computer:
    """Its user is root, and Ollama's unit is the system's."""
    computer = Computer(tmp_path / "home")
    computer.user = 0
    return computer


@pytest.fixture
def linux(tmp_path: Path, drop_in: Path) -> Computer:
    """Its user is an ordinary one, and Ollama's unit is the system's."""
    return Computer(tmp_path / "home")


@pytest.fixture
def mac(tmp_path: Path) -> Computer:
    computer = Computer(tmp_path / "home", "darwin")
    computer.user = 501
    return computer


IN_PLACE = ["--port=11500,11434", "--ollama-url=http://localhost:11435"]

# --- taking over ------------------------------------------------------------------------------------------------------


def test_ollama_is_moved_and_seen_to_answer_before_the_service_starts(root: Computer, drop_in: Path) -> None:
    assert root.take_over(answer="y") == 0
    assert drop_in.read_text() == f'# {MARK}\n[Service]\nEnvironment="OLLAMA_HOST=127.0.0.1:11435"\n'
    assert root.flags() == IN_PLACE
    assert root.done == [
        "systemctl daemon-reload",
        "systemctl restart ollama.service",
        "GET http://localhost:11435/api/version",
        "systemctl --user daemon-reload",
        "systemctl --user enable --now llm-queue.service",
        "GET http://127.0.0.1:11434/health",
    ]
    assert "--take-over --undo" in root.said[-1]


def test_everything_is_shown_before_the_one_question(root: Computer, drop_in: Path, tmp_path: Path) -> None:
    for answer in ("n", "", None):
        assert root.take_over(answer=answer) == 1
        assert 'Environment="OLLAMA_HOST=127.0.0.1:11435"' in root.text
        assert str(drop_in) in root.text
        assert "--port=11500,11434" in root.text
        assert root.done == []
        assert not list(tmp_path.rglob("*.conf"))
        assert not root.unit.exists()
    assert len(root.asked) == 2


def test_a_unit_of_the_user_needs_no_root(linux: Computer) -> None:
    linux.of_user, linux.of_system = linux.of_system, ABSENT
    assert linux.take_over(yes=True) == 0
    assert (linux.home / ".config/systemd/user/ollama.service.d/zz-llm-queue.conf").exists()
    assert linux.done[:2] == ["systemctl --user daemon-reload", "systemctl --user restart ollama.service"]


def test_of_two_units_the_one_that_runs_is_moved(linux: Computer) -> None:
    linux.of_user = LOADED.format("", "")
    linux.of_system = linux.of_system.replace("ActiveState=active", "ActiveState=inactive")
    assert linux.take_over(yes=True) == 0
    assert "systemctl --user restart ollama.service" in linux.done


def test_where_root_is_needed_the_commands_are_shown_and_nothing_is_done(linux: Computer, drop_in: Path) -> None:
    assert linux.take_over(yes=True) == 1
    assert f"sudo tee {drop_in}" in linux.text
    assert "sudo systemctl restart ollama.service" in linux.text
    assert "then this command again" in linux.text
    assert linux.done == []
    assert not linux.unit.exists()


def test_after_those_commands_the_same_command_does_the_rest(linux: Computer) -> None:
    linux.of_system = LOADED.format("OLLAMA_HOST=127.0.0.1:11435", "")
    assert linux.take_over(yes=True) == 0
    assert "is at port 11435 already" in linux.text
    assert linux.flags() == IN_PLACE
    assert linux.done[0] == "GET http://localhost:11435/api/version"


def test_an_ollama_that_was_elsewhere_anyway_stays_there(linux: Computer, drop_in: Path) -> None:
    linux.of_system = LOADED.format("OLLAMA_HOST=:9000", "")
    assert linux.take_over(yes=True) == 0
    assert linux.flags() == ["--port=11500,11434", "--ollama-url=http://localhost:9000"]
    assert not drop_in.exists()


def test_the_addresses_that_ollama_was_given_stay_and_what_that_means_is_said(root: Computer, drop_in: Path) -> None:
    root.of_system = LOADED.format("OLLAMA_HOST=0.0.0.0", "")
    assert root.take_over(yes=True) == 0
    assert 'Environment="OLLAMA_HOST=0.0.0.0:11435"' in drop_in.read_text()
    assert "Other machines" in root.text
    assert "LLM_QUEUE_API_KEYS" in root.text
    root.of_system = LOADED.format("OLLAMA_HOST=192.168.1.5", "")
    assert root.take_over(yes=True) == 0
    assert root.flags()[1] == "--ollama-url=http://192.168.1.5:11435"


def test_a_file_that_would_win_over_ours_is_named(root: Computer, tmp_path: Path, drop_in: Path) -> None:
    file = tmp_path / "ollama.env"
    root.of_system = LOADED.format("", f"{file} (ignore_errors=yes)")
    file.write_text("OLLAMA_DEBUG=1\nOLLAMA_HOST=0.0.0.0\n")
    assert root.take_over(yes=True) == 1
    assert f"{file} sets OLLAMA_HOST" in root.text
    assert "0.0.0.0:11435" in root.text
    assert not drop_in.exists()
    file.write_text("OLLAMA_HOST=0.0.0.0:11435\n")
    assert root.take_over(yes=True) == 0
    assert "is at port 11435 already" in root.text
    root.unit.unlink()
    file.write_text("OLLAMA_DEBUG=1\n")
    assert root.take_over(yes=True) == 0
    assert drop_in.exists()


def test_an_ollama_that_does_not_come_back_leaves_the_service_as_it_was(root: Computer) -> None:
    root.silent, root.failing = ("11435",), ("restart",)
    assert root.take_over(yes=True) == 1
    assert "does not answer at http://localhost:11435" in root.text
    assert "--undo" in root.text
    assert not root.unit.exists()


def test_a_service_that_does_not_answer_in_its_new_place_is_said(root: Computer) -> None:
    root.silent = ("11434",)
    assert root.take_over(yes=True) == 1
    assert "does not answer at port 11434" in root.text
    root.failing = ("--now",)
    assert root.take_over(yes=True) == 1
    assert "failed with 5" in root.text


def test_without_a_unit_it_says_what_to_do(linux: Computer) -> None:
    linux.of_system = ABSENT
    assert linux.take_over(Settings(model="m"), yes=True) == 1
    assert "OLLAMA_HOST=127.0.0.1:11435" in linux.text
    assert "llm-queue service install --port=11500,11434 --ollama-url=http://localhost:11435 --model=m" in linux.text
    assert linux.done == []


def test_under_sudo_nothing_is_done(root: Computer) -> None:
    root.sudo = True
    for undo in (False, True):
        assert root.take_over(yes=True, undo=undo) == 1
        assert "without sudo" in root.text
        assert root.done == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(engine="embedded"), "no Ollama behind this line"),
        (Settings(upstream_url=ServerUrl("http://x")), "no Ollama behind this line"),
        (Settings(gguf="~/models"), "no Ollama behind this line"),
        (Settings(ollama_url=ServerUrl("http://gpu.lan:11434")), "on another machine"),
    ],
)
def test_a_line_that_has_no_ollama_of_this_machine_is_refused(linux: Computer, settings: Settings, reason: str) -> None:
    assert linux.take_over(settings, yes=True) == 1
    assert reason in linux.text
    assert linux.done == []


def test_windows_and_others_are_told_how(tmp_path: Path) -> None:
    windows = Computer(tmp_path, "win32")
    windows.user = -1
    assert windows.take_over(yes=True) == 1
    assert "setx OLLAMA_HOST 127.0.0.1:11435" in windows.text
    assert "-m llm_queue --port=11500,11434 --ollama-url=http://localhost:11435" in windows.text
    assert windows.take_over(Settings(port=(11500, 11434)), yes=True, undo=True) == 1
    assert 'setx OLLAMA_HOST ""' in windows.text
    assert windows.said[-1].endswith("-m llm_queue --ollama-url=http://localhost:11434")
    assert windows.done == []


def test_a_mac_has_an_agent_for_the_variable_and_ollama_is_opened_again(mac: Computer) -> None:
    assert mac.take_over(yes=True) == 0
    agent = mac.home / "Library/LaunchAgents/llm-queue.ollama.plist"
    assert MARK in agent.read_text()
    assert mac.flags() == IN_PLACE
    assert "launchctl setenv OLLAMA_HOST 127.0.0.1:11435" in mac.done[1]
    assert mac.done.index("open -a Ollama") < mac.done.index("GET http://localhost:11435/api/version")
    assert "shell's profile" in mac.text
    mac.launchd_host = "127.0.0.1:11435"
    assert mac.take_over(yes=True) == 0
    assert "is at port 11435 already" in mac.text


# --- the settings of a service that is there --------------------------------------------------------------------------


def test_what_the_installed_service_has_stays_and_what_is_given_now_wins(root: Computer) -> None:
    root.install(Settings(port=(11600,), model="m", num_ctx=4096, alias=("claude-*=m", "*=100%")))
    assert root.take_over(Settings(model="n"), yes=True) == 0
    assert root.flags() == [
        "--port=11600,11434", "--ollama-url=http://localhost:11435", "--model=n", "--alias=claude-*=m,*=100%",
        "--num-ctx=4096",
    ]  # fmt: skip
    assert root.take_over(yes=True, undo=True) == 0
    assert root.flags() == [
        "--port=11600",
        "--ollama-url=http://localhost:11434",
        "--model=n",
        "--alias=claude-*=m,*=100%",
        "--num-ctx=4096",
    ]


def test_keys_that_the_service_reads_from_its_file_count_and_are_written_nowhere_else(root: Computer) -> None:
    keys = root.home / ".config/llm-queue/environment"
    keys.parent.mkdir(parents=True)
    keys.write_text("LLM_QUEUE_API_KEYS=cron=s3cret\n")
    root.install(Settings(host="0.0.0.0", api_keys=("cron=s3cret",)))
    assert root.take_over(yes=True) == 0
    assert root.flags() == ["--host=0.0.0.0", *IN_PLACE]
    assert "s3cret" not in root.text + root.unit.read_text()
    assert "Not written" not in root.text


def test_a_unit_that_is_not_ours_is_read_for_nothing_and_shown_as_changed(root: Computer) -> None:
    root.unit.parent.mkdir(parents=True)
    root.unit.write_text("[Service]\nExecStart=:/bin/x -m llm_queue --model=theirs\n")
    assert root.take_over(answer="n") == 1
    assert "-ExecStart=:/bin/x" in root.text
    assert "theirs" in root.unit.read_text()


# --- and back ---------------------------------------------------------------------------------------------------------


def test_undo_frees_the_port_before_ollama_goes_back_to_it(root: Computer, drop_in: Path) -> None:
    root.take_over(yes=True)
    assert root.take_over(answer="y", undo=True) == 0
    assert not drop_in.exists()
    assert root.flags() == ["--ollama-url=http://localhost:11434"]
    assert root.done == [
        "systemctl --user daemon-reload",
        "systemctl --user enable llm-queue.service",
        "systemctl --user restart llm-queue.service",
        "systemctl daemon-reload",
        "systemctl restart ollama.service",
        "GET http://localhost:11434/api/version",
    ]


def test_undo_without_a_yes_changes_nothing(root: Computer, drop_in: Path) -> None:
    root.take_over(yes=True)
    assert root.take_over(undo=True) == 1
    assert drop_in.exists()
    assert root.flags() == IN_PLACE
    assert root.done == []


def test_undo_leaves_to_root_what_is_root_s(linux: Computer, drop_in: Path) -> None:
    linux.user = 0
    linux.take_over(yes=True)
    linux.user = 1000
    assert linux.take_over(yes=True, undo=True) == 1
    assert linux.flags() == ["--ollama-url=http://localhost:11434"]
    assert drop_in.exists()
    assert f"sudo rm {drop_in}" in linux.said[-1]
    assert "sudo systemctl restart ollama.service" in linux.said[-1]


def test_undo_without_a_service_moves_ollama_back_and_installs_none(root: Computer, drop_in: Path) -> None:
    root.take_over(yes=True)
    assert root.uninstall() == 0
    assert "Ollama is still at another port" in root.text
    assert root.take_over(yes=True, undo=True) == 0
    assert not drop_in.exists()
    assert not root.unit.exists()
    assert root.uninstall() == 0
    assert "still" not in root.text


def test_undo_knows_the_address_that_ollama_goes_back_to(root: Computer) -> None:
    root.of_system = LOADED.format("OLLAMA_HOST=192.168.1.5", "")
    root.take_over(yes=True)
    assert root.take_over(yes=True, undo=True) == 0
    assert root.flags() == ["--ollama-url=http://192.168.1.5:11434"]
    assert root.done[-1] == "GET http://192.168.1.5:11434/api/version"


def test_undo_of_a_place_that_ollama_never_had_keeps_its_address(linux: Computer) -> None:
    linux.of_system = LOADED.format("OLLAMA_HOST=:9000", "")
    linux.take_over(yes=True)
    assert linux.take_over(yes=True, undo=True) == 0
    assert linux.flags() == ["--ollama-url=http://localhost:9000"]


def test_what_was_never_taken_over_is_not_undone(linux: Computer, drop_in: Path) -> None:
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text('[Service]\nEnvironment="OLLAMA_HOST=1.2.3.4"\n')  # somebody else's
    assert linux.take_over(yes=True, undo=True) == 0
    assert "Nothing to undo" in linux.text
    assert drop_in.exists()
    assert linux.done == []


def test_an_ollama_that_does_not_come_back_from_its_undoing_is_said(root: Computer) -> None:
    root.take_over(yes=True)
    root.silent = ("11434/api",)
    assert root.take_over(yes=True, undo=True) == 1
    assert "does not answer at http://localhost:11434" in root.text


def test_a_mac_is_put_back_as_well(mac: Computer) -> None:
    mac.take_over(yes=True)
    assert mac.take_over(yes=True, undo=True) == 0
    assert not (mac.home / "Library/LaunchAgents/llm-queue.ollama.plist").exists()
    assert mac.flags() == ["--ollama-url=http://localhost:11434"]
    assert "launchctl unsetenv OLLAMA_HOST" in mac.done


def test_a_file_that_cannot_be_written_is_one_line(root: Computer, drop_in: Path) -> None:
    drop_in.parent.parent.mkdir(parents=True, exist_ok=True)
    drop_in.parent.write_text("a file in the way")
    assert root.take_over(yes=True) == 1
    assert "llm-queue: " in root.said[-1]
    assert str(drop_in.parent) in root.said[-1]


def test_the_machine_knows_its_own_addresses() -> None:
    machine = Machine()
    assert machine.is_here("localhost")
    assert machine.is_here("127.0.0.1")
    assert not machine.is_here("192.0.2.1")
    assert not machine.is_here("no such name")
    assert machine.query(["no-such-command-here"]) == ""


def test_the_documentation_names_what_is_written_and_where_ollama_goes() -> None:
    text = (Path(__file__).parents[2] / "docs/take-over.md").read_text(encoding="utf-8")
    moves = [
        ollama.move_unit(ollama.Unit(of_system=True), Path("/none")),
        ollama.move_app(None, Path("~/Library/LaunchAgents"), 501),
    ]
    for move in moves:
        assert f"`{move.path}`" in text
        assert f"port {move.after.port}" in text
