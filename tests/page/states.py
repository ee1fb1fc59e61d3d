"""States of the line as ``/queue`` gives them, made up: what a busy hour looks like takes an hour otherwise."""

from __future__ import annotations

import math
from typing import Any

PROGRAMS = ("Claude Code", "Open WebUI", "mail-sorter.py", "Zed", "nightly-index.py", "reader extension")
LANES = ("interactive", "interactive", "normal", "normal", "background", "background")
MODELS = ("granite4.1:8b", "qwen3-coder:30b")

State = dict[str, Any]


def empty() -> State:
    """A service that has just begun."""
    return {
        "upstream": {"name": "ollama", "url": "http://localhost:11434", "away": None},
        "waiting": {"interactive": 0, "normal": 0, "background": 0},
        "slot": None,
        "held": False,
        "held_for": None,
        "hold": None,
        "turn": None,
        "paused": None,
        "draining": False,
        "bypass": None,
        "jobs": [],
        "models": [],
        "lanes": {},
        "programs": [],
        "cold_prompts": [],
        "finished": [],
        "accepted": 0,
        "ended": {},
        "remote": {"running": 0, "ended": {}},
        "rejected": {},
        "loads": 0,
        "loads_failed": 0,
        "load_seconds": 0.0,
        "reloads_avoided": 0,
        "surprise_loads": 0,
        "retries": 0,
        "outages": 0,
        "unknown_lanes": 0,
        "holds": 0,
        "held_seconds": 0.0,
    }


def job(number: int, **changes: Any) -> State:
    """A job that waits at this place."""
    who = number % len(PROGRAMS)
    starts = 6.0 * number
    return {
        "job": f"job_{number:04}",
        "id": f"job_{number:04}",
        "client": PROGRAMS[who],
        "lane": LANES[who],
        "model": MODELS[number // 8 % 2],
        "num_ctx": 16384,
        "resident": number // 8 % 2 == 0,
        "state": "queued",
        "place": number,
        "starts_in_s": starts,
        "starts_in_low_s": 0.7 * starts,
        "starts_in_high_s": 1.4 * starts + 2,
        "wait_s": 3.0 + number,
        "waited_s": 3.0 + number,
        **changes,
    }


def busy(waiting: int, listed: int = 50) -> State:
    """One job runs, ``waiting`` wait, and there was an hour of work before."""
    running = job(
        0,
        state="running",
        place=0,
        starts_in_s=None,
        starts_in_low_s=None,
        starts_in_high_s=None,
        tokens=412,
        tokens_per_s=38.2,
        running_s=10.8,
        first_token_s=1.2,
    )
    jobs = [job(number) for number in range(1, min(waiting, listed - 1) + 1)]
    by_lane = {"interactive": 0, "normal": 0, "background": 0}
    for number in range(1, waiting + 1):
        by_lane[LANES[number % len(LANES)]] += 1
    return empty() | {
        "waiting": by_lane,
        "slot": {"job": running["job"], "phase": "running", "client": running["client"]},
        "jobs": [running, *jobs],
        "turn": {"used_s": 7.4, "length_s": 20.0, "cost_s": 6.1},
        "models": [
            {"name": MODELS[0], "num_ctx": 16384, "size_bytes": 6_120_000_000, "vram_bytes": 6_120_000_000},
            {"name": "all-minilm:33m", "num_ctx": 512, "size_bytes": 91_000_000, "vram_bytes": 0},
        ],
        "lanes": {
            "interactive": {"waits": waits(1.1, 2.0, 4)},
            "normal": {"waits": waits(9.0, 2.6, 17)},
            "background": {"waits": waits(60.0, 3.0, 31)},
        },
        "programs": [
            program("Claude Code", 912.0, 14.0, 61, 9, 0.86),
            program("nightly-index.py", 640.0, 71.0, 412, 3, 0.1),
            program("Open WebUI", 318.0, 22.0, 37, 2, 0.71),
            program("mail-sorter.py", 201.0, 0.0, 120, 1, 0.93),
            program("Zed", 96.0, 6.0, 88, 4, 0.64),
            program("reader extension", 40.0, 0.0, 11, 0, None),
            program("curl", 4.0, 0.0, 2, 0, None),
        ],
        "cold_prompts": [
            cold("Claude Code", 79, 18_422, 11.9, 128),
            cold("Zed", None, 2_210, 1.6, 540),
            cold("Claude Code", 79, 18_401, 11.7, 1_310),
        ],
        "finished": [finished(number) for number in range(20)],
        "accepted": 731 + waiting,
        "ended": {"succeeded": 712, "failed": 2, "timed_out": 0, "cancelled": 15, "expired": 1},
        "rejected": {"line_full": 0, "forbidden": 3},
        "loads": 23,
        "load_seconds": 113.0,
        "reloads_avoided": 418,
        "holds": 31,
        "held_seconds": 44.0,
    }


def waits(usual: float, spread: float, shift: int) -> list[list[float]]:
    """An hour of minutes, newest last: the median swings around ``usual``, the 95th percentile above it."""
    found = []
    for minute in range(59, -1, -1):
        swing = math.sin((minute + shift) / 5.5) + 0.5 * math.sin((minute * shift) / 1.9)
        median = round(usual * math.exp(0.6 * swing), 3)
        found.append([60.0 * minute, median, round(median * spread, 3), 4 + minute % 7])
    return found


def program(client: str, model_s: float, load_s: float, jobs: int, cold_prompts: int, cached: float | None) -> State:
    prompt = 4000 * jobs
    return {
        "client": client,
        "model_s": model_s,
        "load_s": load_s,
        "jobs": jobs,
        "cold_prompts": cold_prompts,
        "cached_tokens": round(prompt * cached) if cached is not None else 0,
        "prompt_tokens": prompt if cached is not None else 0,
    }


def cold(client: str, at: int | None, tokens: int, seconds: float, ago: float) -> State:
    return {"client": client, "at_character": at, "tokens": tokens, "seconds": seconds, "seconds_ago": ago}


def finished(number: int) -> State:
    """A job that has ended; one in seven did not succeed."""
    bad = number % 7 == 3
    who = (5 * number) % len(PROGRAMS)
    return {
        "job": f"done_{number:04}",
        "request_id": f"req_{number:04}",
        "client": PROGRAMS[who],
        "lane": LANES[who],
        "model": MODELS[number // 6 % 2],
        "num_ctx": 16384,
        "state": "cancelled" if bad else "succeeded",
        "attempts": 1,
        "wait_s": 1.5 * number % 14,
        "load_s": 6.1 if number % 6 == 5 else 0.0,
        "run_s": 2.0 + number % 5,
        "prompt_tokens": 4000,
        "completion_tokens": None if bad else 120 + 17 * number,
        "finish": None if bad else "stop",
        "code": "cancelled" if bad else None,
        "error": "The job was cancelled." if bad else None,
    }


def explained(report: State, *sentences: str, picks: tuple[State, ...] = (), bound: str | None = None) -> State:
    """The report with its explanation."""
    return report | {"explanation": {"sentences": list(sentences), "picks": list(picks), "bound": bound}}


def pick(client: str, model: str, rule: str, **costs: float) -> State:
    """One pick of an explanation."""
    nothing = {"load_s": None, "cold_prompt_s": None, "hold_s": None}
    return {"job": "job_before", "client": client, "model": model, "rule": rule} | nothing | costs
