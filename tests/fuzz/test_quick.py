"""A part of the fuzzer among the fast tests: the whole service in this process, on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from llm_queue.serve import serve
from llm_queue.settings import Settings
from llm_queue.settings.values import server_url
from llm_queue.testing import fake_ollama
from llm_queue.web.endpoint import LARGE
from tests.fuzz import honest
from tests.fuzz.honest import Honest
from tests.fuzz.inputs import CYCLE, make
from tests.fuzz.play import Bounds, play
from tests.fuzz.seeds import MODEL

SEED = 11
BEHAVIOUR = fake_ollama.Behaviour(
    models=[MODEL],
    load_seconds=0,
    token_seconds=0,
    capabilities=["completion", "tools", "thinking", "vision", "insert", "embedding"],
)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time jumps when nothing moves, but leaves the kernel a moment to carry bytes from socket to socket."""
    return trio.testing.MockClock(autojump_threshold=0.02)


async def never() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield 0


@asynccontextmanager
async def service() -> AsyncIterator[str]:
    """The service in front of a fake Ollama; its address."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(fake_ollama.serve, fake_ollama.FakeOllama(BEHAVIOUR))
        settings = Settings(
            engine="ollama",
            ollama_url=server_url()(url),
            model=MODEL,
            port=(0,),
            host="127.0.0.1",
            stall_limit=1,
            max_body=LARGE // 2,  # larger ones are checked in a thread, which a clock that jumps does not wait for
        )
        urls = await nursery.start(partial(serve, settings, environ={}, signals=never()))
        yield urls[0]
        nursery.cancel_scope.cancel()


async def test_two_rounds_of_every_kind_of_input_leave_the_service_well(clock: trio.testing.MockClock) -> None:
    numbers = iter(range(2 * len(CYCLE)))
    faults: list[str] = []

    async def player(port: int) -> None:
        for number in numbers:
            given = make(SEED, number)
            outcome = await play(port, given, Bounds())
            if outcome.faults:
                faults.append("\n".join([*outcome.faults, given.shown()]))

    async with service() as url:
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(player, int(url.rpartition(":")[2]))
        client = Honest(url)
        await client.run(rounds=1)
    assert faults == []
    assert client.faults == []
    assert [log for log in logs if log["log_level"] in ("error", "critical") or "exc_info" in log] == []


async def test_the_honest_client_asks_in_every_way_and_knows_a_wrong_answer(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honest.Way, "answer_to", lambda way, prompt: "something else")
    async with service() as url:
        client = Honest(url)
        await client.run(rounds=1)
    assert len(client.faults) == len(client.ways) > 6
    assert not client.answered


async def test_an_input_that_has_no_answer_is_found(clock: trio.testing.MockClock) -> None:
    """Against a server that takes everything, says nothing, and does not close."""

    async def silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, silent, 0, host="127.0.0.1"))
        given = next(one for one in (make(SEED, number) for number in range(len(CYCLE))) if one.kind == "valid")
        outcome = await play(listener.socket.getsockname()[1], given, Bounds())
        nursery.cancel_scope.cancel()
    assert [fault.partition(" within")[0] for fault in outcome.faults] == ["no whole answer", "not closed"]
