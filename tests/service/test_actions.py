"""`llm-queue service`: what it writes, what it never overwrites, and what it runs."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from llm_queue.cli import ACTIONS
from llm_queue.service import install, units
from llm_queue.service.actions import act
from llm_queue.service.units import MARK, Plan, plan_for
from llm_queue.settings import Settings, load

PYTHON = sys.executable
"""The one that runs the tests; all others are told that they run by the one below."""

KEYS = Settings(api_keys=("cron=very-secret",), upstream_key="hidden")


class System:
    """A machine with systemd or launchd: its home, what was run there, and what was said."""

    def __init__(self, home: Path, platform: str = "linux") -> None:
        self.environ = {"HOME": str(home), "XDG_CONFIG_HOME": ""}
        self.platform = platform
        self.commands: list[list[str]] = []
        self.said: list[str] = []
        self.asked: list[str] = []
        self.failing: str | None = None

    def run(self, arguments: Sequence[str]) -> int:
        self.commands.append(list(arguments))
        return 5 if self.failing in arguments else 0

    def act(
        self, action: str, settings: Settings | None = None, *, answer: str | None = None, yes: bool = False
    ) -> int:
        def ask(question: str) -> str:
            self.asked.append(question)
            assert answer is not None
            return answer

        with mock.patch.dict(os.environ, self.environ):
            return act(
                action,
                settings or Settings(),
                yes=yes,
                platform=self.platform,
                run=self.run,
                say=self.said.append,
                ask=ask if answer is not None else None,
            )

    def plan(self, settings: Settings | None = None) -> Plan:
        with mock.patch.dict(os.environ, self.environ):
            plan = plan_for(self.platform, settings or Settings())
        assert plan is not None
        return plan

    @property
    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture(autouse=True)
def executable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/python/bin/python3")


@pytest.fixture
def linux(tmp_path: Path) -> System:
    return System(tmp_path)


@pytest.fixture
def mac(tmp_path: Path) -> System:
    return System(tmp_path, "darwin")


# --- what is written ---


def test_the_unit_says_which_python_which_settings_and_when_to_start_again(linux: System) -> None:
    settings = Settings(port=(11600,), drain_timeout=42.0, model="m:8b")
    assert linux.plan(settings).text.splitlines() == [
        f"# {MARK}",
        "[Unit]",
        "Description=llm-queue: one line in front of the local LLM",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        "ExecStart=:/opt/python/bin/python3 -P -m llm_queue --port=11600 --model=m:8b --drain-timeout=42.0",
        "EnvironmentFile=-%E/llm-queue/environment",
        "Restart=on-failure",
        "RestartSec=2",
        "# a wrong setting stays wrong",
        "RestartPreventExitStatus=2",
        "# a model may have to be fetched before the start is over",
        "TimeoutStartSec=infinity",
        "# a line that is stuck is started again; what Python did then is in the log",
        "WatchdogSec=60",
        "Environment=PYTHONFAULTHANDLER=1",
        "# prompts live in memory alone",
        "LimitCORE=0",
        "# the line drains in 42 s",
        "TimeoutStopSec=57",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]


def test_the_unit_stands_where_systemd_looks(linux: System, tmp_path: Path) -> None:
    assert linux.plan().path == tmp_path / ".config/systemd/user/llm-queue.service"
    linux.environ["XDG_CONFIG_HOME"] = str(tmp_path / "elsewhere")
    assert linux.plan().path == tmp_path / "elsewhere/systemd/user/llm-queue.service"


@pytest.mark.parametrize(
    ("model", "written"),
    [
        ("plain:8b", "--model=plain:8b"),
        ("with space", '"--model=with space"'),
        ('a"b\\c', '"--model=a\\"b\\\\c"'),
        ("100%$HOME", "--model=100%%$HOME"),
    ],
)
def test_words_are_written_so_that_systemd_reads_them_back(linux: System, model: str, written: str) -> None:
    assert f" {written}\n" in linux.plan(Settings(model=model)).text


def test_systemd_finds_nothing_wrong_with_the_unit(
    linux: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)
    verify = shutil.which("systemd-analyze")
    unit = tmp_path / "llm-queue.service"
    unit.write_text(linux.plan(Settings(model='with "quotes" and 100% more')).text)
    if verify is None:  # where there is no systemd, the text above is all that can be checked
        return
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [verify, "--user", "verify", str(unit)]
    checked = subprocess.run(command, capture_output=True, text=True, env=home, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_agent_of_launchd_has_the_same(mac: System, tmp_path: Path) -> None:
    plan = mac.plan(Settings(port=(11600,), model="a&b"))
    assert plan.path == tmp_path / "Library/LaunchAgents/llm-queue.plist"
    agent = plistlib.loads(plan.text.encode())
    *shell, python, safe, module, name, port, model = agent["ProgramArguments"]
    assert shell == ["/bin/sh", "-c", 'set -a; [ -f "$0" ] && . "$0"; exec "$@"', str(plan.keys)]
    assert (python, safe, module, name, port, model) == (
        *("/opt/python/bin/python3", "-P", "-m", "llm_queue"),
        *("--port=11600", "--model=a&b"),
    )
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ExitTimeOut"] == 45
    assert MARK in plan.text


def test_the_shell_of_the_agent_hands_on_the_keys_and_every_word(tmp_path: Path) -> None:
    shell = shutil.which("sh")
    if shell is None:
        return
    keys = tmp_path / "environment"
    script = [shell, "-c", units._WITH_KEYS, str(keys), shell, "-c", 'echo "$LLM_QUEUE_API_KEYS|$1"', "sh", "a b"]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == "|a b\n"
    keys.write_text("LLM_QUEUE_API_KEYS=cron=secret\n")
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == "cron=secret|a b\n"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_keys_are_never_written_and_it_says_where_they_go(platform: str, tmp_path: Path) -> None:
    system = System(tmp_path, platform)
    assert system.act("install", KEYS, yes=True) == 0
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 1
    for secret in ("very-secret", "hidden"):
        assert secret not in written[0]
        assert secret not in system.text
    assert "LLM_QUEUE_API_KEYS, LLM_QUEUE_UPSTREAM_KEY" in system.text
    assert str(system.plan().keys) in system.text


def test_a_relative_path_to_a_model_is_made_whole(
    linux: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    linux.act("install", Settings(gguf="models"), yes=True)
    assert units._in_unit(f"--gguf={tmp_path / 'models'}") in linux.plan().path.read_text()


# --- install ---


def test_a_file_of_keys_is_named_by_its_whole_path_and_what_is_in_it_is_not_written(
    linux: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text("cron=very-secret lane=normal\n")
    linux.act("install", load({"api_keys_file": "keys"}, {}), yes=True)
    text = linux.plan().path.read_text()
    assert units._in_unit(f"--api-keys-file={file}") in text
    assert "very-secret" not in text + "".join(linux.said)
    assert "Not written" not in "".join(linux.said)


def test_it_is_shown_and_asked_for_before_anything_is_written(linux: System) -> None:
    assert linux.act("install", answer="y") == 0
    plan = linux.plan()
    assert plan.path.read_text() == plan.text
    assert plan.text in linux.said[0]
    assert len(linux.asked) == 1
    assert linux.commands == [
        ["systemctl", "--user", "daemon-reload"],
        ["systemctl", "--user", "enable", "--now", "llm-queue.service"],
    ]
    assert "enable-linger" in linux.said[-1]


@pytest.mark.parametrize("answer", ["", "n", "what?", None])
def test_without_a_yes_nothing_is_written_and_nothing_is_run(linux: System, answer: str | None, tmp_path: Path) -> None:
    assert linux.act("install", answer=answer) == 1
    assert list(tmp_path.iterdir()) == []
    assert linux.commands == []


def test_a_file_that_differs_is_shown_and_left_alone(linux: System) -> None:
    path = linux.plan().path
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/mine\n")
    assert linux.act("install", answer="y") == 1
    assert path.read_text() == "[Service]\nExecStart=/bin/mine\n"
    assert linux.commands == []
    assert "-ExecStart=/bin/mine" in linux.text
    assert "--yes" in linux.text


def test_with_yes_it_is_overwritten_and_the_service_starts_again(linux: System) -> None:
    assert linux.act("install", yes=True) == 0
    linux.commands.clear()
    assert linux.act("install", Settings(port=(11600,)), yes=True) == 0
    assert "--port=11600" in linux.plan().path.read_text()
    assert linux.commands[-1] == ["systemctl", "--user", "restart", "llm-queue.service"]


def test_what_is_there_already_is_not_written_again(linux: System) -> None:
    assert linux.act("install", yes=True) == 0
    path = linux.plan().path
    before = path.stat().st_mtime_ns
    assert linux.act("install") == 0
    assert path.stat().st_mtime_ns == before
    assert "is there already" in linux.text


def test_a_command_that_fails_is_named(linux: System) -> None:
    linux.failing = "enable"
    assert linux.act("install", yes=True) == 1
    assert "`systemctl --user enable --now llm-queue.service` failed with 5" in linux.text


def test_launchd_is_told_of_the_agent(mac: System) -> None:
    assert mac.act("install", yes=True) == 0
    [[*command, domain, path]] = mac.commands
    assert command == ["launchctl", "bootstrap"]
    assert domain.startswith("gui/")
    assert path == str(mac.plan().path)


@pytest.mark.parametrize("action", ACTIONS)
def test_elsewhere_it_says_what_to_start(tmp_path: Path, action: str) -> None:
    windows = System(tmp_path, "win32")
    assert windows.act(action, Settings(port=(11600,)), yes=True) == 1
    assert "-m llm_queue --port=11600" in windows.text
    assert windows.commands == []


# --- uninstall ---


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_what_we_wrote_is_stopped_and_removed(platform: str, tmp_path: Path) -> None:
    system = System(tmp_path, platform)
    system.act("install", yes=True)
    keys = system.plan().keys
    keys.parent.mkdir(parents=True)
    keys.write_text("LLM_QUEUE_API_KEYS=x")
    system.commands.clear()
    assert system.act("uninstall") == 0
    assert not system.plan().path.exists()
    assert system.commands[0] in (
        ["systemctl", "--user", "disable", "--now", "llm-queue.service"],
        [*system.plan().stop[0]],
    )
    assert keys.exists()
    assert str(keys) in system.said[-1]


def test_what_somebody_else_wrote_is_left_alone(linux: System) -> None:
    path = linux.plan().path
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\n")
    assert linux.act("uninstall", yes=True) == 1
    assert path.exists()
    assert linux.commands == []


def test_where_nothing_is_there_is_nothing_to_remove(linux: System) -> None:
    assert linux.act("uninstall") == 0
    assert linux.commands == []


# --- status ---


def answering(monkeypatch: pytest.MonkeyPatch, response: httpx.Response | Exception) -> list[str]:
    asked: list[str] = []

    def get(url: str, **_: Any) -> httpx.Response:
        asked.append(url)
        if isinstance(response, Exception):
            raise response
        return response

    monkeypatch.setattr(httpx, "get", get)
    return asked


def test_the_status_is_that_of_the_system_and_of_the_service(linux: System, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, httpx.Response(200, text='{"ready":true}'))
    linux.act("install", yes=True)
    linux.commands.clear()
    assert linux.act("status", Settings(port=(11600,))) == 0
    assert linux.commands == [["systemctl", "--user", "--no-pager", "status", "llm-queue.service"]]
    assert asked == ["http://127.0.0.1:11600/ready"]
    assert '200 {"ready":true}' in linux.said[-1]


@pytest.mark.parametrize(
    "response", [httpx.ConnectError("refused"), httpx.Response(503, text='{"ready":false}')], ids=["gone", "not ready"]
)
def test_a_service_that_cannot_serve_is_code_1(
    linux: System, monkeypatch: pytest.MonkeyPatch, response: httpx.Response | Exception
) -> None:
    answering(monkeypatch, response)
    assert linux.act("status") == 1
    assert "not installed" in linux.text
    assert linux.commands == []


def test_the_status_asks_each_port_and_one_that_cannot_serve_is_enough_for_code_1(
    linux: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(url: str, **_: Any) -> httpx.Response:
        if ":11434/" in url:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, text='{"ready":true}')

    monkeypatch.setattr(httpx, "get", get)
    assert linux.act("status", Settings(port=(11500, 11434))) == 1
    assert linux.said[-2:] == [
        'http://127.0.0.1:11500/ready: 200 {"ready":true}',
        "http://127.0.0.1:11434/ready: refused",
    ]
    assert linux.act("status", Settings(port=(11500,))) == 0


def test_a_command_that_is_not_there_is_127(capsys: pytest.CaptureFixture[str]) -> None:
    assert install.run(["no-such-command-here", "a b"]) == 127
    assert capsys.readouterr().out == "$ no-such-command-here 'a b'\n"
