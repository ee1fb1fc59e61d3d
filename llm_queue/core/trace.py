"""A record of all that a scheduler heard and answered, as JSON lines, and its replay.

There is no prompt and no answer in it, and of errors only their codes. Client names, job ids and the identities of
models are in it. The first line says what the scheduler was made with; each other line is one event, or time that
passed, with the actions that followed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from llm_queue.core.actions import Abort, Action, Requeued, Settle, StartAttempt, StartLoad
from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import (
    AttemptEnded,
    DrainBegan,
    Event,
    Left,
    LoadEnded,
    Moved,
    Outcome,
    Paused,
    ProbeEnded,
    ResidentReported,
    Resolved,
    Resumed,
    Stopped,
    Submitted,
    UnloadEnded,
)
from llm_queue.core.jobs import Job, Lane
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import TurnOrder
from llm_queue.core.prompts import Ending, PromptWork
from llm_queue.core.rules import OrderRules
from llm_queue.core.scheduler import Scheduler
from llm_queue.core.seat import Seat
from llm_queue.core.verdict import RetryLimits
from llm_queue.errors import QueueError

FORMAT: Final = 1
"""The number in the first line. It changes when older traces can no longer be read."""

_JOB_FIELDS: Final = (
    "id",
    "client",
    "model",
    "wanted_ctx",
    "arrival",
    "submitted_at",
    "max_wait",
    "max_attempts",
    "size",
    "fitted_ctx",
    "share",
    "label",
)


class WrongTrace(ValueError):
    """The lines are no trace, or the scheduler decides otherwise today. The text says which line, and why."""


class RecordedScheduler(Scheduler):
    """A scheduler that writes down what it hears and what it answers."""

    def __init__(self, order: TurnOrder, seat: Seat, limits: RetryLimits, write: Callable[[str], object]) -> None:
        """``order`` and ``seat`` are new. ``write`` gets each line with its end, and must not block for long."""
        super().__init__(order, seat, limits)
        self._write = write
        assert seat.outage is not None
        sizes = {"floor": seat.contexts.floor, "ceiling": seat.contexts.ceiling}
        first = {
            "trace": FORMAT,
            "at": seat.outage.since,
            "rules": asdict(order.rules),
            "limits": asdict(limits),
            "sizes": sizes,
        }
        write(json.dumps(first) + "\n")

    def handle(self, event: Event, now: float) -> list[Action]:
        return self._record(_event_row(event), now, super().handle(event, now))

    def tick(self, now: float) -> list[Action]:
        return self._record(None, now, super().tick(now))

    def _record(self, row: dict[str, Any] | None, now: float, actions: list[Action]) -> list[Action]:
        if row is not None or actions:
            self._write(
                json.dumps({"at": now, "event": row, "actions": [_action_row(each) for each in actions]}) + "\n"
            )
        return actions


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a trace, played again: what followed at ``at`` seconds."""

    at: float
    actions: list[Action]


def replay(lines: Iterable[str]) -> Iterator[Step]:
    """Play a trace through a new scheduler, line by line.

    Raises :class:`WrongTrace` at the first line that cannot be read, or after which the actions are not those recorded.
    """
    rows = enumerate(lines, start=1)
    try:
        scheduler, jobs = _new_scheduler(json.loads(next(rows)[1])), dict[str, Job]()
    except (StopIteration, ValueError, KeyError, TypeError) as error:
        raise WrongTrace(f"This is no trace of llm-queue, format {FORMAT}: the first line says otherwise.") from error
    for number, line in rows:
        try:
            row = json.loads(line)
            at, event = row["at"], row["event"]
            read = None if event is None else _event(event, jobs)
            recorded = row["actions"]
        except (ValueError, KeyError, TypeError) as error:
            raise WrongTrace(
                f"Line {number} cannot be read: {error!r}. Was the service ended while it wrote?"
            ) from error
        actions = scheduler.tick(at) if read is None else scheduler.handle(read, at)
        found = [_action_row(each) for each in actions]
        if found != recorded:
            raise WrongTrace(f"Line {number}: the scheduler answers {found} now, and answered {recorded} then.")
        yield Step(at, actions)


def _new_scheduler(first: dict[str, Any]) -> Scheduler:
    if first["trace"] != FORMAT:
        raise ValueError(first["trace"])
    contexts = ContextSizes(first["sizes"]["floor"], first["sizes"]["ceiling"])
    order = TurnOrder(OrderRules(**first["rules"]), contexts)
    return Scheduler(order, Seat(contexts, first["at"]), RetryLimits(**first["limits"]))


# --- events and actions as rows, and back ---


