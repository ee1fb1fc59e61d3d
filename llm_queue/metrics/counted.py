"""What is counted as it happens: an observer of the line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import prometheus_client as prometheus

from llm_queue.core.events import Outcome
from llm_queue.core.jobs import Lane, State
from llm_queue.dispatch.bypass import KINDS
from llm_queue.dispatch.moments import (
    AttemptFinished,
    AttemptStarted,
    BypassSeen,
    FirstPiece,
    HoldFinished,
    JobAccepted,
    JobEnded,
    JobRequeued,
    LoadFinished,
    LoadStarted,
    Moment,
)
from llm_queue.dispatch.status import JobReport
from llm_queue.metrics import families
from llm_queue.metrics.families import Family
from llm_queue.metrics.names import TopNames

MODELS: Final = 12
"""Models with series of their own: more than fit into the memory of most machines in a day."""

CLIENTS: Final = 20
"""Clients with series of their own: programs, and the users of one that names them."""


@dataclass(slots=True)
class Live:
    """A job that has not ended: its model's name, whether it waits, and whether it goes beside the line."""

    model: str
    remote: bool
    waiting: bool


class Counted:
    """An observer that keeps counters and histograms in ``registry``. A moment takes it a few microseconds."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        self._registry = registry
        self._live: dict[str, Live] = {}
        self._last_key: tuple[str, int] | None = None
        self.models = TopNames(MODELS, self._model_ended)
        self._clients = TopNames(CLIENTS, self._client_ended)
        self._jobs = self._counter(families.JOBS)
        self._wait = self._histogram(families.WAIT)
        self._run = self._histogram(families.RUN)
        self._first_token = self._histogram(families.FIRST_TOKEN)
        self._load = self._histogram(families.LOAD)
        self._loads_failed = self._counter(families.LOADS_FAILED)
        self._switches = self._counter(families.SWITCHES)
        self._attempts = self._counter(families.ATTEMPTS)
        self._prompt_tokens = self._counter(families.PROMPT_TOKENS)
        self._cached_tokens = self._counter(families.CACHED_TOKENS)
        self._prompt_seconds = self._counter(families.PROMPT_SECONDS)
        self._completion_tokens = self._counter(families.COMPLETION_TOKENS)
        self._client_jobs = self._counter(families.CLIENT_JOBS)
        self._client_slot = self._counter(families.CLIENT_SLOT)
        for lane in Lane:  # what has not happened yet is 0, and not absent
            self._wait.labels(lane.label)
            for state in State:
                if state.ended:
                    self._jobs.labels(lane.label, state.value)
        self._bypass_signs = self._counter(families.BYPASS_SIGNS)
        for kind in KINDS.values():
            self._bypass_signs.labels(kind)
        for outcome in Outcome:
            self._attempts.labels(_outcome(outcome))

    def __call__(self, moment: Moment) -> None:
        """Count what has happened."""
        match moment:
            case JobAccepted():
                self.models.use(moment.model)
                self._live[moment.job] = Live(moment.model, moment.remote, waiting=not moment.remote)
            case LoadStarted(job):
                self._live[job].waiting = False
            case LoadFinished():
                self._loaded(moment)
            case AttemptStarted():
                self._started(moment)
            case FirstPiece(job, seconds):
                self._first_token.labels(self._model(job)).observe(seconds)
            case AttemptFinished(job, outcome, seconds):
                self._attempts.labels(_outcome(outcome)).inc()
                if outcome is Outcome.SUCCEEDED:
                    self._run.labels(self._model(job)).observe(seconds)
            case JobRequeued(job):
                self._live[job].waiting = not self._live[job].remote
            case JobEnded(report):
                self._ended(report, self._live.pop(report.job))
            case HoldFinished(client, seconds):
                self._client_slot.labels(self._clients.label(client), "hold").inc(seconds)
            case BypassSeen(reason):
                self._bypass_signs.labels(KINDS[reason]).inc()
            case _:
                pass  # read from the line's status

    def waiting_by_model(self) -> dict[str, int]:
        """How many jobs of the line wait now, for each model that has a label."""
        return self._by_model(waiting=True)

    def running_by_model(self) -> dict[str, int]:
        """The same for those that load or run."""
        return self._by_model(waiting=False)

    def _by_model(self, *, waiting: bool) -> dict[str, int]:
        found = dict.fromkeys(self.models.placed, 0)
        for job in self._live.values():
            if job.waiting is waiting and not job.remote:
                label = self.models.label(job.model)
                found[label] = found.get(label, 0) + 1
        return found

    def _loaded(self, moment: LoadFinished) -> None:
        if moment.job in self._live:  # its caller may have left
            self._live[moment.job].waiting = True
        model = self.models.label(moment.model)
        if moment.error is None:
            self._load.labels(model).observe(moment.seconds)
        else:
            self._loads_failed.labels(model).inc()

    def _started(self, moment: AttemptStarted) -> None:
        job = self._live[moment.job]
        job.waiting = False
        key = (moment.model, moment.num_ctx)
        if not job.remote and key != self._last_key:
            if self._last_key is not None:
                self._switches.inc()
            self._last_key = key

    def _ended(self, report: JobReport, job: Live) -> None:
        model = self.models.label(job.model)
        for counter, number in (
            (self._prompt_tokens, report.prompt_tokens),
            (self._cached_tokens, report.cached_tokens),
            (self._prompt_seconds, report.prompt_s),
            (self._completion_tokens, report.completion_tokens),
        ):
            if isinstance(number, int | float):
                counter.labels(model).inc(number)
        if job.remote:
            return
        self._jobs.labels(report.lane, report.state).inc()
        if report.attempts or report.load_s:
            self._wait.labels(report.lane).observe(report.wait_s)
        client = self._clients.use(report.client)
        self._client_jobs.labels(client).inc()
        self._client_slot.labels(client, "load").inc(report.load_s)
        self._client_slot.labels(client, "run").inc(report.run_s)

    def _model(self, job: str) -> str:
        return self.models.label(self._live[job].model)

    def _model_ended(self, model: str) -> None:
        for metric in (
            *(self._run, self._first_token, self._load, self._loads_failed),
            *(self._prompt_tokens, self._cached_tokens, self._prompt_seconds, self._completion_tokens),
        ):
            metric.remove_by_labels({"model": model})

    def _client_ended(self, client: str) -> None:
        for metric in (self._client_jobs, self._client_slot):
            metric.remove_by_labels({"client": client})

    def _counter(self, family: Family) -> prometheus.Counter:
        return prometheus.Counter(family.name, family.text, family.labels, registry=self._registry)

    def _histogram(self, family: Family) -> prometheus.Histogram:
        return prometheus.Histogram(
            family.name, family.text, family.labels, registry=self._registry, buckets=family.bounds
        )


def _outcome(outcome: Outcome) -> str:
    return outcome.value.replace(" ", "_")
