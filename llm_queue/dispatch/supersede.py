"""``X-LLM-Queue-Supersede``: the newest request of a client with the same key is the only one worth an answer.

A program that completes code asks anew at every stroke. What it asked before is dropped if nothing of its answer has
been sent, so that the line works on what somebody still reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llm_queue.core.events import Event, Left
from llm_queue.dispatch.attempts import Entry
from llm_queue.dispatch.moments import JobEnded, Moment
from llm_queue.dispatch.remote import RemoteJobs
from llm_queue.dispatch.steps import Step
from llm_queue.errors import Superseded

Key = tuple[str, str]
"""A client, and what it calls those of its requests of which only the newest counts."""


class Supersession:
    """Knows the jobs that live, by client and key. It is an observer: what has ended is forgotten."""

    def __init__(self, tell: Callable[[Step], None], remote: RemoteJobs) -> None:
        """``tell`` has the line's own task call something, and take the event that it returns, if any."""
        self._tell = tell
        self._remote = remote
        self._live: dict[Key, dict[str, Entry]] = {}
        self._keys: dict[str, Key] = {}

    def __len__(self) -> int:
        """How many jobs are remembered: never more than live."""
        return len(self._keys)

    def accepted(self, entry: Entry) -> None:
        """The line took a job: those before it, of the same client and key, are to go if they still can.

        Its event is on its way to the line already, so the client stays in the line without a gap.
        """
        if not entry.submission.supersede:
            return
        key = entry.job.client, entry.submission.supersede
        live = self._live.setdefault(key, {})
        for older in live.values():
            if not older.begun and not older.job.cancel_requested:
                self._tell(partial(self._drop, older, entry))
        live[entry.job.id] = entry
        self._keys[entry.job.id] = key

    def _drop(self, older: Entry, newer: Entry) -> Event | None:
        """Called in the line's own task, so that nothing is sent between the look and the abort."""
        if older.begun or older.job.state.ended or newer.job.state.ended:
            return None
        if older.remote:
            self._remote.leave(older.job, Superseded())
            return None
        return Left(older.job, Superseded())

    def __call__(self, moment: Moment) -> None:
        key = self._keys.pop(moment.report.job, None) if isinstance(moment, JobEnded) else None
        if isinstance(moment, JobEnded) and key is not None:
            del self._live[key][moment.report.job]
            if not self._live[key]:
                del self._live[key]
