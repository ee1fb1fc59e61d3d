"""Imports go one way: the table below is the house, from the ground up, and nothing else may be imported where."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import llm_queue

PACKAGE = Path(llm_queue.__file__).parent


@dataclass(frozen=True)
class Room:
    """What a room may import: rooms of ours (or one module of a room), and packages of others.

    A pure room has no clock, no chance, and no way to the world; not even the standard library's.
    """

    ours: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    pure: bool = False


def room(ours: str = "", others: str = "", *, pure: bool = False) -> Room:
    return Room(frozenset(ours.split()), frozenset(others.split()), pure)


HOUSE = {
    "errors": room(pure=True),
    "instance": room(),
    "traceparent": room(),
    "settings": room(),
    "launch": room("settings"),
    "log": room(others="structlog"),
    "running": room("settings", others="httpx"),
    "processes": room(others="psutil trio"),
    "descriptors": room(),
    "systemd": room(others="structlog trio"),
    "core": room("errors", pure=True),
    "wire": room("errors", others="msgspec", pure=True),
    "simulate": room("core"),
    "upstream": room(
        "errors instance traceparent core.keys wire",
        others="h11 httptools httpx msgspec platformdirs psutil structlog trio xllamacpp",
    ),
    "upstream.choose": room("errors instance log settings upstream"),
    "dispatch": room(
        "errors settings traceparent core wire.durations wire.labels wire.prompts wire.shapes upstream.protocol"
        " upstream.catalog",
        others="msgspec structlog trio",
    ),
    "web": room(
        "errors instance settings traceparent core.jobs wire upstream.protocol"
        " dispatch.fingerprints dispatch.status dispatch.tickets processes.owners",
        others="msgspec quart quart_trio structlog trio werkzeug",
    ),
    "web.backlog": room(others="trio"),
    "web.door": room(others="structlog trio"),
    "web.facts": room("web.backlog"),
    "web.http1": room("errors wire.callers.routes", others="h11 hypercorn trio"),
    "web.inbox": room(others="hypercorn trio"),
    "web.listener": room(
        "web.backlog web.door web.facts web.http1 web.inbox web.limits", others="hypercorn structlog trio"
    ),
    "testing": room("errors core.keys wire upstream.protocol", others="h11 msgspec trio"),
    "exits": room(),
    "imports": room(),
    "garbage": room("dispatch.moments", others="trio"),
    "metrics": room(
        "core.events core.jobs dispatch.bypass dispatch.moments dispatch.slot_time dispatch.status",
        others="prometheus_client",
    ),
    "traces": room("traceparent core.jobs dispatch.moments dispatch.status", others="opentelemetry trio"),
    "serve": room(
        "descriptors errors exits garbage instance log metrics processes.connected settings systemd traces.export "
        "upstream.choose upstream.protocol dispatch web",
        others="structlog trio",
    ),
    "demo": room("log settings core.jobs dispatch.status running simulate launch", others="httpx msgspec rich trio"),
    "service": room("log settings launch systemd", others="httpx platformdirs"),
    "terminal": room("log settings processes running service", others="httpx msgspec rich trio"),
    "cli": room(
        "exits imports settings log core.trace dispatch.setup simulate traces.export upstream.choose serve "
        "demo service terminal",
        others="trio",
    ),
    "__main__": room("cli imports log"),
    "__init__": room(),
}
"""From the ground up. A module with a row of its own (``web.listener``) follows that row instead of its room's."""

ONLY_IN = {
    "httpx": {"upstream", "running", "demo", "service", "terminal"},  # all but the first ask a running service
    "httptools": {"upstream"},
    "hypercorn": {"web.http1", "web.inbox", "web.listener"},
    "quart": {"web"},
    "quart_trio": {"web"},
    "opentelemetry": {"traces"},
    "platformdirs": {"service", "upstream"},
    "prometheus_client": {"metrics"},
    "psutil": {"processes", "upstream"},
    "rich": {"demo", "terminal"},
    "xllamacpp": {"upstream"},
}

IMPURE = {
    *("asyncio", "ctypes", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "select"),
    *("selectors", "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time"),
}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(source: str) -> Iterator[str]:
    """Everything that is imported anywhere in it, as a dotted name; ours as seen from the package."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say where from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name if not name.startswith("llm_queue.") else "." + name.removeprefix("llm_queue.")


def place_of(module: str) -> str:
    """The row of the table that a module follows."""
    name = module.split(".")[0]
    assert name in HOUSE, f"llm_queue/{name} has no place in the house yet: give it one in HOUSE"
    return module if module in HOUSE else name


def violations(module: str, source: str) -> list[str]:
    """What a module imports and may not."""
    here, found = HOUSE[place_of(module)], []
    for imported in imports(source):
        if imported.startswith("."):
            target = imported[1:] + "."
            if not any(target.startswith(allowed + ".") for allowed in here.ours | {place_of(module)}):
                found.append(imported)
        else:
            top = imported.split(".")[0]
            allowed = top not in IMPURE or not here.pure if top in sys.stdlib_module_names else top in here.others
            if not allowed:
                found.append(imported)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    assert violations(module, MODULES[module]) == []


def test_no_room_may_import_one_above_it() -> None:
    order = list(HOUSE)
    for name, here in HOUSE.items():
        for below in here.ours:
            assert order.index(place_of(below)) < order.index(name), f"{name} -> {below}"


def test_core_wire_and_settings_are_blind_to_each_other() -> None:
    for name in ("core", "wire", "settings"):
        assert HOUSE[name].ours <= {"errors"}


def test_core_and_wire_never_see_trio() -> None:
    assert HOUSE["core"].others == frozenset()
    assert HOUSE["wire"].others == {"msgspec"}


def test_each_foreign_package_has_its_room() -> None:
    for package, rooms in ONLY_IN.items():
        assert {name for name, here in HOUSE.items() if package in here.others} <= rooms


def test_what_the_table_allows_is_used() -> None:
    """Otherwise it is a door that somebody forgot to close."""
    for name, here in HOUSE.items():
        used = {
            imported for module, source in MODULES.items() if place_of(module) == name for imported in imports(source)
        }
        for below in here.ours:
            assert any((one + ".").startswith(f".{below}.") for one in used), f"{name} no longer needs {below}"
        for package in here.others:
            assert any(one.split(".")[0] == package for one in used), f"{name} no longer needs {package}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.order", "import trio"),
        ("core.order", "import msgspec"),
        ("core.order", "from llm_queue.wire.shapes import Delta"),
        ("core.order", "from llm_queue.settings import Settings"),
        ("core.order", "def f():\n    import time"),
        ("wire.shapes", "from llm_queue.core import jobs"),
        ("wire.shapes", "from llm_queue import settings"),
        ("settings", "from llm_queue.errors import QueueError"),
        ("dispatch.tickets", "from llm_queue.upstream.ollama import Ollama"),
        ("dispatch.dispatcher", "import httpx"),
        ("dispatch.dispatcher", "from llm_queue.web.app import create_app"),
        ("web.app", "from llm_queue.dispatch.dispatcher import Dispatcher"),
        ("web.app", "import hypercorn.trio"),
        ("web.listener", "from llm_queue.wire.shapes import Delta"),
        ("web.listener", "from quart import Quart"),
        ("upstream.ollama", "from llm_queue.core.scheduler import Scheduler"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert violations(module, source)
