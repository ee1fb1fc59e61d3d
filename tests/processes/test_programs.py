"""What a running program is called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.processes.programs import INTERPRETERS, program_name, what_is_run


class Process:
    """As much of a psutil process as is asked for; a value that is an error is raised."""

    def __init__(
        self,
        *words: str,
        exe: str | Exception | None = None,
        folder: str | Exception = "/home/me",
        parent: Process | None = None,
    ) -> None:
        self._words = words
        self._exe = words[0] if exe is None else exe
        self._folder = folder
        self._parent = parent

    def cmdline(self) -> list[str]:
        return list(self._words)

    def name(self) -> str:
        return "MainThread"

    def exe(self) -> str:
        return _told(self._exe)

    def cwd(self) -> str:
        return _told(self._folder)

    def parent(self) -> Process | None:
        return self._parent


def _told(value: str | Exception) -> str:
    if isinstance(value, Exception):
        raise value
    return value


def name_of(process: Process) -> str:
    return program_name(process)  # type: ignore[arg-type] # as much of a process as is asked for


posix = pytest.mark.skipif(os.name != "posix", reason="the paths are those of a POSIX system")


@posix
@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("/usr/bin/python3.11 -u cron.py --all", "/home/me/cron.py"),
        ("/usr/bin/python3.11 ./jobs/../cron.py", "/home/me/cron.py"),
        ("/usr/bin/python3.11 -X dev -W error cron.py -m other", "/home/me/cron.py"),
        ("/usr/bin/python3.11 -Xdev -Werror -OO cron.py", "/home/me/cron.py"),
        ("/usr/bin/python3.11 --check-hash-based-pycs always cron.py", "/home/me/cron.py"),
        ("/usr/bin/python3.11 -- -odd.py", "/home/me/-odd.py"),
        ("/usr/bin/python3.13t cron.py", "/home/me/cron.py"),
        ("/usr/bin/python3 -m jobs.classify -v", "jobs.classify"),
        ("/usr/bin/python3 -um jobs.classify", "jobs.classify"),
        ("/usr/bin/python3 -mjobs.classify", "jobs.classify"),
        ("/usr/bin/python3 -Ic print(1)", "python3 -c"),
        ("/usr/bin/python3 -c print(1)", "python3 -c"),
        ("/usr/bin/python3", "python3"),
        ("/usr/bin/python3 -", "python3"),
        ("/home/me/.venv/bin/python /home/me/.venv/bin/tool serve", "/home/me/.venv/bin/tool"),
        ("/usr/bin/node /srv/jobs.mjs", "/srv/jobs.mjs"),
        ("/usr/bin/node --import ./telemetry.js -r dotenv/config --env-file .env main.js", "/home/me/main.js"),
        ("/usr/bin/node --import=./telemetry.js --enable-source-maps main.js", "/home/me/main.js"),
        ("/usr/bin/node --require /x/preflight.cjs --import file:///x/loader.mjs main.ts", "/home/me/main.ts"),
        ("/usr/bin/node inspect main.js", "/home/me/main.js"),
        ("/usr/bin/node /home/me/.npm/_npx/1a/node_modules/.bin/tool", "/home/me/.npm/_npx/1a/node_modules/.bin/tool"),
        ("/usr/bin/node -e 1+1", "node -e"),
        ("/usr/bin/deno run --allow-net --import-map map.json main.ts", "/home/me/main.ts"),
        ("/usr/bin/deno run -A npm:chat", "npm:chat"),
        ("/usr/bin/bun run --preload ./x.ts main.ts", "/home/me/main.ts"),
        ("/usr/bin/bash -euo pipefail nightly.sh", "/home/me/nightly.sh"),
        ("/usr/bin/bash +o posix --rcfile x nightly.sh", "/home/me/nightly.sh"),
        ("/usr/bin/perl -w -MData::Dumper -I lib nightly.pl", "/home/me/nightly.pl"),
        ("/usr/bin/perl -lne print", "perl -e"),
        ("/usr/bin/ruby -I lib -ruri nightly.rb", "/home/me/nightly.rb"),
        ("/usr/bin/php8.2 -d memory_limit=1G artisan", "/home/me/artisan"),
        ("/usr/bin/java -Xmx1g -cp a.jar:b.jar -jar app.jar", "/home/me/app.jar"),
        ("/usr/bin/java -p mods -m jobs/org.example.Main", "jobs/org.example.Main"),
        ("/usr/lib/electron/electron /usr/lib/notes/app.asar", "/usr/lib/notes/app.asar"),
        ("/opt/chat/chat-window --no-sandbox", "chat-window"),
        ("/usr/bin/shotwell photo.jpg", "shotwell"),
        ("/usr/bin/nodemon main.js", "nodemon"),
        ("/usr/bin/uvicornish app", "uvicornish"),
        ("/usr/bin/curl -s http://localhost:11500", "curl"),
    ],
)
def test_a_script_is_named_rather_than_its_interpreter(line: str, name: str) -> None:
    assert name_of(Process(*line.split())) == name


def test_a_program_is_named_by_its_file_and_not_by_its_first_thread() -> None:
    assert name_of(Process("node", "/srv/x.js", exe="/usr/bin/node (deleted)")).endswith("x.js")
    assert name_of(Process("chat: ready", exe="/opt/chat/chat")) == "chat"
    assert name_of(Process("/opt/chat/chat", exe=psutil.AccessDenied())) == "chat"
    assert name_of(Process(exe=PermissionError())) == "MainThread"
    assert name_of(Process("wget", "-q", exe="/bin/busybox")) == "wget"


@posix
def test_a_folder_that_is_gone_or_hidden_is_no_error() -> None:
    assert name_of(Process("python3", "cron.py", folder="/tmp/work (deleted)")) == "/tmp/work/cron.py"
    assert name_of(Process("python3", "cron.py", folder=psutil.AccessDenied())) == "cron.py"
    assert name_of(Process("python3", "cron.py", folder="")) == "cron.py"


@posix
def test_a_worker_is_named_by_the_program_that_started_it() -> None:
    server = Process("/usr/bin/python3", "/srv/bin/uvicorn", "app:app", "--workers", "2")
    code = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)"
    worker = Process("/usr/bin/python3", "-c", code, "--multiprocessing-fork", parent=server)
    assert name_of(worker) == name_of(server) == "/srv/bin/uvicorn"
    nested = Process("/usr/bin/python3", "-c", code, "--multiprocessing-fork", parent=worker)
    assert name_of(nested) == "/srv/bin/uvicorn"
    app = Process("/usr/lib/electron/electron", "/usr/lib/notes/app.asar")
    helper = Process("/usr/lib/electron/electron", "--type=utility", parent=app)
    assert name_of(helper) == "/usr/lib/notes/app.asar"


def test_an_orphaned_worker_is_not_named_by_the_systems_first_process() -> None:
    init = Process("/usr/lib/systemd/systemd", "--user")
    assert name_of(Process("/opt/notes/notes", "--type=utility", parent=init)) == "notes"


@pytest.mark.parametrize("name", INTERPRETERS)
@given(words=st.lists(st.sampled_from(["-c", "-m", "-x", "--", "-", "--flag", "-um", "run", "a.py", "", "-p=1", "+o"])))
def test_no_command_line_is_too_odd(name: str, words: Sequence[str]) -> None:
    _, word = what_is_run(INTERPRETERS[name], words)
    assert not word or any(each.endswith(word) for each in words)
    assert name_of(Process(name, *words))


@pytest.mark.skipif(
    sys.platform != "linux", reason="a script's first line is read by the kernel, and differs elsewhere"
)
def test_a_script_with_an_interpreter_line_is_named_by_its_path(tmp_path: Path) -> None:
    script = tmp_path / "nightly"
    script.write_text(f"#!{sys.executable} -u\nprint('here', flush=True)\ninput()\n")
    script.chmod(0o755)
    with subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert program_name(psutil.Process(process.pid)) == str(script)
        process.communicate("\n")
