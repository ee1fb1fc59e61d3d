"""Profiles of Hypothesis: seconds by default; ``HYPOTHESIS_PROFILE=nightly`` for more than a million rule steps.

``mutants`` is the default without shrinking: a mutant only has to be found out.
"""

from __future__ import annotations

import os

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
