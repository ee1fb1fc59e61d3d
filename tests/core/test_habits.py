"""What is known of programs that call in closed loops."""

from __future__ import annotations

from llm_queue.core.habits import REMEMBERED, Habits
from llm_queue.core.jobs import Lane
from tests.core.driver import key

X = ("x", "m")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.habits = Habits()

    def asks(self, loop: str = "x", *, think: float = 0.0, run: float = 1.0, answered: bool = True) -> None:
        self.now += think
        self.habits.arrives((loop, "m"), self.now)
        self.now += run
        self.habits.ran((loop, "m"), key("a"), Lane.NORMAL, run)
        self.habits.leaves((loop, "m"), self.now, answered=answered)

    def worth(self, cost: float, loop: str = "x") -> bool:
        found = dict(self.habits.away_since(0.0))
        return (loop, "m") in found and found[loop, "m"].worth_holding(cost)


def test_nobody_is_waited_for_who_asked_once() -> None:
    clock = Clock()
    clock.asks()
    assert not clock.worth(100.0)


def test_who_asks_again_at_once_is_worth_waiting_for() -> None:
    clock = Clock()
    clock.asks()
    clock.asks(think=0.1)
    assert clock.worth(3.0)


def test_who_thinks_longer_than_a_quarter_of_a_switch_is_not() -> None:
    clock = Clock()
    clock.asks()
    clock.asks(think=0.8)
    assert clock.worth(3.3)
    assert not clock.worth(3.1)


def test_who_thinks_longer_than_it_runs_is_not() -> None:
    clock = Clock()
    clock.asks(run=0.1)
    clock.asks(think=0.2, run=0.1)
    assert not clock.worth(100.0)


def test_the_median_decides_so_one_long_pause_in_eight_changes_nothing() -> None:
    clock = Clock()
    clock.asks()
    for _ in range(7):
        clock.asks(think=0.1)
    clock.asks(think=3600.0)
    assert clock.worth(3.0)


def test_old_habits_are_forgotten_after_eight_new_ones() -> None:
    clock = Clock()
    clock.asks()
    for _ in range(8):
        clock.asks(think=0.1)
    for _ in range(8):
        clock.asks(think=5.0)
    assert not clock.worth(3.0)


def test_a_think_time_is_sampled_only_when_nothing_else_was_here() -> None:
    clock = Clock()
    habits = clock.habits
    habits.arrives(X, 0.0)
    habits.arrives(X, 0.0)
    habits.ran(X, key("a"), Lane.NORMAL, 1.0)
    habits.leaves(X, 1.0, answered=True)
    assert not list(habits.away_since(0.0))
    habits.arrives(X, 1.1)
    habits.leaves(X, 2.0, answered=True)
    habits.leaves(X, 3.0, answered=True)
    assert [client for client, _ in habits.away_since(0.0)] == [X]
    assert not habits._habits[X].thinks


def test_who_left_without_an_answer_is_not_expected() -> None:
    clock = Clock()
    clock.asks()
    clock.asks(think=0.1, answered=False)
    assert not clock.worth(3.0)


def test_who_is_here_is_not_away() -> None:
    clock = Clock()
    clock.asks()
    clock.asks(think=0.1)
    clock.habits.arrives(X, clock.now)
    assert not clock.worth(3.0)


def test_those_away_are_told_from_the_latest_on_and_only_since_then() -> None:
    clock = Clock()
    for client in "xyz":
        clock.asks(client)
    assert [name for (name, _), _ in clock.habits.away_since(0.0)] == ["z", "y", "x"]
    assert [name for (name, _), _ in clock.habits.away_since(clock.now - 1.0)] == ["z"]


def test_memory_is_bounded_however_many_clients_come() -> None:
    clock = Clock()
    for number in range(3 * REMEMBERED):
        clock.asks(f"client {number}")
    assert len(clock.habits._habits) == REMEMBERED
    assert not clock.habits._here
    assert next(iter(clock.habits.away_since(0.0)))[0][0] == f"client {3 * REMEMBERED - 1}"


def test_a_client_that_was_forgotten_while_here_leaves_without_harm() -> None:
    clock = Clock()
    clock.habits.arrives(X, 0.0)
    clock.habits.ran(X, key("a"), Lane.NORMAL, 1.0)
    for number in range(REMEMBERED):
        clock.asks(f"client {number}")
    clock.habits.leaves(X, clock.now, answered=True)
    assert X not in dict(clock.habits.away_since(0.0))


def test_a_program_that_asks_two_models_in_turn_is_waited_for_on_neither() -> None:
    habits = Habits()
    for number in range(10):
        for model in "ab":
            now = 10.0 * number + 5.0 * (model == "b")
            habits.arrives(("x", model), now)
            habits.ran(("x", model), key(model), Lane.NORMAL, 4.9)
            habits.leaves(("x", model), now + 4.9, answered=True)
    assert not any(habit.worth_holding(10.0) for _, habit in habits.away_since(0.0))


def test_two_programs_that_look_alike_are_told_apart_by_their_models() -> None:
    habits = Habits()
    for number in range(5):
        for model in "ab":
            habits.arrives(("python", model), 2.0 * number)
    for model in "ab":
        habits.ran(("python", model), key(model), Lane.NORMAL, 1.0)
    for _ in range(5):
        habits.leaves(("python", "a"), 20.0, answered=True)
    assert [loop for loop, _ in habits.away_since(0.0)] == [("python", "a")]
