"""What is shown of the line beside who waits and what was counted, as frozen values: why a job waits, what is loaded,
the turn, and the last hour. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llm_queue.dispatch.values import Value


class ExplainedPick(Value, frozen=True, kw_only=True):
    """One pick that a job waited for, or its own.

    ``rule`` is why it went before that job (:class:`~llm_queue.core.reasons.Rule`). ``load_s`` is the load that it
    caused, ``cold_prompt_s`` what its prompt took that the upstream had not in memory, and ``hold_s`` how long the slot
    was kept free before it; each is None if there was none.
    """

    job: str
    client: str
    model: str
    rule: str
    load_s: float | None = None
    cold_prompt_s: float | None = None
    hold_s: float | None = None


class Explanation(Value, frozen=True, kw_only=True):
    """Why a job waits or waited, in one or two sentences and as data.

    ``picks`` are what went before it since it came, the latest last, and its own; only the last ones if there were
    many. ``bound`` says what bounds its wait, while it waits.
    """

    sentences: tuple[str, ...]
    picks: tuple[ExplainedPick, ...]
    bound: str | None = None


class LoadedModel(Value, frozen=True, kw_only=True):
    """A model that is loaded. Its sizes in bytes, in all and on the GPU, are None where the upstream does not say."""

    name: str
    num_ctx: int
    size_bytes: int | None
    vram_bytes: int | None


class TurnStatus(Value, frozen=True, kw_only=True):
    """The turn of the models that are loaded: seconds of slot time used, its length, and what a switch costs."""

    used_s: float
    length_s: float
    cost_s: float


class HoldStatus(Value, frozen=True, kw_only=True):
    """For which program the slot is kept free, with which model, and for how many seconds more."""

    client: str
    model: str
    until_in_s: float


class LaneHour(Value, frozen=True, kw_only=True):
    """The waits in a lane in the last hour: a row for each minute in which jobs of it ended that had started.

    A row is how many seconds ago the minute ended, the median and the 95th percentile of the waits, and their number.
    """

    waits: tuple[tuple[float, float, float, int], ...]


class ProgramHour(Value, frozen=True, kw_only=True):
    """What was done for one program in the last hour. Tokens are those of prompts, as far as they were counted."""

    client: str
    model_s: float
    load_s: float
    jobs: int
    cold_prompts: int
    cached_tokens: int
    prompt_tokens: int


class ColdPrompt(Value, frozen=True, kw_only=True):
    """A prompt of which the upstream had less than half in memory; ``seconds`` is what it took to compute.

    ``at_character`` is where it differs from the program's last one, where that is known.
    """

    client: str
    at_character: int | None
    tokens: int
    seconds: float
    seconds_ago: float


class Insight(Value, frozen=True, kw_only=True):
    """What else is shown of the line than who waits and what was counted."""

    models: tuple[LoadedModel, ...]
    turn: TurnStatus
    hold: HoldStatus | None
    lanes: Mapping[str, LaneHour]
    programs: tuple[ProgramHour, ...]
    cold_prompts: tuple[ColdPrompt, ...]


NO_INSIGHT: Final = Insight(
    models=(),
    turn=TurnStatus(used_s=0.0, length_s=0.0, cost_s=0.0),
    hold=None,
    lanes={},
    programs=(),
    cold_prompts=(),
)
"""Of a line of which nothing else is known."""
