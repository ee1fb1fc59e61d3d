"""A job: its states, its moves, and what the line has to know of it.

House rules: every transition stands in :data:`TRANSITIONS`, and nothing else in the project sets a state. What the job
asks the model is opaque here; the diagram in the documentation is drawn from the table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from llm_queue.core.keys import RunnerKey


class Lane(enum.IntEnum):
    """Class of service; the smaller number goes first."""

    INTERACTIVE = 0
    NORMAL = 1
    BACKGROUND = 2

    @property
    def label(self) -> str:
        """What clients call it."""
        return self.name.lower()


class State(enum.Enum):
    """Where a job is in its life. The last five are ends: a job gets to exactly one of them, once."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """True for an end."""
        return self not in TRANSITIONS


TRANSITIONS: Final[dict[State, dict[State, str]]] = {
    State.QUEUED: {
        State.RUNNING: "picked, and its model is resident",
        State.FAILED: "its model is unknown or cannot be loaded, or the upstream stayed away",
        State.TIMED_OUT: "its model did not load in time",
        State.CANCELLED: "its caller or somebody else ended it, a newer request took its place, or the service stopped",
        State.EXPIRED: "it waited longer than its max wait",
    },
    State.RUNNING: {
        State.QUEUED: "the attempt failed and may be repeated",
        State.SUCCEEDED: "the upstream said that it is done",
        State.FAILED: "the upstream refused it, or broke on the last attempt",
        State.TIMED_OUT: "the last attempt ran out of time",
        State.CANCELLED: "its caller or somebody else ended it, a newer request took its place, or the service stopped",
    },
}
"""From each state to each that may follow it, and when."""


REMEMBERED_MOVES: Final = 8
"""Moves to another lane that a job remembers, to say later why others went before it."""


@dataclass(slots=True, eq=False)
class Job:
    """One accepted request for model work. Times are in seconds of the caller's clock.

    ``model`` is an identity, or None while the upstream has not been there to say which model the name stands for;
    ``wanted_ctx`` is the context size that this job needs, already within floor and trained size; ``fitted_ctx`` is the
    same if it was raised because the prompt would not have fitted (None: it was not). ``max_attempts`` is how often it
    may be tried (None: as often as any job). ``share`` is its client's weight among others in the same lane.
    ``label`` tells the conversations of one client with one model apart ("": nothing does), and says nothing of them.
    ``pause`` is for how many seconds its program usually pauses before it asks so, as the line found when it came.
    ``busy_since`` is when the slot was given to it, while it has it. ``moves`` are the last times at which it was
    put into another lane, each with the lane in which it was before.
    ``committed`` is true once the caller has been given a piece of the answer.
    """

    id: str
    lane: Lane
    client: str
    model: str | None
    wanted_ctx: int
    arrival: int
    submitted_at: float
    max_wait: float | None = None
    max_attempts: int | None = None
    size: int = 0
    fitted_ctx: int | None = None
    share: float = 1.0
    label: str = ""
    pause: float = 0.0
    state: State = State.QUEUED
    attempts: int = 0
    broken_loads: int = 0
    picked: bool = False
    committed: bool = False
    cancel_requested: bool = False
    started_at: float | None = None
    busy_since: float | None = None
    moves: tuple[tuple[float, Lane], ...] = ()
    ended_at: float | None = None
    load_seconds: float = 0.0
    run_seconds: float = 0.0
    key: RunnerKey | None = field(default=None)

    @property
    def expires_at(self) -> float | None:
        """When its patience ends; never, once it has been picked (a load for it counts as a start)."""
        if self.max_wait is None or self.picked or self.state is not State.QUEUED:
            return None
        return self.submitted_at + self.max_wait

    def waited(self, now: float) -> float:
        """Seconds until ``now``, or until its end, in which it neither loaded nor ran."""
        until = self.ended_at if self.ended_at is not None else now
        until = until if self.busy_since is None else self.busy_since
        return max(0.0, until - self.submitted_at - self.load_seconds - self.run_seconds)

    def change_lane(self, lane: Lane, now: float) -> None:
        """Somebody puts it into another lane."""
        self.moves = (*self.moves, (now, self.lane))[-REMEMBERED_MOVES:]
        self.lane = lane

    def move(self, to: State, now: float) -> None:
        """Go to another state, or raise :class:`IllegalTransition`."""
        if to not in TRANSITIONS.get(self.state, {}):
            raise IllegalTransition(f"job {self.id} cannot go from {self.state.value} to {to.value}")
        self.state = to
        if to is State.RUNNING:
            self.attempts += 1
            if self.started_at is None:
                self.started_at = now
        elif to.ended:
            self.ended_at = now


class IllegalTransition(AssertionError):
    """A bug in the line: a move that :data:`TRANSITIONS` does not have."""
