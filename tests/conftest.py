"""What chance has in the tests, so that a run can be repeated.

Profiles of Hypothesis: seconds by default, the same examples each time; ``HYPOTHESIS_PROFILE=nightly`` for more than a
million rule steps. ``mutants`` is the default without shrinking: a mutant only has to be found out.

pytest-randomly draws the order of the tests from a seed that it prints. ``pytest --randomly-seed=SEED``
repeats the order, and, by the hook below, the order in which trio runs the tasks of each test.
"""

from __future__ import annotations

import os
import random

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings

settings.register_profile("default", deadline=None, derandomize=True, max_examples=60, stateful_step_count=60)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=14_000,  # of the machine: about 80 steps each, so 1.1 million in some twenty minutes
    stateful_step_count=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("mutants", settings.get_profile("default"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def seed_schedule(item: pytest.Item) -> None:
    """Let trio's choice among tasks that could run depend on the session's seed and the test's name alone."""
    schedule: random.Random = trio._core._run._r  # what Hypothesis is given too; trio has no public name for it
    schedule.seed(f"{item.config.getoption('randomly_seed', 0)} {item.nodeid}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed_schedule(item)
