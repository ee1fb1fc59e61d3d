"""Real clients in front of a started service, and a table of what was seen with each."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.clients.features import FEATURES, Client, Features, Place, feature_of, missing
from tests.clients.install import Installed
from tests.e2e.conftest import Ollama, Service

SEEN = pytest.StashKey[dict[str, dict[str, str]]]()


@pytest.fixture(scope="session")
def installed() -> Installed:
    """The clients, as ``python -m tests.clients.install`` has laid them."""
    here = Installed.here()
    here.copy_scripts()
    return here


@pytest.fixture(scope="session")
def ollama() -> Iterator[Ollama]:
    started = Ollama("--model", "fake", "--load-seconds", "0.05")
    yield started
    started.end()


@pytest.fixture(scope="session")
def service(ollama: Ollama) -> Iterator[Service]:
    started = Service(ollama.url)
    yield started
    started.end()


@pytest.fixture
def place(ollama: Ollama, service: Service, installed: Installed, tmp_path: Path) -> Iterator[Place]:
    yield Place(ollama, service, installed, tmp_path)
    assert ollama.log()["max_in_flight"] <= 1


@pytest.fixture(autouse=True)
def has_the_feature(request: pytest.FixtureRequest) -> None:
    parameters = getattr(request.node, "callspec", None)
    if parameters is not None and isinstance(parameters.params.get("client"), Client):
        missing(parameters.params["client"], feature_of(request.function))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a family with each of its clients."""
    if metafunc.cls is not None and issubclass(metafunc.cls, Features) and "client" in metafunc.fixturenames:
        metafunc.parametrize("client", metafunc.cls.clients, ids=lambda client: client.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember, for the table, how each test of a client ended."""
    report = yield
    client = getattr(item, "callspec", None) and item.callspec.params.get("client")  # type: ignore[attr-defined]
    if isinstance(client, Client) and (report.when == "call" or report.outcome != "passed"):
        row = item.config.stash.setdefault(SEEN, {}).setdefault(client.name, {})
        feature = feature_of(item.originalname)  # type: ignore[attr-defined]
        if report.skipped:
            row[feature] = "has none" if feature in client.without else "not installed"
        else:
            row[feature] = "yes" if report.passed and row.get(feature) != "NO" else "NO"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table client x feature."""
    seen = terminalreporter.config.stash.get(SEEN, {})
    if seen:
        terminalreporter.section("client x feature")
        terminalreporter.write_line(f"| client | {' | '.join(FEATURES)} |")
        terminalreporter.write_line("|---" * (1 + len(FEATURES)) + "|")
        for name, row in sorted(seen.items(), key=lambda row: row[0].casefold()):
            terminalreporter.write_line(f"| {name} | {' | '.join(row.get(feature, '') for feature in FEATURES)} |")
