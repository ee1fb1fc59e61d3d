"""What each engine makes of the order to free its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_queue.core.events import Outcome
from llm_queue.dispatch.unload import unload_all
from llm_queue.upstream.catalog import Catalog
from tests.upstream.stand_in import children
from tests.upstream.test_conformance import Subjects, embedded, ollama, openai, scripted


@pytest.mark.parametrize("subjects", [scripted, ollama, embedded], ids=lambda made: made.__name__)
async def test_an_engine_that_can_unload_has_nothing_loaded_afterwards(subjects: Subjects, folder: Path) -> None:
    async with subjects(folder) as subject:
        upstream = subject.upstream
        await upstream.load((await upstream.models())[0], 4096)
        assert await upstream.resident()
        ended = await unload_all(Catalog(upstream))
        assert (ended.outcome, ended.error, ended.left) == (Outcome.SUCCEEDED, None, frozenset())
        assert await upstream.resident() == frozenset()
        assert subjects is not embedded or not children()


async def test_a_server_of_its_own_mind_keeps_its_models_and_says_so(folder: Path) -> None:
    async with openai(folder) as subject:
        ended = await unload_all(Catalog(subject.upstream))
        assert ended.error is not None
        assert "it decides that by itself" in ended.error.message
        assert ended.left == await subject.upstream.resident()


async def test_what_is_away_is_told_as_away(folder: Path) -> None:
    async with ollama(folder) as subject:
        assert subject.stop is not None
        await subject.stop()
        ended = await unload_all(Catalog(subject.upstream))
        assert (ended.outcome, ended.left) == (Outcome.UNREACHABLE, None)
