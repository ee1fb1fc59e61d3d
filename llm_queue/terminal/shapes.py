"""What a service says of its line, as far as a terminal shows it.

Every field may be missing: the service that runs may be older than this command, or newer. Seconds are floats.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Loose(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a service sent. What it has and we do not know is left out."""


class Upstream(Loose, frozen=True, kw_only=True):
    """What is behind the line; ``away`` says why nothing can be served."""

    name: str = ""
    url: str = ""
    away: str | None = None


class JobView(Loose, frozen=True, kw_only=True):
    """One job that has not ended. ``tokens``, ``tokens_per_s`` and ``running_s`` are those of the one that runs."""

    job: str = ""
    client: str = ""
    lane: str = ""
    model: str = ""
    num_ctx: int | None = None
    resident: bool = True
    state: str = ""
    place: int = 0
    wait_s: float = 0.0
    starts_in_s: float | None = None
    starts_in_low_s: float | None = None
    starts_in_high_s: float | None = None
    tokens: int | None = None
    tokens_per_s: float | None = None
    running_s: float | None = None


class LoadedModel(Loose, frozen=True, kw_only=True):
    """A model that is loaded now."""

    name: str = ""
    num_ctx: int | None = None
    size_bytes: int | None = None
    vram_bytes: int | None = None


class TurnView(Loose, frozen=True, kw_only=True):
    """How much of the turn of the loaded models is used."""

    used_s: float = 0.0
    length_s: float = 0.0


class HoldView(Loose, frozen=True, kw_only=True):
    """For whom the slot is kept free, and for how long at most."""

    client: str = ""
    model: str = ""
    until_in_s: float | None = None


class Paused(Loose, frozen=True, kw_only=True):
    """Since when nothing starts, whether the models were unloaded, and why some were not though they were to be."""

    since_s: float = 0.0
    unloaded: bool = False
    kept: str | None = None


class Bypass(Loose, frozen=True, kw_only=True):
    """Somebody uses the upstream past the line."""

    reason: str = ""
    program: str | None = None
    since_s: float = 0.0


class ProgramView(Loose, frozen=True, kw_only=True):
    """What one program took in the last hour."""

    client: str = ""
    model_s: float = 0.0
    load_s: float = 0.0
    jobs: int = 0
    cold_prompts: int = 0


class LaneView(Loose, frozen=True, kw_only=True):
    """The waits of one lane: for each minute of the last hour seconds ago, median, 95 %, and how many jobs."""

    waits: list[tuple[float, float | None, float | None, int]] = []


class ColdPrompt(Loose, frozen=True, kw_only=True):
    """A prompt that had to be read anew."""

    client: str = ""
    at_character: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    seconds_ago: float | None = None


class Queue(Loose, frozen=True, kw_only=True):
    """``GET /queue``."""

    upstream: Upstream = Upstream()
    waiting: dict[str, int] = {}
    jobs: list[JobView] = []
    held: bool = False
    held_for: str | None = None
    hold: HoldView | None = None
    turn: TurnView | None = None
    models: list[LoadedModel] | None = None
    paused: Paused | None = None
    draining: bool = False
    bypass: Bypass | None = None
    loads: int = 0
    reloads_avoided: int = 0
    accepted: int = 0
    ended: dict[str, int] = {}
    lanes: dict[str, LaneView] = {}
    programs: list[ProgramView] = []
    cold_prompts: list[ColdPrompt] = []
    finished: list[JobRef] = []


class JobRef(Loose, frozen=True, kw_only=True):
    """A job that has ended, by its id."""

    job: str = ""


class Pick(Loose, frozen=True, kw_only=True):
    """What got the slot before a job, and by which rule."""

    job: str = ""
    client: str = ""
    model: str = ""
    rule: str = ""
    load_s: float | None = None
    cold_prompt_s: float | None = None
    hold_s: float | None = None


class Explanation(Loose, frozen=True, kw_only=True):
    """Why a job waits, or waited."""

    sentences: list[str] = []
    picks: list[Pick] = []
    bound: str | None = None


class Report(Loose, frozen=True, kw_only=True):
    """``GET /queue/jobs/ID``."""

    job: str = ""
    request_id: str = ""
    client: str = ""
    lane: str = ""
    model: str = ""
    num_ctx: int | None = None
    state: str = ""
    attempts: int = 0
    wait_s: float = 0.0
    load_s: float = 0.0
    run_s: float = 0.0
    prompt_s: float | None = None
    ahead: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish: str | None = None
    error: str | None = None
    explanation: Explanation | None = None


class ModelEntry(Loose, frozen=True, kw_only=True):
    """One of ``GET /v1/models``; ``context_length`` is what a request gets, in tokens."""

    id: str = ""
    context_length: int | None = None
    meta: dict[str, Any] = {}


class ModelList(Loose, frozen=True, kw_only=True):
    """``GET /v1/models``."""

    data: list[ModelEntry] = []


class Ready(Loose, frozen=True, kw_only=True):
    """``GET /ready``, without which it is no service of ours."""

    ready: bool | None = None
    reason: str = ""
