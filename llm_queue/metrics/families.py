"""Every metric: its name, its kind, its labels, and what it says. The documentation is drawn from this.

Seconds and tokens are whole units, as Prometheus wants them. The labels of each metric are bounded: lanes, states and
codes are those that there are, and models and clients are the busiest of them (:mod:`.names`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

WAITS: Final = (0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Bounds in seconds for waits: nothing at all up to half an hour."""

RUNS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 90.0, 180.0, 600.0)
"""For answers: an embedding takes a tenth of a second, and the default limit of a stream is ten minutes."""

LOADS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""For loads: from memory to a large model off a slow disk; the default limit is five minutes."""

FIRST_TOKENS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 90.0)
"""For the first piece of an answer, which a cold prompt delays; the default limit is 90 seconds."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``name`` is what a query says, and of a histogram what stands before ``_bucket``, ``_sum`` and
    ``_count``; ``bounds`` are a histogram's.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


# --- counted as it happens ---

JOBS: Final = Family(
    "llm_queue_jobs_total", "counter", "Jobs of the line that have ended, by lane and end.", ("lane", "state")
)
WAIT: Final = Family(
    "llm_queue_wait_seconds",
    "histogram",
    "Time in which a job neither loaded nor ran, of each job that was given the slot.",
    ("lane",),
    WAITS,
)
RUN: Final = Family(
    "llm_queue_run_seconds",
    "histogram",
    "Time from asking the upstream to the end of its answer, of each attempt that succeeded.",
    ("model",),
    RUNS,
)
FIRST_TOKEN: Final = Family(
    "llm_queue_first_token_seconds",
    "histogram",
    "Time from asking the upstream to the first piece of its answer.",
    ("model",),
    FIRST_TOKENS,
)
LOAD: Final = Family(
    "llm_queue_load_seconds", "histogram", "Time that a load took, of each that succeeded.", ("model",), LOADS
)
LOADS_FAILED: Final = Family("llm_queue_loads_failed_total", "counter", "Loads that did not succeed.", ("model",))
SWITCHES: Final = Family(
    "llm_queue_switches_total", "counter", "Attempts that needed another model or context size than the one before."
)
ATTEMPTS: Final = Family(
    "llm_queue_attempts_total", "counter", "Attempts at the upstream that have ended, by outcome.", ("outcome",)
)
PROMPT_TOKENS: Final = Family(
    "llm_queue_prompt_tokens_total", "counter", "Tokens of the prompts of whole answers.", ("model",)
)
CACHED_TOKENS: Final = Family(
    "llm_queue_cached_prompt_tokens_total",
    "counter",
    "Those tokens of prompts that the upstream found in its cache.",
    ("model",),
)
PROMPT_SECONDS: Final = Family(
    "llm_queue_prompt_seconds_total",
    "counter",
    "Time that the upstream took for prompts before their answers.",
    ("model",),
)
COMPLETION_TOKENS: Final = Family(
    "llm_queue_completion_tokens_total", "counter", "Tokens of whole answers.", ("model",)
)
CLIENT_JOBS: Final = Family(
    "llm_queue_client_jobs_total", "counter", "Jobs of the line that have ended, by client.", ("client",)
)
CLIENT_SLOT: Final = Family(
    "llm_queue_client_slot_seconds_total",
    "counter",
    "Slot time of each client: its loads and runs, once their job has ended, and holds for it.",
    ("client", "use"),
)

BYPASS_SIGNS: Final = Family(
    "llm_queue_bypass_signs_total",
    "counter",
    "Signs that somebody uses the upstream past the line: a model was `loaded` or is `gone`, or it is `busy`.",
    ("reason",),
)

# --- read when somebody asks ---

SLOT: Final = Family(
    "llm_queue_slot_seconds_total",
    "counter",
    "Time of the slot since the start: running and loading, or idle for one of the other reasons.",
    ("state",),
)
ACCEPTED: Final = Family("llm_queue_jobs_accepted_total", "counter", "Jobs that the line has taken.")
REJECTIONS: Final = Family(
    "llm_queue_rejections_total", "counter", "Requests that were refused and made no job, by error code.", ("code",)
)
RETRIES: Final = Family("llm_queue_retries_total", "counter", "Attempts that failed and were repeated.")
OUTAGES: Final = Family("llm_queue_outages_total", "counter", "Times that the upstream went away.")
SURPRISE_LOADS: Final = Family(
    "llm_queue_surprise_loads_total",
    "counter",
    "Answers that had to load their model, because something else had evicted it.",
)
HOLDS: Final = Family("llm_queue_holds_total", "counter", "Times that the slot was kept free for a program.")
HELD: Final = Family("llm_queue_held_seconds_total", "counter", "Time for which it was.")
UNKNOWN_LANES: Final = Family("llm_queue_unknown_lanes_total", "counter", "Jobs that named a lane that there is not.")
RELOADS_AVOIDED: Final = Family(
    "llm_queue_reloads_avoided",
    "gauge",
    "Loads that the same jobs in the order of their arrival would have cost more, so far.",
)
REMOTE_JOBS: Final = Family(
    "llm_queue_remote_jobs_total", "counter", "Jobs beside the line that have ended, by end.", ("state",)
)
REMOTE_RUNNING: Final = Family("llm_queue_remote_jobs_running", "gauge", "Jobs beside the line that run now.")
WAITING: Final = Family("llm_queue_waiting_jobs", "gauge", "Jobs that wait now.", ("lane",))
OCCUPIED: Final = Family(
    "llm_queue_slot_jobs", "gauge", "Jobs that have the slot now: 0 or 1 in each phase.", ("phase",)
)
UP: Final = Family("llm_queue_up", "gauge", "1 if a job that came now could be served, else 0.")
VLLM_WAITING: Final = Family(
    "vllm:num_requests_waiting", "gauge", "Jobs that wait now, as vLLM calls them.", ("model_name",)
)
VLLM_RUNNING: Final = Family(
    "vllm:num_requests_running", "gauge", "Jobs that load or run now, as vLLM calls them.", ("model_name",)
)
BUILD: Final = Family("llm_queue_build_info", "gauge", "Always 1: the version that runs.", ("version",))

COUNTED: Final = (
    JOBS,
    WAIT,
    RUN,
    FIRST_TOKEN,
    LOAD,
    LOADS_FAILED,
    SWITCHES,
    ATTEMPTS,
    PROMPT_TOKENS,
    CACHED_TOKENS,
    PROMPT_SECONDS,
    COMPLETION_TOKENS,
    CLIENT_JOBS,
    CLIENT_SLOT,
    BYPASS_SIGNS,
)
READ: Final = (
    SLOT,
    ACCEPTED,
    REJECTIONS,
    RETRIES,
    OUTAGES,
    SURPRISE_LOADS,
    HOLDS,
    HELD,
    UNKNOWN_LANES,
    RELOADS_AVOIDED,
    REMOTE_JOBS,
    REMOTE_RUNNING,
    WAITING,
    OCCUPIED,
    UP,
    VLLM_WAITING,
    VLLM_RUNNING,
    BUILD,
)
FAMILIES: Final = (*COUNTED, *READ)
