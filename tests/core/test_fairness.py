"""Fair share among clients, and the heap below it."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_queue.core.fairness import FairQueue
from llm_queue.core.heap import RemovableHeap
from llm_queue.core.jobs import Job
from tests.core.driver import made_job


class Item:
    """Told apart by identity, as jobs are."""


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 1000)), max_size=200))
def test_the_heap_gives_what_a_sorted_list_would(moves: list[tuple[int, bool, int]]) -> None:
    heap: RemovableHeap[Item] = RemovableHeap()
    naive: list[tuple[tuple[float, int], int, Item]] = []
    for serial, (rank, remove, which) in enumerate(moves):
        if remove and naive:
            entry = naive.pop(which % len(naive))
            heap.remove(entry[2])
            assert entry[2] not in heap
        else:
            item = Item()
            naive.append(((rank, 0), serial, item))
            heap.push((rank, 0), item)
            assert item in heap
        assert len(heap) == len(naive)
        assert bool(heap) is bool(naive)
        assert sorted(map(id, heap.items())) == sorted(id(entry[2]) for entry in naive)
        if naive:
            assert heap.first() is min(naive, key=lambda entry: entry[:2])[2]
        assert len(heap._heap) <= 2 * len(naive) + 9


def test_an_item_may_come_back_at_another_rank() -> None:
    heap: RemovableHeap[Item] = RemovableHeap()
    one, two = Item(), Item()
    heap.push((1, 0), one)
    heap.push((2, 0), two)
    heap.remove(one)
    heap.push((3, 0), one)
    assert heap.first() is two


class Kitchen:
    """One queue, and a slot that serves from it."""

    def __init__(self, **shares: float) -> None:
        """``shares`` are those of clients; of all others it is 1."""
        self.queue = FairQueue(0)
        self.had: dict[str, float] = {}
        self.order: list[str] = []
        self._shares = shares
        self._serial = itertools.count()

    def share(self, client: str) -> float:
        return self._shares.get(client, 1.0)

    def add(self, client: str, jobs: int = 1) -> list[Job]:
        made = [
            made_job(f"{client}{serial}", client=client, arrival=serial, share=self.share(client))
            for serial in itertools.islice(self._serial, jobs)
        ]
        for job in made:
            self.queue.add(job)
        return made

    def serve(self, seconds: float) -> str:
        job = self.queue.first()
        self.queue.serve(job)
        self.queue.bill(job.client, seconds, job.share)
        self.had[job.client] = self.had.get(job.client, 0.0) + seconds
        self.order.append(job.client)
        return job.client


lengths = st.floats(0.01, 30.0)
shares = st.sampled_from([0.1, 0.5, 1.0, 1.0, 2.0, 3.0, 10.0])


@given(st.lists(st.tuples(lengths, lengths), min_size=5, max_size=120), shares, shares, st.data())
def test_two_busy_clients_differ_by_no_more_than_their_longest_jobs_each_by_its_share(
    jobs: list[tuple[float, float]], share_of_x: float, share_of_y: float, data: st.DataObject
) -> None:
    others = data.draw(st.booleans())
    kitchen = Kitchen(x=share_of_x, y=share_of_y, u=0.1, v=10.0)
    kitchen.add("x", len(jobs))
    kitchen.add("y", len(jobs))
    left = {"x": [x for x, _ in jobs], "y": [y for _, y in jobs]}
    longest = max(left["x"]) / share_of_x + max(left["y"]) / share_of_y
    while all(left.values()):
        if others and data.draw(st.booleans()):
            kitchen.add(data.draw(st.sampled_from("uvw")))
        client = kitchen.queue.first().client
        kitchen.serve(left[client].pop() if client in left else data.draw(lengths))
        apart = kitchen.had.get("x", 0.0) / share_of_x - kitchen.had.get("y", 0.0) / share_of_y
        assert abs(apart) <= longest + 1e-6


@given(st.lists(st.tuples(shares, lengths), min_size=2, max_size=6))
def test_the_smallest_share_waits_for_no_more_than_its_part_and_a_job_of_each(
    clients: list[tuple[float, float]],
) -> None:
    kitchen = Kitchen(**{f"c{number}": share for number, (share, _) in enumerate(clients)})
    for number in range(len(clients)):
        kitchen.add(f"c{number}", 1500)
    total = sum(share for share, _ in clients)
    since = [0.0] * len(clients)
    for _ in range(1200):
        served = int(kitchen.queue.first().client[1:])
        length = clients[served][1]
        kitchen.serve(length)
        since[served] = 0.0
        for number, (share, own) in enumerate(clients):
            if number != served:
                since[number] += length
                rest = sum(other for n, (_, other) in enumerate(clients) if n != number)
                assert since[number] <= own * (total - share) / share + rest + 1e-6


@pytest.mark.parametrize("length", [0.5, 4.0])
def test_a_client_with_twice_the_share_has_twice_the_slot_time(length: float) -> None:
    kitchen = Kitchen(x=2.0)
    kitchen.add("x", 500)
    kitchen.add("y", 500)
    for _ in range(300):
        kitchen.serve(length if kitchen.queue.first().client == "x" else 1.0)
    assert kitchen.had["x"] == pytest.approx(2 * kitchen.had["y"], abs=2 * length + 2)


def test_a_share_changes_what_is_remembered_of_who_left() -> None:
    kitchen = Kitchen(restless=0.25)
    kitchen.add("patient", 200)
    kitchen.add("restless")
    served = [kitchen.serve(1.0), kitchen.serve(4.0)]
    assert served == ["patient", "restless"]  # and that has had 16 now, for each part of a share
    for _ in range(14):
        kitchen.add("restless")
        assert kitchen.serve(1.0) == "patient"


def test_what_is_billed_to_who_left_is_billed_by_its_share() -> None:
    for share, soon in ((10.0, True), (0.1, False)):
        kitchen = Kitchen(away=share)
        kitchen.add("here", 50)
        kitchen.serve(1.0)
        kitchen.queue.bill("away", 5.0, share, served=False)
        kitchen.serve(1.0)
        kitchen.add("away")
        assert ("away" in (kitchen.serve(1.0), kitchen.serve(1.0))) is soon


class NaiveShares:
    """The rules of :mod:`llm_queue.core.fairness`, with lists and exact numbers, and nothing forgotten."""

    def __init__(self, shares: dict[str, int]) -> None:
        self.shares = {client: Fraction(share, 4) for client, share in shares.items()}
        self.tags = dict.fromkeys(shares, Fraction(0))
        self.waiting: list[str] = []
        self.served: set[str] = set()
        self.level = self.floor = Fraction(0)

    def here(self) -> set[str]:
        return set(self.waiting) | self.served

    def settle(self) -> None:
        most = max((self.tags[client] for client in self.waiting), default=self.level)
        self.level = max(self.floor, min(self.level, most))

    def add(self, client: str) -> None:
        if client not in self.here():
            self.settle()
            self.tags[client] = max(self.level, self.tags[client])
        self.waiting.append(client)

    def next(self) -> set[str]:
        """Those of whom one must be next: more than one only where their tags are equal."""
        least = min(self.tags[client] for client in self.waiting)
        return {client for client in self.waiting if self.tags[client] - least < Fraction(1, 10**6)}

    def serve(self, client: str) -> None:
        self.floor = max(self.floor, self.tags[client])
        self.waiting.remove(client)
        self.served.add(client)

    def bill(self, client: str, seconds: int, *, served: bool) -> None:
        tag = self.tags[client]
        if client in self.here():
            here = sum((self.shares[other] for other in self.here()), Fraction(0))
            self.level += seconds / here
        else:
            tag = max(self.level, tag)
        self.tags[client] = tag + Fraction(seconds) / self.shares[client]
        if served:
            self.served.discard(client)
        if client in self.here() or served:
            self.settle()


CLIENTS = {"a": 1, "b": 2, "c": 4, "d": 4, "e": 40}
"""Shares in quarters."""

steps = st.lists(
    st.tuples(st.sampled_from(["add", "add", "serve", "serve", "serve", "leave", "cause"]), st.sampled_from("abcde"),
              st.integers(1, 20)),
    max_size=150,
)  # fmt: skip


@given(steps)
def test_it_picks_as_a_naive_model_with_exact_numbers_does(moves: list[tuple[str, str, int]]) -> None:
    naive, queue = NaiveShares(CLIENTS), FairQueue(0)
    jobs: dict[str, list[Job]] = {client: [] for client in CLIENTS}
    for serial, (what, client, seconds) in enumerate(moves):
        share = CLIENTS[client] / 4
        if what == "add":
            job = made_job(f"j{serial}", client=client, arrival=serial, share=share)
            jobs[client].append(job)
            queue.add(job)
            naive.add(client)
        elif what == "serve" and naive.waiting:
            job = queue.first()
            assert job.client in naive.next()
            assert job is jobs[job.client].pop(0)
            queue.serve(job)
            naive.serve(job.client)
            queue.bill(job.client, seconds, job.share)
            naive.bill(job.client, seconds, served=True)
        elif what == "leave" and jobs[client]:
            queue.remove(jobs[client].pop())
            naive.waiting.remove(client)
        elif what == "cause":
            queue.bill(client, seconds, share, served=False)
            naive.bill(client, seconds, served=False)
        assert len(queue) == len(naive.waiting)


@pytest.mark.parametrize("share", [0.1, 1.0, 10.0])
def test_behind_three_hundred_jobs_of_one_program_another_waits_for_one_at_most(share: float) -> None:
    for came_after in range(5):
        kitchen = Kitchen(many=share)
        kitchen.add("many", 300)
        for _ in range(came_after):
            kitchen.serve(2.0)
        kitchen.add("one")
        assert "one" in (kitchen.serve(2.0), kitchen.serve(2.0))


def test_who_comes_while_another_is_served_goes_next() -> None:
    kitchen = Kitchen()
    kitchen.add("many", 300)
    kitchen.serve(2.0)
    job = kitchen.queue.first()
    kitchen.queue.serve(job)
    kitchen.add("one")
    kitchen.queue.bill(job.client, 2.0)
    assert kitchen.serve(1.0) == "one"


def test_who_comes_back_has_no_credit_for_the_absence() -> None:
    kitchen = Kitchen()
    kitchen.add("steady", 5000)
    kitchen.add("other")
    for _ in range(3600):
        kitchen.serve(1.0)
    kitchen.add("other", 100)
    for _ in range(20):
        kitchen.serve(1.0)
    recent = kitchen.order[-20:]
    assert 9 <= recent.count("steady") <= 11


def test_who_comes_back_does_not_pay_for_the_past() -> None:
    kitchen = Kitchen()
    kitchen.add("glutton")
    kitchen.add("steady", 5000)
    kitchen.serve(500.0)
    for _ in range(3600):
        kitchen.serve(1.0)
    kitchen.add("glutton", 100)
    for _ in range(20):
        kitchen.serve(1.0)
    recent = kitchen.order[-20:]
    assert 9 <= recent.count("glutton") <= 11


def test_leaving_and_coming_back_at_once_does_not_wipe_out_what_was_had() -> None:
    kitchen = Kitchen()
    kitchen.add("restless")
    kitchen.add("patient", 50)
    assert kitchen.serve(20.0) == "restless"
    for _ in range(20):
        kitchen.add("restless")
        assert kitchen.serve(1.0) == "patient"


def test_an_endless_row_of_newcomers_does_not_starve_who_is_here() -> None:
    kitchen = Kitchen()
    kitchen.add("incumbent", 100)
    for number in range(400):
        kitchen.add(f"newcomer {number}")
        kitchen.serve(1.0)
    # They alone ask for more than there is: each job of the incumbent adds one to those it shares with.
    assert kitchen.order.count("incumbent") >= 15
    gaps = [len(list(group)) for who, group in itertools.groupby(kitchen.order, "incumbent".__eq__) if not who]
    assert max(gaps) <= 50


def test_who_took_much_and_left_does_not_hold_up_newcomers() -> None:
    kitchen = Kitchen()
    kitchen.add("glutton")
    kitchen.add("steady", 300)
    kitchen.serve(500.0)
    kitchen.serve(1.0)
    kitchen.add("newcomer")
    assert "newcomer" in (kitchen.serve(1.0), kitchen.serve(1.0))


def test_what_else_a_client_caused_is_billed_to_it() -> None:
    kitchen = Kitchen()
    kitchen.add("loader", 50)
    kitchen.add("other", 50)
    kitchen.queue.bill("loader", 10.0, served=False)
    assert [kitchen.serve(1.0) for _ in range(9)] == ["other"] * 9


def test_within_a_client_the_older_job_goes_first_also_when_it_comes_back() -> None:
    queue = FairQueue(0)
    first, second = made_job("first", arrival=1), made_job("second", arrival=2)
    queue.add(first)
    queue.add(second)
    queue.serve(first)
    queue.bill("x", 1.0)
    queue.add(first)
    assert queue.first() is first


def test_nothing_is_remembered_for_long_of_ten_thousand_who_came_once() -> None:
    kitchen = Kitchen()
    kitchen.add("steady", 20_000)
    for number in range(10_000):
        kitchen.add(f"once {number}")
        kitchen.serve(0.5)
        kitchen.serve(0.5)
    for job in kitchen.queue.jobs():
        kitchen.queue.remove(job)
    queue = kitchen.queue
    assert not len(queue)
    assert not queue._clients
    assert len(queue._order) == 0
    assert len(queue._away) <= 128


def test_a_queue_is_idle_only_when_nobody_waits_and_nobody_is_being_served() -> None:
    queue = FairQueue(0)
    assert queue.idle
    job = made_job("j")
    queue.add(job)
    assert not queue.idle
    queue.serve(job)
    assert not queue.idle
    queue.bill("x", 1.0)
    assert queue.idle
