"""What must be resident at the upstream to run a job."""

from __future__ import annotations

from typing import NamedTuple


class RunnerKey(NamedTuple):
    """A model at a context size. Going to a key that is not resident costs a load.

    ``model`` is the model's identity, its digest where it is known; ``num_ctx`` is in tokens, and 0 where the upstream
    has no context size to choose.
    """

    model: str
    num_ctx: int
