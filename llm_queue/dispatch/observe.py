"""What watches the line: the log, the counts of what made no job, and the list of finished jobs.

An observer is called with each :class:`~llm_queue.dispatch.moments.Moment`, in the order in which they happen. It must
not block. One that raises is logged and not called again; the line goes on.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from llm_queue.core.jobs import State
from llm_queue.dispatch.moments import (
    BypassSeen,
    JobAccepted,
    JobEnded,
    JobMoved,
    JobRequeued,
    LoadFinished,
    LoadStarted,
    Moment,
    PauseEnded,
    PauseStarted,
    RequestRejected,
    UnloadFinished,
    UpstreamChanged,
)
from llm_queue.dispatch.status import JobReport

Observer = Callable[[Moment], None]

LISTED: Final = 20
"""Finished jobs that the status lists."""

_log = structlog.get_logger("llm_queue")


class Observers:
    """Those that are called; add one with :meth:`add`."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Call ``observer`` with each moment from now on."""
        self._observers.append(observer)

    def tell(self, moment: Moment) -> None:
        """Call each observer with ``moment``. Raises nothing."""
        for observer in tuple(self._observers):
            try:
                observer(moment)
            except Exception:
                self._observers.remove(observer)
                with suppress(Exception):  # it may be the log itself that cannot be written
                    _log.exception(
                        "an observer failed and is not called again: please report this", observer=repr(observer)
                    )


class HeldBack:
    """An observer that is told nothing until :meth:`let_go`, and then all that has happened so far."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._held: list[Moment] | None = []

    def let_go(self) -> None:
        """Tell what was held back, and from now on each moment as it happens."""
        held, self._held = self._held or [], None
        with suppress(Exception):  # the next moment shows it again, where it is dealt with
            for moment in held:
                self._observer(moment)

    def __call__(self, moment: Moment) -> None:
        if self._held is None:
            self._observer(moment)
        else:
            self._held.append(moment)


class JobLog:
    """One line per finished job, and one per change worth knowing."""

    def __init__(self, upstream_name: str, upstream_url: str) -> None:
        self._log = structlog.get_logger("llm_queue")
        self._upstream = f"{upstream_name} at {upstream_url}"

    def __call__(self, moment: Moment) -> None:
        match moment:
            case LoadStarted(job, model, num_ctx, True):
                self._log.info("a prompt needs a larger context", job=job, model=model, num_ctx=num_ctx)
            case LoadFinished(job, _, num_ctx, seconds, None):
                self._log.info("loaded", job=job, num_ctx=num_ctx, load_s=round(seconds, 3))
            case LoadFinished(job, _, num_ctx, _, error) if error is not None:
                self._log.warning("load failed", job=job, num_ctx=num_ctx, error=error.message)
            case JobRequeued(job, client, error):
                self._log.warning("attempt failed, waits again", job=job, client=client, error=error.message)
            case JobEnded(report, _):
                self._ended(report)
            case JobMoved(job, client, lane):
                self._log.info("moved by hand", job=job, client=client, lane=lane.label)
            case PauseStarted(unload):
                self._log.info("paused by hand: nothing starts", unload=unload)
            case PauseEnded(seconds):
                self._log.info("resumed by hand", paused_s=round(seconds, 3))
            case UnloadFinished(None):
                self._log.info("unloaded all that was loaded")
            case UnloadFinished(error) if error is not None:
                self._log.warning("not all was unloaded", error=error.message)
            case UpstreamChanged(None):
                self._log.info(f"{self._upstream} is there")
            case UpstreamChanged(reason, loop=True):
                self._log.error("every job is refused: the upstream is this llm-queue itself", reason=reason)
            case UpstreamChanged(reason):
                self._log.warning(f"{self._upstream} is not there, jobs wait for it", reason=reason)
            case BypassSeen(reason, program, False):
                self._log.warning(
                    "a sign that somebody uses the upstream past the line; llm-queue doctor says more",
                    reason=reason,
                    program=program,
                )
            case _:
                pass  # worth a number, not a line

    def _ended(self, report: JobReport) -> None:
        fields = {name: value for name, value in report.as_dict().items() if value is not None and name != "state"}
        state = State(report.state)
        level = self._log.info if state in (State.SUCCEEDED, State.CANCELLED) else self._log.warning
        level("done" if state is State.SUCCEEDED else state.value, **fields)


class Tally:
    """What the scheduler does not count, because it makes no job or is nothing to it.

    ``accepted`` counts the jobs of the line; ``rejected`` counts refusals by error code; ``unknown_lanes`` counts jobs
    that named a lane that there is not.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected: Counter[str] = Counter()
        self.unknown_lanes = 0

    def __call__(self, moment: Moment) -> None:
        match moment:
            case RequestRejected(error):
                self.rejected[error.code] += 1
            case JobAccepted():
                self.accepted += not moment.remote
                self.unknown_lanes += moment.unknown_lane
            case _:
                pass


class FinishedJobs:
    """The reports of the last finished jobs, ``most`` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._reports: OrderedDict[str, JobReport] = OrderedDict()
        self._last: deque[JobReport] = deque(maxlen=LISTED)

    def find(self, job_id: str) -> JobReport | None:
        """The report of a job that has ended lately."""
        return self._reports.get(job_id)

    def last(self) -> tuple[JobReport, ...]:
        """The last :data:`LISTED` of them, the latest first, without what their callers called the requests."""
        return tuple(self._last)

    def __call__(self, moment: Moment) -> None:
        if isinstance(moment, JobEnded):
            self._reports[moment.report.job] = moment.report
            self._last.appendleft(msgspec.structs.replace(moment.report, request_id=msgspec.UNSET))
            while len(self._reports) > self._most:
                self._reports.popitem(last=False)
