"""The service in front of a real Ollama, with a tap on the wire between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Service
from tests.real.install_ollama import CannotInstall
from tests.real.ollama import FIRST, OwnOllama, RealOllama, any_ollama, own_ollama
from tests.real.tap import Tap


@pytest.fixture(scope="session")
def ollama() -> Iterator[RealOllama]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(any_ollama())
        except CannotInstall as error:
            pytest.fail(str(error), pytrace=False)
        yield found


@pytest.fixture
def own(ollama: RealOllama) -> Iterator[OwnOllama]:
    """One that may be killed, even if the other tests use one that may not."""
    if isinstance(ollama, OwnOllama):
        yield ollama
        return
    with own_ollama() as started:
        if started is None:
            pytest.skip("the Ollama that was named is not ours to kill, and there is no other")
        yield started


@pytest.fixture
def tap(ollama: RealOllama) -> Iterator[Tap]:
    """Holds, after each test, that there was never more than one request for model work in flight."""
    where = urlsplit(ollama.url)
    tap = Tap((where.hostname or "127.0.0.1", where.port or 80))
    yield tap
    tap.close()
    assert tap.most_in_flight <= 1


@pytest.fixture
def start_service(tap: Tap) -> Iterator[Callable[..., Service]]:
    with contextlib.ExitStack() as started:

        def start(*flags: str, url: str = tap.url, num_ctx: int = 2048) -> Service:
            service = Service(url, *flags, environ={"OLLAMA_MODEL": FIRST, "OLLAMA_NUM_CTX": str(num_ctx)})
            service.http.timeout = 120
            started.callback(service.end)
            return service

        yield start


@pytest.fixture
def service(ollama: RealOllama, start_service: Callable[..., Service]) -> Service:
    """It starts with nothing loaded: it would adopt what is."""
    ollama.unload()
    return start_service()
