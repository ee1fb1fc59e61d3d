"""Why a job waits, or waited: cut from the log of picks when somebody asks."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.order import TurnOrder
from llm_queue.core.picks import Pick, Picks
from llm_queue.core.reasons import Rule
from llm_queue.core.scheduler import Scheduler
from llm_queue.dispatch.bounds import bound_of
from llm_queue.dispatch.insight import ExplainedPick, Explanation
from llm_queue.dispatch.wordings import Costs, Facts, Group, sentences, waiting_for

SHOWN: Final = 20
"""Picks that an explanation lists: the last ones before the job, and its own."""

_TELLING: Final = (Rule.SHARES_LOAD, Rule.STRAND_FIRST, Rule.GUEST)
"""Rules that say enough by themselves, whatever job asks why another went first."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is kept of a job to explain it once it has ended. Times are in seconds of the line's clock.

    ``until`` is when it ended, or now. ``code`` is that of its error. ``moves`` are when it was put into another lane,
    each with the one in which it was before.
    """

    job: str
    client: str
    lane: Lane
    key: RunnerKey | None
    state: State
    submitted_at: float
    until: float
    waited: float
    started: bool
    remote: bool
    code: str | None = None
    moves: tuple[tuple[float, Lane], ...] = ()

    @classmethod
    def of(cls, job: Job, now: float, *, remote: bool = False, code: str | None = None) -> Self:
        """That of a job as it is at ``now``."""
        return cls(
            job.id,
            job.client,
            job.lane,
            job.key,
            job.state,
            job.submitted_at,
            now if job.ended_at is None else job.ended_at,
            job.waited(now),
            job.started_at is not None,
            remote,
            code,
            job.moves,
        )

    def lane_at(self, time: float) -> Lane:
        """The lane in which it was then."""
        return next((lane for moved_at, lane in self.moves if time < moved_at), self.lane)


class Explanations:
    """Explains the jobs that live, and the last ``most`` that have ended."""

    def __init__(self, scheduler: Scheduler, order: TurnOrder, name_of: Callable[[str], str], most: int) -> None:
        """``order`` is the scheduler's; ``name_of`` gives what people call the model of an identity."""
        self._scheduler = scheduler
        self._order = order
        self._name_of = name_of
        self._most = most
        self._ended: OrderedDict[str, Case] = OrderedDict()

    def ended(self, job: Job, now: float, *, remote: bool, code: str | None) -> None:
        """A job has ended: keep what explains it."""
        self._ended[job.id] = Case.of(job, now, remote=remote, code=code)
        while len(self._ended) > self._most:
            self._ended.popitem(last=False)

    def of_ended(self, job_id: str) -> Explanation | None:
        """Why a job that has ended had waited; None if it ended too long ago."""
        case = self._ended.get(job_id)
        return None if case is None else self._explained(case)

    def of_live(self, job: Job, now: float, *, remote: bool) -> Explanation:
        """Why a job waits, or waited until it ran."""
        case = Case.of(job, now, remote=remote)
        if remote or job.state is not State.QUEUED:
            return self._explained(case)
        return self._explained(case, self._waits_for(job), bound_of(job, self._scheduler.seat, self._order, now))

    def _explained(self, case: Case, now_waiting_for: str = "", bounded_by: str | None = None) -> Explanation:
        picks = self._scheduler.picks
        seen = list(during(case, picks))
        own = [pick for pick in seen if pick.job == case.job]
        others = [pick for pick in seen if pick.job != case.job]
        if case.state is not State.QUEUED:  # the end of one job and the pick of the next have the same time
            over = own[0].started if own and own[0].started is not None else case.until
            others = [pick for pick in others if pick.at < over]
        rules = [rule_before(case, pick) for pick in others]
        counts = Counter(zip((pick.client for pick in others), rules, strict=True))
        facts = Facts(
            state=case.state,
            waited=case.waited,
            groups=tuple(Group(client, rule, jobs) for (client, rule), jobs in counts.most_common()),
            costs=costs(others, own, case.submitted_at),
            started=case.started,
            now_waiting_for=now_waiting_for,
            forgotten=picks.forgotten_until is not None and picks.forgotten_until >= case.submitted_at,
            load_failed=any(pick.load_failed for pick in (*own, *others) if pick.key == case.key),
            code=case.code,
            remote=case.remote,
        )
        listed = [*zip(others, rules, strict=True), *((pick, pick.rule) for pick in own)]
        listed.sort(key=lambda each: each[0].at)
        return Explanation(
            sentences=sentences(facts),
            picks=tuple(self._shown(pick, rule) for pick, rule in listed[-SHOWN:]),
            bound=bounded_by,
        )

    def _shown(self, pick: Pick, rule: Rule) -> ExplainedPick:
        return ExplainedPick(
            job=pick.job,
            client=pick.client,
            model=self._name_of(pick.key.model),
            rule=rule.value,
            load_s=pick.load,
            cold_prompt_s=pick.cold_prompt,
            hold_s=pick.hold or None,
        )

    def _waits_for(self, job: Job) -> str:
        seat = self._scheduler.seat
        slot, hold = seat.slot, seat.hold
        return waiting_for(
            own=slot is not None and slot.loading and slot.job is job,
            loading=slot.job.client if slot is not None and slot.loading else None,
            running=slot.job.client if slot is not None else None,
            unloading=seat.unloading,
            away=seat.outage.reason if seat.outage is not None else None,
            busy=seat.busy_until is not None,
            asking=seat.asking,
            held_for=hold.client if hold is not None else None,
            paused=seat.pause is not None,
        )


