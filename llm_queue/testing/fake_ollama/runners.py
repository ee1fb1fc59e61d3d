"""What is resident at the fake Ollama, and what it costs to change that."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from llm_queue.testing.fake_ollama.behaviour import Refusal
from llm_queue.testing.prompt_cache import PromptCache

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass
class Work:
    """A request for model work. Times are trio's; ``outcome`` is running, done, broken, failed, refused, aborted."""

    path: str
    model: str
    num_ctx: int
    prompt: str
    keep_alive: Any
    start: float
    end: float | None = None
    outcome: str = "running"
    tokens: int = 0
    remote: bool = False


@dataclass
class Load:
    """One load of a model; ``outcome`` is running, done, aborted or failed."""

    model: str
    num_ctx: int
    start: float
    end: float | None = None
    outcome: str = "running"


@dataclass
class Runner:
    """A resident model. It goes when nobody has used it for ``keep_alive`` seconds, and its ``prompts`` with it."""

    num_ctx: int
    keep_alive: float
    used: float
    prompts: PromptCache


class Runners:
    """Runs one request after the other, and loads first when the model or its context is not what is resident."""

    def __init__(self, max_loaded: int, keep_alive: float, kept_prompts: int = 0) -> None:
        self.loads: list[Load] = []
        self.load_seconds = 0.0
        self.load_error: str | None = None
        self._max_loaded = max_loaded
        self._keep_alive = keep_alive
        self._kept_prompts = kept_prompts
        self._turn = trio.Lock()
        self._runners: dict[str, Runner] = {}  # by name, the least recently used first

    @asynccontextmanager
    async def use(self, name: str, num_ctx: int, keep_alive: float | None) -> AsyncIterator[float]:
        """Have the model to oneself, resident at that size; gives the seconds that the load took.

        Without a ``keep_alive`` of its own a request leaves the runner's as it is. Raises :class:`Refusal` when the
        load fails.
        """
        async with self._turn:
            began = trio.current_time()
            self._expire()
            runner = self._runners.pop(name, None)
            if runner is None or runner.num_ctx != num_ctx:
                while len(self._runners) >= self._max_loaded:
                    del self._runners[next(iter(self._runners))]
                await self._load(Load(name, num_ctx, trio.current_time()))
                runner = Runner(num_ctx, self._keep_alive, trio.current_time(), PromptCache(self._kept_prompts))
            if keep_alive is not None:
                runner.keep_alive = keep_alive
            self._runners[name] = runner
            try:
                yield trio.current_time() - began
            finally:
                runner.used = trio.current_time()

    def unload(self, name: str) -> None:
        """It goes as soon as nobody uses it. What is not there is not loaded for this."""
        if name in self._runners:
            self._runners[name].keep_alive = 0.0

    def prompts(self, name: str) -> PromptCache:
        """What the runner of that name, which is there, keeps of prompts."""
        return self._runners[name].prompts

    def resident(self) -> dict[str, int]:
        """The context size of each resident model."""
        if not self._turn.locked():
            self._expire()
        return {name: runner.num_ctx for name, runner in self._runners.items()}

    def _expire(self) -> None:
        now = trio.current_time()
        for name, runner in list(self._runners.items()):
            if now - runner.used >= runner.keep_alive:
                del self._runners[name]

    async def _load(self, load: Load) -> None:
        self.loads.append(load)
        load.outcome = "aborted"
        try:
            await trio.sleep(self.load_seconds)
            load.outcome = "done"
            if self.load_error is not None:
                load.outcome = "failed"
                raise Refusal(500, self.load_error)
        finally:
            load.end = trio.current_time()


def tagged(name: str) -> str:
    """A name with its tag."""
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


def digest_of(name: str) -> str:
    """The digest that the fake gives to a model of that name."""
    return hashlib.sha256(tagged(name).encode()).hexdigest()


def seconds_of(keep_alive: Any) -> float:
    """A lifetime as Ollama reads it: a number of seconds or a Go duration; below 0 is for ever."""
    if isinstance(keep_alive, (int, float)):
        return float(keep_alive) if keep_alive >= 0 else math.inf
    parts = re.findall(r"([\d.]+)(h|ms|m|s)", str(keep_alive))
    if not parts or "".join(number + unit for number, unit in parts) != str(keep_alive).lstrip("-"):
        raise Refusal(400, _against(str(keep_alive)))
    return math.inf if str(keep_alive).startswith("-") else sum(float(number) * _UNITS[unit] for number, unit in parts)


def _against(duration: str) -> str:
    """What Go says against a duration."""
    number = re.match(r"-?[\d.]+", duration)
    if number is None:
        return f'time: invalid duration "{duration}"'
    unit = duration[number.end() :]
    complaint = f'unknown unit "{unit}"' if unit else "missing unit"
    return f'time: {complaint} in duration "{duration}"'
