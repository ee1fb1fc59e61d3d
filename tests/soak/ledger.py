"""What became of each job: by the service's log on the one side, by its callers on the other."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from typing import Any, Final

from tests.soak.canaries import leaks

REMEMBERED: Final = 200_000
"""Jobs that are remembered to notice one that ends twice; a run of any length takes no more memory."""

MOST: Final = 200
"""Problems that are told in full."""

ENDINGS: Final = {
    "done": "succeeded",
    **{state: state for state in ("failed", "timed_out", "cancelled", "expired")},
}
"""The states of ended jobs, by what the log calls them."""

_REPORTED: Final = ("please report", "Traceback", "an error of ours")


class Ledger:
    """All that is said, as it is said. Any thread may call it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.dropped = 0
        self.ended: Counter[str] = Counter()
        self.ended_remote: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.rejected: Counter[int] = Counter()
        self.seen_rejected: Counter[int] = Counter()
        self.tallies: Counter[str] = Counter()
        self.lines = 0
        self.paired = 0
        self.latest: list[str] = []
        self._logged: OrderedDict[str, str] = OrderedDict()
        self._awaited: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Begin anew with another service, but for the problems."""
        with self._lock:
            for counted in (self.ended, self.ended_remote, self.events, self.rejected):
                counted.clear()
            self._logged.clear()

    def problem(self, what: str) -> None:
        """Something that must not be."""
        if len(self.problems) < MOST:
            self.problems.append(what)
        else:
            self.dropped += 1

    def service_said(self, line: str) -> None:
        """A line of the service's output."""
        with self._lock:
            self.lines += 1
            if leaks(line):
                self.problem(f"a prompt or an answer in the service's output: {line[:500]}")
            if any(sign in line for sign in _REPORTED):
                self.problem(f"the service reports an error of its own: {line[:1500]}")
            if line.startswith("{"):
                self._logged_event(json.loads(line))

    def _logged_event(self, said: dict[str, Any]) -> None:
        event = said["event"]
        self.events[event] += 1
        if event == "rejected":
            self.rejected[said["status"]] += 1
        state = ENDINGS.get(event)
        if state is None or "job" not in said:
            return
        job = said["job"]
        (self.ended_remote if said.get("remote") else self.ended)[state] += 1
        if job in self._logged:
            self.problem(f"a job ended twice: {job}: {self._logged[job]}, then {state}")
        self._logged[job] = state
        self.latest[:] = [*self.latest[-20:], job]
        while len(self._logged) > REMEMBERED:
            self._logged.popitem(last=False)
        if (outcome := self._awaited.pop(job, None)) is not None:
            self._compare(job, state, outcome)

    def caller_said(self, line: str) -> None:
        """A line of a process of callers."""
        with self._lock:
            if not line.startswith("{"):
                self.problem(f"a process of callers says: {line}")
                return
            said = json.loads(line)
            if "complaint" in said:
                self.problem(f"a caller: {json.dumps(said)}")
            elif "tally" in said:
                self.tallies.update(said["tally"])
            elif "rejected" in said:
                self.seen_rejected[said["rejected"]] += 1
            elif (state := self._logged.get(said["job"])) is not None:
                self._compare(said["job"], state, said["outcome"])
            else:
                self._awaited[said["job"]] = said["outcome"]

    def _compare(self, job: str, state: str, outcome: str) -> None:
        self.paired += 1
        if (state == "succeeded") != (outcome == "answered"):
            self.problem(f"job {job} is {state} in the log, and its caller was {outcome}")

    def close(self) -> None:
        """All has been said."""
        for job, outcome in list(self._awaited.items())[:MOST]:
            self.problem(f"the log does not know the end of job {job}, whose caller was {outcome}")