def during(case: Case, picks: Picks) -> Iterable[Pick]:
    """The picks of a job's life, the latest first, its own among them, and the one that had the slot when it came."""
    for pick in picks.latest_first():
        if pick.at < case.submitted_at:
            if pick.over is None or pick.over > case.submitted_at:
                yield pick
            return
        if pick.at <= case.until:
            yield pick


def rule_before(case: Case, pick: Pick) -> Rule:
    """Why ``pick`` went before this job."""
    if pick.at < case.submitted_at:
        return Rule.HAD_SLOT
    if pick.rule in _TELLING:
        return pick.rule
    lane = case.lane_at(pick.at)
    if pick.lane != lane:
        return Rule.HIGHER_LANE if pick.lane < lane else Rule.LANE_BURST
    if case.key is not None and pick.key.model == case.key.model:  # the context may have been another one then
        return Rule.FIRST_COME if pick.client == case.client else Rule.FAIR_SHARE
    if pick.rule is Rule.NEW_MODEL:
        return Rule.NEW_MODEL
    switched = pick.loading or pick.load_failed or pick.load is not None
    return Rule.TURN_OVER if switched else Rule.TURN_GOES_ON


def costs(others: Iterable[Pick], own: Iterable[Pick], since: float) -> Costs:
    """What went by for others before a job that waits ``since`` then, and what it paid itself."""
    others, own = list(others), list(own)
    loads = [one for pick in others if (one := _after(since, pick.at, pick.load)) > 0]
    cold = [one for pick in others if (one := _after(since, pick.started, pick.cold_prompt)) > 0]
    holds = [(one, pick) for pick in (*others, *own) if (one := min(pick.hold, pick.at - since)) > 0]
    own_loads = [pick.load for pick in own if pick.load is not None]
    own_prompts = [pick.cold_prompt for pick in own if pick.cold_prompt is not None]
    return Costs(
        loads=len(loads),
        load_seconds=sum(loads),
        cold_prompts=len(cold),
        cold_seconds=sum(cold),
        hold_seconds=sum(one for one, _ in holds),
        held_for=holds[0][1].held_for if holds else None,
        own_load=sum(own_loads) if own_loads else None,
        own_prompt=sum(own_prompts) if own_prompts else None,
    )


def _after(since: float, began: float | None, seconds: float | None) -> float:
    """How many of these seconds came after ``since``."""
    return 0.0 if began is None or seconds is None else min(seconds, began + seconds - since)