def _action_row(action: Action) -> list[Any]:
    name = type(action).__name__
    match action:
        case StartLoad(job, key) | StartAttempt(job, key):
            return [name, job.id, list(key)]
        case Abort(job, error) | Requeued(job, error) | Settle(job, error):
            return [name, job.id, _code(error)]
    return [name]


def _code(error: QueueError | None) -> str | None:
    return None if error is None else error.code


def _error(code: str | None) -> QueueError | None:
    if code is None:
        return None
    error = QueueError(code)
    error.code = code  # type: ignore[misc]  # a class variable elsewhere; here one class stands for all
    return error


def _event_row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = {"is": type(event).__name__}
    match event:
        case Submitted(job):
            row["job"] = {name: getattr(job, name) for name in _JOB_FIELDS} | {"lane": job.lane.label}
        case Left(job, error):
            row |= {"job": job.id, "error": error.code}
        case Moved(job, lane):
            row |= {"job": job.id, "lane": lane.label}
        case Paused(unload):
            row["unload"] = unload
        case LoadEnded(job, outcome, error_or_none, reported):
            row |= {"job": job.id, "outcome": outcome.value, "error": _code(error_or_none), "reported": _keys(reported)}
        case AttemptEnded(job, outcome, error_or_none, surprise, committed, unloaded, needed_ctx, prompt, ending):
            row |= {"job": job.id, "outcome": outcome.value, "error": _code(error_or_none)}
            row |= {"surprise_load": surprise, "committed": committed, "unloaded": unloaded}
            if needed_ctx is not None:
                row["needed_ctx"] = needed_ctx
            if prompt is not None:
                row["prompt"] = list(prompt)
            if ending is not None:
                row["ending"] = ending.value
        case ProbeEnded(failure, reported, resolved):
            row |= {"error": _code(failure), "reported": _keys(reported)}
            row["resolved"] = {
                job_id: answer.code if isinstance(answer, QueueError) else [answer.model, answer.trained]
                for job_id, answer in resolved.items()
            }
        case ResidentReported(reported_or_none):
            row["reported"] = _keys(reported_or_none)
        case UnloadEnded(outcome, error_or_none, left):
            row |= {"outcome": outcome.value, "error": _code(error_or_none), "reported": _keys(left)}
        case Stopped(error):
            row["error"] = error.code
    return row


def _event(row: dict[str, Any], jobs: dict[str, Job]) -> Event:
    error, reported = _error(row.get("error")), row.get("reported")
    keys = None if reported is None else frozenset(RunnerKey(*key) for key in reported)
    job = jobs[row["job"]] if isinstance(row.get("job"), str) else None
    match row["is"], job, error:
        case "Submitted", None, None:
            fields = row["job"]
            lane = _lane(fields["lane"])
            known = {name: fields[name] for name in _JOB_FIELDS if name in fields}  # older traces lack the newest
            jobs[fields["id"]] = Job(**known, lane=lane)
            return Submitted(jobs[fields["id"]])
        case "Left", Job() as job, QueueError() as error:
            return Left(job, error)
        case "Moved", Job() as job, None:
            return Moved(job, _lane(row["lane"]))
        case "Paused", None, None:
            return Paused(row["unload"])
        case "Resumed", None, None:
            return Resumed()
        case "LoadEnded", Job() as job, error:
            return LoadEnded(job, Outcome(row["outcome"]), error, keys)
        case "AttemptEnded", Job() as job, error:
            flags = row["surprise_load"], row["committed"], row["unloaded"]
            prompt = PromptWork(*row["prompt"]) if "prompt" in row else None
            ending = Ending(row["ending"]) if "ending" in row else None
            return AttemptEnded(job, Outcome(row["outcome"]), error, *flags, row.get("needed_ctx"), prompt, ending)
        case "ProbeEnded", None, error:
            return ProbeEnded(
                error, keys or frozenset(), {name: _answer(each) for name, each in row["resolved"].items()}
            )
        case "ResidentReported", None, None:
            return ResidentReported(keys)
        case "UnloadEnded", None, error:
            return UnloadEnded(Outcome(row["outcome"]), error, keys)
        case "Stopped", None, QueueError() as error:
            return Stopped(error)
        case "DrainBegan", None, None:
            return DrainBegan()
    raise ValueError(row)


def _lane(label: str) -> Lane:
    return next(lane for lane in Lane if lane.label == label)


def _answer(row: Any) -> Resolved | QueueError:
    return (_error(row) or QueueError()) if isinstance(row, str) else Resolved(*row)


def _keys(reported: frozenset[RunnerKey] | None) -> list[RunnerKey] | None:
    return None if reported is None else sorted(reported)
