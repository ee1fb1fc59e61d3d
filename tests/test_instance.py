"""Who sent a request: itself known behind any number of others, and no name kept for longer than it is of use."""

from __future__ import annotations

from llm_queue.instance import LINGER, MOST, Instance


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_request_that_comes_back_is_known() -> None:
    one, other = Instance(), Instance()
    assert one.header() == one.name
    assert one.sent(one.header())
    assert not other.sent(one.header())
    assert not one.sent("")
    assert not one.sent(one.name[:-1])


def test_a_ring_is_known_by_the_one_that_began_it() -> None:
    first, second, third = Instance(), Instance(), Instance()
    with second.serving(first.header()), third.serving(second.header()):
        assert third.header() == f"{first.name}, {second.name}, {third.name}"
        assert first.sent(third.header())
        assert second.sent(third.header())


def test_what_a_proxy_makes_of_the_header_is_read_all_the_same() -> None:
    one = Instance()
    assert one.sent(f"{'0' * 32},{one.name} , {'1' * 32}")


def test_a_sender_is_named_while_one_of_its_requests_is_served_and_a_moment_longer() -> None:
    clock = Clock()
    one, sender = Instance(clock=clock), Instance()
    with one.serving(sender.name):
        with one.serving(sender.name):
            clock.now += 1000
        clock.now += 1000
        assert sender.name in one.header()
    clock.now += LINGER / 2
    assert sender.name in one.header()
    clock.now += LINGER / 2
    assert one.header() == one.name


def test_a_sender_that_comes_again_within_that_moment_stays_for_as_long_as_it_asks() -> None:
    clock = Clock()
    one, sender = Instance(clock=clock), Instance()
    with one.serving(sender.name):
        pass
    with one.serving(sender.name):
        clock.now += 2 * LINGER
        assert sender.name in one.header()


def test_made_up_names_fill_no_memory_and_no_header() -> None:
    one = Instance()
    with one.serving(", ".join(f"{number:032x}" for number in range(10 * MOST))):
        assert one.header().count(",") == MOST
    with one.serving("a word; <b>, " + "g" * 32):
        assert one.header().count(",") == MOST


def test_every_process_has_a_name_of_its_own() -> None:
    assert len({Instance().name for _ in range(100)}) == 100
