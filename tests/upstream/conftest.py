"""What the tests of the embedded engine share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_queue.upstream.embedded import Embedded
from tests.upstream.stand_in import STAND_IN, children


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("beta", "Alpha", "dies", "garbled", "huge", "mute", "no-libgomp", "silent"):
        (tmp_path / f"{name}.gguf").write_bytes(b"")
    return tmp_path


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[Embedded]:
    engine = Embedded(folder, command=STAND_IN)
    yield engine
    await engine.aclose()
    assert not children()
