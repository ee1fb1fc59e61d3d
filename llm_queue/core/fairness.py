"""Fair share among clients.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): every client has a tag, the amount of service it has
had, in seconds of the slot divided by its share; the client with the smallest tag is next. So of two that always wait,
one with twice the share has twice the seconds. The level is what a client that is always here has had by now: it rises
by each second of service, divided by the shares of those who are here, but not above the largest tag that waits (who
took much and left must not hold up others). Whoever comes, or comes back, starts at the level: no
credit for absence. Nothing is remembered of those who are away but a tag above the floor, the tag of the client served
last, and that only until the floor has passed it: no debt for the past either. The floor never falls, so going away
and coming back wins nothing. (With the floor for a level, as in the paper, an endless row of newcomers would start
below everybody.)
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_queue.core.client_jobs import ClientJobs, least_grade
from llm_queue.core.heap import RemovableHeap
from llm_queue.core.jobs import Job


class _Client:
    __slots__ = ("jobs", "name", "served", "share", "tag")

    def __init__(self, name: str, tag: float, share: float) -> None:
        self.name = name
        self.tag = tag
        self.share = share
        self.served = False
        self.jobs = ClientJobs()

    def copy(self) -> _Client:
        twin = _Client(self.name, self.tag, self.share)
        twin.served, twin.jobs = self.served, self.jobs.copy()
        return twin


class FairQueue:
    """Waiting jobs that need the same key and are in the same lane: fair among clients, then by arrival.

    A client's share is that of the job with which it comes, until it leaves.
    """

    def __init__(self, wanted_since: int) -> None:
        """``wanted_since`` is the serial number of an event: the end of the last job here, or the first arrival."""
        self.wanted_since = wanted_since
        self._clients: dict[str, _Client] = {}
        self._shared: set[str] = set()
        self._order: RemovableHeap[str] = RemovableHeap()
        self._most: RemovableHeap[str] = RemovableHeap()
        self._guests: dict[int, RemovableHeap[str]] = {}
        self._level = 0.0
        self._floor = 0.0
        self._shares = 0.0
        self._away: dict[str, float] = {}
        self._sweep_at = 64
        self._placed = 0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def clients(self) -> int:
        """How many clients have jobs that wait here."""
        return len(self._order)

    @property
    def idle(self) -> bool:
        """True when no job waits here and none from here is being served: the past may be forgotten."""
        return not self._clients

    def add(self, job: Job) -> None:
        """A job comes, or comes back."""
        if job.client not in self._clients:
            self._settle_level()
            tag = max(self._level, self._away.pop(job.client, 0.0))
            self._clients[job.client] = _Client(job.client, tag, job.share)
            self._shares += job.share
        client = self._own(job.client)
        if not client.jobs:
            self._place(client)
        client.jobs.push(job)
        for grade in client.jobs.grades:
            self._place_guest(client.name, grade)
        self._waiting += 1

    def remove(self, job: Job) -> None:
        """A job goes: it was picked, or it is over."""
        client = self._own(job.client)
        grades = client.jobs.grades
        client.jobs.remove(job)
        for grade in grades:
            if grade not in client.jobs.grades:
                self._displace_guest(client.name, grade)
        self._waiting -= 1
        if not client.jobs:
            self._displace(client)
            self._leave_if_done(client)

    def first(self) -> Job:
        """The job that is next; it stays in."""
        return self._clients[self._order.first()].jobs.first()

    def waiting_of(self, client: str) -> int:
        """How many jobs of this client wait here."""
        return len(self._clients[client].jobs) if client in self._clients else 0

    def first_among(self, strands: Iterable[tuple[str, str]], pause: float) -> Job | None:
        """The job that is next among those of these ``strands`` (clients and labels), and of the guests: those who
        usually pause for at least ``pause`` seconds. None if there is none.

        It costs the logarithm of the jobs for each strand, and looks at no other job.
        """
        of_strands = [self._clients[client].jobs.first_of(label) for client, label in strands if client in self._order]
        found = [job for job in (*of_strands, self._first_guest(least_grade(pause))) if job is not None]
        return min(found, key=lambda job: (self._order.rank(job.client), job.arrival), default=None)

    def _first_guest(self, grade: int) -> Job | None:
        firsts = [clients.first() for found, clients in self._guests.items() if found >= grade]
        client = min(firsts, key=self._order.rank, default=None)
        return None if client is None else self._clients[client].jobs.first_from(grade)

    def serve(self, job: Job) -> None:
        """A job is picked and will be billed with :meth:`bill`."""
        client = self._own(job.client)
        client.served = True
        self._floor = max(self._floor, client.tag)
        self.remove(job)

    def bill(self, client_name: str, seconds: float, share: float = 1.0, *, served: bool = True) -> None:
        """Add slot time to a client's tag: for the job served last, or (``served=False``) for what else it caused.

        ``share`` is the client's, and counts where it has left.
        """
        if client_name not in self._clients:
            self._remember(client_name, max(self._level, self._away.get(client_name, 0.0)) + seconds / share)
            return
        client = self._own(client_name)
        self._level += seconds / self._shares
        client.tag += seconds / client.share
        client.served = client.served and not served
        if client.jobs:
            self._displace(client)
            self._place(client)
        self._leave_if_done(client)
        self._settle_level()

    def jobs(self) -> list[Job]:
        """All waiting jobs, in no order."""
        return [job for client in self._clients.values() for job in client.jobs.items()]

    def copy(self) -> FairQueue:
        """Another queue with the same jobs, to be used only until this one changes.

        It is cheap also with many clients: what belongs to one is copied when the copy first changes it.
        """
        twin = FairQueue(self.wanted_since)
        twin.__dict__.update(self.__dict__)
        twin._clients, twin._shared = self._clients.copy(), set(self._clients)
        twin._order, twin._most, twin._away = self._order.copy(), self._most.copy(), self._away.copy()
        twin._guests = {grade: clients.copy() for grade, clients in self._guests.items()}
        return twin

    def _own(self, name: str) -> _Client:
        if name in self._shared:
            self._shared.remove(name)
            self._clients[name] = self._clients[name].copy()
        return self._clients[name]

    def _place(self, client: _Client) -> None:
        # Equal tags: the one placed first, so that a client that was just served goes behind a newcomer.
        self._placed += 1
        self._order.push((client.tag, self._placed), client.name)
        self._most.push((-client.tag, self._placed), client.name)
        for grade in client.jobs.grades:
            self._place_guest(client.name, grade)

    def _displace(self, client: _Client) -> None:
        self._order.remove(client.name)
        self._most.remove(client.name)
        for grade in client.jobs.grades:
            self._displace_guest(client.name, grade)

    def _place_guest(self, client: str, grade: int) -> None:
        guests = self._guests.setdefault(grade, RemovableHeap())
        if client not in guests:
            guests.push(self._order.rank(client), client)

    def _displace_guest(self, client: str, grade: int) -> None:
        self._guests[grade].remove(client)
        if not self._guests[grade]:
            del self._guests[grade]

    def _settle_level(self) -> None:
        most = self._clients[self._most.first()].tag if self._most else self._level
        self._level = max(self._floor, min(self._level, most))

    def _leave_if_done(self, client: _Client) -> None:
        if not client.jobs and not client.served:
            del self._clients[client.name]
            self._shares = self._shares - client.share if self._clients else 0.0  # no rounding is carried on
            self._remember(client.name, client.tag)

    def _remember(self, name: str, tag: float) -> None:
        if tag > self._floor:
            self._away[name] = tag
            if len(self._away) > self._sweep_at:
                self._away = {name: tag for name, tag in self._away.items() if tag > self._floor}
                self._sweep_at = 2 * len(self._away) + 64
