"""What is known of programs that call in closed loops."""

from __future__ import annotations

from math import inf

from llm_queue.core.habits import REMEMBERED, Habits
from llm_queue.core.jobs import Lane
from llm_queue.core.prompts import Ending
from tests.core.driver import key

X = ("x", "m", "")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.habits = Habits()

    def asks(
        self,
        client: str = "x",
        *,
        think: float = 0.0,
        run: float = 1.0,
        answered: bool = True,
        ending: Ending | None = None,
        label: str = "",
    ) -> float:
        loop = (client, "m", label)
        self.now += think
        pause = self.habits.arrives(loop, self.now)
        self.now += run
        self.habits.ran(loop, key("a"), Lane.NORMAL, run, ending=ending)
        self.habits.leaves(loop, self.now, answered=answered)
        return pause

    def worth(self, cost: float, *, backlog: bool = False, label: str = "") -> bool:
        found = dict(self.habits.away_since(0.0))
        loop = ("x", "m", label)
        return loop in found and found[loop].worth_holding(cost, backlog=backlog)


def test_nobody_is_waited_for_who_asked_once() -> None:
    clock = Clock()
    clock.asks()
    assert not clock.worth(100.0)


def test_who_asks_again_at_once_is_worth_waiting_for() -> None:
    clock = Clock()
    clock.asks()
    clock.asks(think=0.1)
    assert clock.worth(3.0)


def test_who_thinks_longer_than_half_a_switch_is_not() -> None:
    clock = Clock()
    clock.asks()
    clock.asks(think=0.8)
    assert clock.worth(1.7)
    assert not clock.worth(1.5)


def test_who_thinks_longer_than_it_runs_is_waited_for_but_before_a_backlog() -> None:
    clock = Clock()
    clock.asks(run=0.1)
    clock.asks(think=0.2, run=0.1)
    assert clock.worth(100.0)
    assert not clock.worth(100.0, backlog=True)
    clock.asks(think=0.2, run=0.9)
    clock.asks(think=0.2, run=0.9)
    assert clock.worth(100.0, backlog=True)


def test_each_kind_of_ending_has_pauses_of_its_own() -> None:
    clock = Clock()
    clock.asks(ending=Ending.TOOLS)
    for _ in range(5):
        clock.asks(think=0.1, ending=Ending.STOP)
        clock.asks(think=40.0, ending=Ending.TOOLS)
    assert clock.worth(3.0)
    clock.asks(think=0.1, ending=Ending.STOP)
    assert not clock.worth(3.0)


def test_nobody_is_waited_for_after_an_ending_that_it_never_had() -> None:
    clock = Clock()
    clock.asks(ending=Ending.TOOLS)
    clock.asks(think=0.1, ending=Ending.LENGTH)
    assert not clock.worth(3.0)


def test_each_label_of_a_client_has_habits_of_its_own() -> None:
    clock = Clock()
    clock.asks(label="quick")
    clock.asks(think=0.1, label="quick")
    clock.asks(label="slow")
    clock.asks(think=30.0, label="slow")
    assert clock.worth(3.0, label="quick")
    assert not clock.worth(3.0, label="slow")


# --- how long somebody paused before it asks ---


def test_who_was_never_here_has_paused_for_ever() -> None:
    assert Clock().asks() == inf


def test_a_strand_pauses_as_it_usually_does_after_such_an_ending() -> None:
    clock = Clock()
    clock.asks(ending=Ending.STOP)
    for think in (40.0, 5.0, 60.0):
        found = clock.asks(think=think, ending=Ending.STOP)
    assert found == 40.0


def test_a_strand_without_a_habit_pauses_for_as_long_as_its_client_was_away() -> None:
    clock = Clock()
    clock.asks(label="one")
    clock.now += 7.0
    assert clock.asks(label="two") == 7.0


def test_a_strand_without_a_habit_does_not_pause_while_its_client_has_a_job_here() -> None:
    clock = Clock()
    clock.asks(label="one")
    clock.now += 30.0
    clock.habits.arrives(("x", "m", "one"), clock.now)
    clock.now += 30.0
    assert clock.asks(label="two") == 0.0


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
    assert [name for (name, *_), _ in clock.habits.away_since(0.0)] == ["z", "y", "x"]
    assert [name for (name, *_), _ in clock.habits.away_since(clock.now - 1.0)] == ["z"]


def test_memory_is_bounded_however_many_clients_come() -> None:
    clock = Clock()
    for number in range(3 * REMEMBERED):
        clock.asks(f"client {number}")
    assert len(clock.habits._habits) == REMEMBERED
    assert len(clock.habits._clients_left) == REMEMBERED
    assert not clock.habits._here
    assert not clock.habits._clients_here
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
            habits.arrives(("x", model, ""), now)
            habits.ran(("x", model, ""), key(model), Lane.NORMAL, 4.9)
            habits.leaves(("x", model, ""), now + 4.9, answered=True)
    assert not any(habit.worth_holding(9.0, backlog=False) for _, habit in habits.away_since(0.0))


def test_two_programs_that_look_alike_are_told_apart_by_their_models() -> None:
    habits = Habits()
    for number in range(5):
        for model in "ab":
            habits.arrives(("python", model, ""), 2.0 * number)
    for model in "ab":
        habits.ran(("python", model, ""), key(model), Lane.NORMAL, 1.0)
    for _ in range(5):
        habits.leaves(("python", "a", ""), 20.0, answered=True)
    assert [loop for loop, _ in habits.away_since(0.0)] == [("python", "a", "")]
