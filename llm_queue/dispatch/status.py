"""What can be asked about the line, as frozen values: ``/queue``, a job's report, the log and the demo read these.

Times are in seconds. A job's own times have one formula each, and it stands in :class:`~llm_queue.core.jobs.Job`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from llm_queue.core.counts import Counts
from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.pause import Pause
from llm_queue.core.seat import Occupant, Seat
from llm_queue.dispatch.insight import (
    NO_INSIGHT,
    ColdPrompt,
    Explanation,
    HoldStatus,
    Insight,
    LaneHour,
    LoadedModel,
    ProgramHour,
    TurnStatus,
)
from llm_queue.dispatch.places import Standing
from llm_queue.dispatch.progress import AnswerSoFar
from llm_queue.dispatch.tickets import Submission
from llm_queue.dispatch.values import Value
from llm_queue.errors import QueueError
from llm_queue.upstream.protocol import Upstream
from llm_queue.wire.shapes import Completion


class JobReport(Value, frozen=True, kw_only=True):
    """One job: what it was, how it went, and nothing of its text.

    ``wait_s`` is the time in which it neither loaded nor ran, ``load_s`` and ``run_s`` are what it loaded and ran, all
    attempts together. ``ahead`` counts the jobs before it while it waits. The counts of tokens and ``finish`` are those
    of its answer, if it has one: ``cached_tokens`` of the ``prompt_tokens`` were computed before, and the others took
    ``prompt_s``; None is "not known". ``remote`` is true for a job beside the line, whose model runs elsewhere.
    ``explanation`` says why it waits or waited, where that was asked for. ``request_id`` may be the caller's own word,
    and is left out of lists.
    """

    job: str
    request_id: str | msgspec.UnsetType = msgspec.UNSET
    client: str
    lane: str
    model: str
    num_ctx: int | None
    state: str
    attempts: int
    remote: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    wait_s: float
    load_s: float
    run_s: float
    ahead: int | msgspec.UnsetType = msgspec.UNSET
    prompt_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    cached_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    prompt_s: float | msgspec.UnsetType | None = msgspec.UNSET
    completion_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    finish: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType | None = msgspec.UNSET
    error: str | msgspec.UnsetType | None = msgspec.UNSET
    explanation: Explanation | msgspec.UnsetType = msgspec.UNSET


class JobStatus(Value, frozen=True, kw_only=True):
    """One job of the line. ``id`` is an alias of ``job`` that goes with the next version.

    ``place`` is 0 for the job that has the slot, 1 for the next. ``starts_in_s`` is about when it starts, from now
    (None: unknown) if nothing else comes; four of five start between ``starts_in_low_s`` and ``starts_in_high_s``.
    ``wait_s`` is as in :class:`JobReport`, ``waited_s`` an alias that goes with the next version.

    The job that runs has also the pieces of its answer so far as ``tokens``, how many come in a second (None: less than
    two have come), for how long it runs, and how long its first piece took (None: it is not there yet).
    """

    job: str
    id: str
    client: str
    lane: str
    model: str
    num_ctx: int | None
    resident: bool
    state: str
    place: int
    starts_in_s: float | None
    starts_in_low_s: float | None = None
    starts_in_high_s: float | None = None
    wait_s: float
    waited_s: float
    tokens: int | msgspec.UnsetType = msgspec.UNSET
    tokens_per_s: float | msgspec.UnsetType | None = msgspec.UNSET
    running_s: float | msgspec.UnsetType = msgspec.UNSET
    first_token_s: float | msgspec.UnsetType | None = msgspec.UNSET


class SlotStatus(Value, frozen=True, kw_only=True):
    """What holds the slot."""

    job: str
    phase: Literal["loading", "running"]
    client: str


class UpstreamStatus(Value, frozen=True, kw_only=True):
    """What is behind the line. ``away`` says why nothing can be served now, or is None."""

    name: str
    url: str
    away: str | None


class RemoteStatus(Value, frozen=True, kw_only=True):
    """Jobs beside the line, whose models run elsewhere: how many are ``running``, and have ``ended``, by state."""

    running: int = 0
    ended: Mapping[str, int] = msgspec.field(default_factory=dict)


class PauseStatus(Value, frozen=True, kw_only=True):
    """The line was paused by hand ``since_s`` seconds ago. ``unloaded`` is true once all that was loaded has been
    unloaded because of that; ``kept`` says why something is still loaded although it was to go.
    """

    since_s: float
    unloaded: bool
    kept: str | msgspec.UnsetType = msgspec.UNSET


class BypassStatus(Value, frozen=True, kw_only=True):
    """Somebody uses the upstream past the line: why we think so, which ``program`` is connected to it besides us (None:
    not known), and how long ago that was first seen.
    """

    reason: str
    program: str | None
    since_s: float


class Status(Value, frozen=True, kw_only=True):
    """The line as a whole.

    ``waiting`` counts jobs by lane, ``ended`` by state, ``rejected`` refusals by error code; ``accepted`` counts all
    jobs, those that live and those that have ended. ``jobs`` has the first that live, in the order in which they are
    expected to run. ``held_for`` names the client that the slot is kept free for, if ``held``. What is ``remote``
    stands in none of the other fields but ``rejected``. ``models`` are those that are loaded. ``lanes``, ``programs``
    and ``cold_prompts`` are of the last hour, and ``finished`` has the jobs that ended last, the latest first.
    ``draining``: nothing new is taken, and the process ends. ``bypass`` is None unless there were signs of one lately.
    """

    upstream: UpstreamStatus
    waiting: Mapping[str, int]
    slot: SlotStatus | None
    held: bool
    held_for: str | None
    hold: HoldStatus | None
    turn: TurnStatus
    models: tuple[LoadedModel, ...]
    jobs: tuple[JobStatus, ...]
    accepted: int
    ended: Mapping[str, int]
    remote: RemoteStatus
    rejected: Mapping[str, int]
    loads: int
    loads_failed: int
    load_seconds: float
    reloads_avoided: int
    surprise_loads: int
    retries: int
    outages: int
    unknown_lanes: int
    holds: int
    held_seconds: float
    lanes: Mapping[str, LaneHour]
    programs: tuple[ProgramHour, ...]
    cold_prompts: tuple[ColdPrompt, ...]
    finished: tuple[JobReport, ...]
    paused: PauseStatus | None = None
    draining: bool = False
    bypass: BypassStatus | None = None


def report(
    job: Job,
    submission: Submission,
    now: float,
    *,
    completion: Completion | None = None,
    error: QueueError | None = None,
    ahead: int | None = None,
) -> JobReport:
    """The report of a job as it is at ``now``; ``ahead`` is how many go before it, if it waits."""
    ended = job.state.ended
    return JobReport(
        job=job.id,
        request_id=submission.request_id,
        client=job.client,
        lane=job.lane.label,
        model=model_name(submission),
        num_ctx=job.key.num_ctx if job.key else None,
        state=job.state.value,
        attempts=job.attempts,
        remote=True if submission.remote else msgspec.UNSET,
        wait_s=job.waited(now),
        load_s=job.load_seconds,
        run_s=job.run_seconds,
        ahead=msgspec.UNSET if ahead is None else ahead,
        prompt_tokens=completion.prompt_tokens if completion else msgspec.UNSET,
        cached_tokens=completion.cached_tokens if completion else msgspec.UNSET,
        prompt_s=completion.prompt_seconds if completion else msgspec.UNSET,
        completion_tokens=completion.completion_tokens if completion else msgspec.UNSET,
        finish=completion.finish_reason if completion else msgspec.UNSET,
        code=(error.code if error else None) if ended else msgspec.UNSET,
        error=(error.discreet if error else None) if ended else msgspec.UNSET,
    )


def job_status(
    standing: Standing, submission: Submission, seat: Seat, now: float, progress: AnswerSoFar | None = None
) -> JobStatus:
    """The status of a job that has not ended; ``progress`` is how far its answer is, if it runs."""
    job, between = standing.job, standing.between
    slot, state = seat.slot, job.state.value
    if slot is not None and slot.job is job:
        state = "loading" if slot.loading else "running"
    waited = job.waited(now)
    return JobStatus(
        job=job.id,
        id=job.id,
        client=job.client,
        lane=job.lane.label,
        model=model_name(submission),
        num_ctx=job.key.num_ctx if job.key else None,
        resident=job.key in seat.resident,
        state=state,
        place=standing.place,
        starts_in_s=standing.starts_in,
        starts_in_low_s=between[0] if between is not None else None,
        starts_in_high_s=between[1] if between is not None else None,
        wait_s=waited,
        waited_s=waited,
        **(progress.shown(now) if progress is not None and state == "running" else {}),
    )


def line_status(
    upstream: Upstream,
    seat: Seat,
    counts: Counts,
    *,
    away: str | None,
    waiting: Mapping[Lane, int],
    jobs: tuple[JobStatus, ...],
    rejected: Mapping[str, int],
    unknown_lanes: int,
    accepted: int = 0,
    remote: RemoteStatus | None = None,
    paused: PauseStatus | None = None,
    draining: bool = False,
    bypass: BypassStatus | None = None,
    insight: Insight = NO_INSIGHT,
    finished: tuple[JobReport, ...] = (),
) -> Status:
    """The line as it is now."""
    by_lane = dict(waiting)
    slot, hold = seat.slot, seat.hold
    if slot is not None and slot.loading and slot.job.state is State.QUEUED:
        by_lane[slot.job.lane] -= 1
    return Status(
        upstream=UpstreamStatus(name=upstream.name, url=upstream.url, away=away),
        waiting={lane.label: by_lane.get(lane, 0) for lane in Lane},
        slot=None if slot is None else _slot_status(slot),
        held=hold is not None,
        held_for=hold.client if hold is not None else None,
        hold=insight.hold,
        turn=insight.turn,
        models=insight.models,
        jobs=jobs,
        accepted=accepted,
        ended={state.value: number for state, number in counts.ended.items()},
        remote=remote or RemoteStatus(),
        rejected=dict(rejected),
        loads=counts.loads,
        loads_failed=counts.loads_failed,
        load_seconds=counts.load_seconds,
        reloads_avoided=counts.reloads_avoided,
        surprise_loads=counts.surprise_loads,
        retries=counts.retries,
        outages=seat.outages,
        unknown_lanes=unknown_lanes,
        holds=seat.turn.holds,
        held_seconds=seat.turn.held_seconds,
        paused=paused,
        draining=draining,
        bypass=bypass,
        lanes=insight.lanes,
        programs=insight.programs,
        cold_prompts=insight.cold_prompts,
        finished=finished,
    )


def pause_status(pause: Pause | None, now: float) -> PauseStatus | None:
    """How the line is paused at ``now``, if it is."""
    if pause is None:
        return None
    return PauseStatus(since_s=now - pause.since, unloaded=pause.unloaded, kept=pause.kept or msgspec.UNSET)


def _slot_status(slot: Occupant) -> SlotStatus:
    phase: Literal["loading", "running"] = "loading" if slot.loading else "running"
    return SlotStatus(job=slot.job.id, phase=phase, client=slot.job.client)


def model_name(submission: Submission) -> str:
    """What people call the job's model: its name in the catalogue, or, while that is unknown, what was asked for."""
    return submission.model.name if submission.model else submission.request.model
