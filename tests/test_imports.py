"""What is imported when, and that nothing is collected meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from llm_queue.imports import uncollected


@pytest.mark.parametrize(
    ("wanted", "unwanted"),
    [
        ("cli", ("trio", "quart", "httpx", "structlog", "importlib.metadata", "llm_queue.serve", "llm_queue.demo")),
        ("terminal.run", ("quart", "hypercorn", "structlog", "llm_queue.serve", "llm_queue.dispatch", "llm_queue.web")),
        ("serve", ("llm_queue.upstream.embedded", "llm_queue.demo", "llm_queue.terminal", "llm_queue.simulate")),
    ],
)
def test_a_command_waits_for_no_modules_of_another(wanted: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, llm_queue.{wanted}; print([name for name in {unwanted!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("usual", [True, False])
def test_nothing_is_collected_during_imports_and_then_it_is_as_before(usual: bool) -> None:
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if usual else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() is usual
        assert gc.get_freeze_count() > frozen  # and what was made is left out of what is collected later
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
