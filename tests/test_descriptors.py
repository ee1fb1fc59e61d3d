"""The limit of open files: raised at the start, as far as the system lets us."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from llm_queue.descriptors import BEYOND, OPEN_MAX, PLENTY, RESERVE, most_connections, raise_limit, shortage

if sys.platform == "win32":
    pytest.skip("Windows has no such limit", allow_module_level=True)

import resource

INFINITE = resource.RLIM_INFINITY


class System:
    """A kernel with a limit, which may refuse to raise it beyond ``grants``."""

    def __init__(self, soft: int, hard: int, grants: float = float("inf")) -> None:
        self.limits = (soft, hard)
        self.grants = grants

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert limits[1] == self.limits[1]  # the hard one is not ours to change
        if limits[0] > self.grants:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "grants", "max_waiting", "then"),
    [
        (1024, 524288, None, 2000, PLENTY),  # a laptop
        (1024, 4096, None, 2000, 4096),
        (1024, 524288, None, 100_000, 100_000 + BEYOND + RESERVE),
        (1024, INFINITE, None, 2000, PLENTY),
        (256, INFINITE, OPEN_MAX, 2000, OPEN_MAX),  # macOS
        (1024, 524288, 1024, 2000, 1024),  # a sandbox that refuses
        (100_000, 524288, None, 2000, 100_000),  # never lowered
        (4096, 4096, None, 2000, 4096),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_the_system_lets_us(
    soft: int, hard: int, grants: int | None, max_waiting: int, then: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = System(soft, hard, float("inf") if grants is None else grants)
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    assert raise_limit(max_waiting) == then
    assert system.limits == (then, hard)


def test_where_there_is_no_limit_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (INFINITE, INFINITE))

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit(2000) is None


def test_a_line_that_cannot_be_held_is_warned_of() -> None:
    assert most_connections(1024) == 960
    warning = shortage(1024, 2000)
    assert warning is not None
    assert all(word in warning for word in ("--max-waiting is 2000", "1024 open files", "960 callers", "LimitNOFILE"))
    assert shortage(2064, 2000) is None
    assert shortage(None, 1_000_000) is None
    assert most_connections(None) is None
    assert most_connections(40) == 20  # half of next to nothing
