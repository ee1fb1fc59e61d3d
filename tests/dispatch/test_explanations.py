"""Why a job waits or waited, as its report says it: of jobs that wait, run, and ended in each way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llm_queue.core.jobs import Job, Lane, State
from llm_queue.core.keys import RunnerKey
from llm_queue.core.picks import Pick, Picks
from llm_queue.core.prompts import PromptWork
from llm_queue.core.reasons import Rule
from llm_queue.core.turn import Turn
from llm_queue.dispatch.explanations import SHOWN, Case, Explanations, costs, during, rule_before
from llm_queue.dispatch.insight import Explanation
from llm_queue.dispatch.wordings import Costs
from llm_queue.errors import LoadFailed, UpstreamRefused, WaitExpired
from llm_queue.testing import Busy, Refuse, Say
from tests.core.driver import Driver, key, made_job
from tests.harness import OTHER, REMOTE, Harness, answer, line


def explained(held: Harness, job: str) -> Explanation:
    report = held.dispatcher.find(job)
    assert report is not None
    assert isinstance(report.explanation, Explanation)
    return report.explanation


async def test_a_job_that_waits_is_told_what_went_before_it_what_runs_and_what_bounds_its_wait(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        first = held.submit(client="cron")
        await trio.sleep(0.5)
        waiting = held.submit(client="editor")
        click = held.submit(client="click", lane=Lane.INTERACTIVE)
        await trio.sleep(1.0)
        found = explained(held, waiting.job.id)
        assert found.sentences == (
            "It has waited 1.0 s, and 2 jobs went before it: 1 of click (interactive, and could use the model that was "
            "just loaded) and 1 of cron (had the slot when it came); now a job of click runs.",
            "1 load for others took 0.50 s.",
        )
        assert [(pick.job, pick.rule, pick.load_s) for pick in found.picks] == [
            (first.job.id, "had_slot", 1.0),
            (click.job.id, "shares_load", None),
        ]
        assert found.bound == "It takes turns with 1 other program, by slot time."
        for ticket in (first, waiting, click):
            await answer(ticket)
        assert explained(held, waiting.job.id).sentences[0].startswith("It waited 2.5 s; 2 jobs went before it")
        assert explained(held, waiting.job.id).bound is None


async def test_one_of_a_lower_lane_is_told_how_often_others_may_still_pass_it(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit() for _ in range(4)]
        slow = held.submit(client="slow", lane=Lane.BACKGROUND)
        await trio.sleep(0.5)
        assert explained(held, slow.job.id).bound == "Higher lanes go first, but at most 10 more times."
        await trio.sleep(2.0)
        assert explained(held, slow.job.id).bound == "Higher lanes go first, but at most 8 more times."
        for ticket in (*tickets, slow):
            await answer(ticket)


async def test_the_one_that_caused_a_load_says_so(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        ticket = held.submit()
        await trio.sleep(0.5)
        loading = explained(held, ticket.job.id)
        assert loading.sentences == (
            "It has waited 0.00 s, and nothing has gone before it; now its model is being loaded.",
        )
        assert loading.bound is None
        await trio.sleep(1.0)
        assert explained(held, ticket.job.id).sentences[0] == "It runs now, and started at once."
        await answer(ticket)
        found = explained(held, ticket.job.id)
        assert found.sentences == ("It started at once.", "The load of its model took 1.0 s.")
        (pick,) = found.picks
        assert (pick.job, pick.model, pick.rule, pick.load_s) == (ticket.job.id, "scripted", "only_one", 1.0)


async def test_those_that_came_after_it_went_not_before_it(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        first, second, late = held.submit(), held.submit(), held.submit(client="late", max_wait=3.0)
        await trio.sleep(3.5)
        assert explained(held, first.job.id).sentences[0] == "It started at once."
        assert [pick.job for pick in explained(held, first.job.id).picks] == [first.job.id]
        await answer(second)
        assert explained(held, late.job.id).sentences[0].startswith("It waited 2.0 s; 1 job of unknown went before it")
        await answer(late)
        runs, gone, after = held.submit(), held.submit(), held.submit()
        await trio.sleep(0.5)
        gone.close()
        await answer(runs)
        await answer(after)
        assert [pick.job for pick in explained(held, gone.job.id).picks] == [runs.job.id]
        assert explained(held, first.job.id).sentences[0] == "It started at once."


async def test_one_that_waits_for_another_model_is_told_of_the_turn(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask(model=OTHER)
        held.upstream.default = Say(first_after=2.0)
        tickets = [held.submit(client="cron"), held.submit(client="other", model=OTHER)]
        await trio.sleep(2.0)
        found = explained(held, tickets[1].job.id)
        rest = "At most the rest of this turn (8.0 s of 9.0 s), the job that runs then, and one load of 1.0 s."
        assert found.bound == rest
        tickets.append(held.submit(client="cron"))
        await wait_all_tasks_blocked()
        assert explained(held, tickets[1].job.id).bound == rest
        for ticket in tickets:
            await answer(ticket)


async def test_one_whose_max_wait_was_over_is_told_what_went_before(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=3.0)
        first, late = held.submit(client="cron"), held.submit(client="late", max_wait=2.0)
        await wait_all_tasks_blocked()
        assert explained(held, late.job.id).bound == (
            "The load that goes on and the job that it is for come first; it takes turns with 1 other program, by slot "
            "time; its max wait ends in 2.0 s."
        )
        with pytest.raises(WaitExpired):
            await answer(late)
        await answer(first)
        assert explained(held, late.job.id).sentences == (
            "Its max wait was over after 2.0 s; 1 job of cron went before it (its program had used the slot less).",
            "1 load for others took 1.0 s.",
        )


async def test_one_whose_caller_left_while_it_waited(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=3.0)
        first, gone = held.submit(client="cron"), held.submit(client="gone")
        await trio.sleep(2.0)
        gone.close()
        await answer(first)
        assert explained(held, gone.job.id).sentences[0].startswith("It was cancelled when it had waited 2.0 s; 1 job")


async def test_those_that_a_failed_load_has_taken_with_it(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.then_load(Refuse(text="no memory"))
        first, second = held.submit(client="cron"), held.submit(client="editor")
        for ticket in (first, second):
            with pytest.raises(LoadFailed):
                await answer(ticket)
        assert explained(held, first.job.id).sentences[0].startswith("Its model could not be loaded")
        assert explained(held, second.job.id).sentences[0].startswith("Its model could not be loaded")
        third = held.submit(client="later")
        with pytest.raises(LoadFailed):
            await answer(third)
        assert explained(held, third.job.id).sentences == ("It never ran (load_failed); it had waited 0.00 s.",)


async def test_one_that_failed_says_with_which_code(autojump_clock: MockClock) -> None:
    async with line(max_attempts=1) as held:
        held.upstream.then(Refuse(400))
        ticket = held.submit()
        with pytest.raises(UpstreamRefused):
            await answer(ticket)
        assert "ran, and failed (upstream_refused)" in explained(held, ticket.job.id).sentences[0]


async def test_one_whose_model_runs_elsewhere_waited_for_nobody(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.known.append(REMOTE)
        held.upstream.default = Say(first_after=1.0)
        ticket = held.submit(model=REMOTE)
        await trio.sleep(0.5)
        assert "elsewhere" in explained(held, ticket.job.id).sentences[0]
        await answer(ticket)
        assert "elsewhere" in explained(held, ticket.job.id).sentences[0]


async def test_while_the_upstream_is_away_that_is_what_it_waits_for(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.down = True
        ticket = held.submit()
        await trio.sleep(0.5)
        assert "now it waits for the engine" in explained(held, ticket.job.id).sentences[0]
        held.upstream.down = False
        await answer(ticket)


async def test_while_the_slot_is_kept_for_another_that_is_said(autojump_clock: MockClock) -> None:
    async with line(switch_wait=60) as held:
        held.upstream.default = Say(first_after=0.5)
        await held.ask(model=OTHER)
        for _ in range(9):
            await held.ask(client="loop")
        other = held.submit(model=OTHER, client="other")
        await trio.sleep(0.25)
        assert "now the slot is kept free for loop" in explained(held, other.job.id).sentences[0]
        hold = held.dispatcher.status().hold
        assert hold is not None
        assert (hold.client, hold.model, hold.until_in_s) == ("loop", "scripted", 0.5)
        await answer(other)
        assert "slot was kept free for loop for 0.75 s" in explained(held, other.job.id).sentences[1]
        assert explained(held, other.job.id).picks[-1].hold_s == 0.75


async def test_one_that_the_line_has_not_heard_of_yet_can_be_asked_about(autojump_clock: MockClock) -> None:
    async with line() as held:
        ticket = held.submit()
        found = explained(held, ticket.job.id)
        assert found.sentences == ("It has waited 0.00 s, and nothing has gone before it.",)
        assert found.bound is None
        await answer(ticket)


async def test_in_a_pause_that_is_what_it_waits_for_and_nothing_bounds_it(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        await held.ask()
        runs = held.submit(client="cron")
        await trio.sleep(0.5)
        await held.dispatcher.commands.pause(unload=False)
        ticket = held.submit()
        await wait_all_tasks_blocked()
        assert explained(held, ticket.job.id).sentences[0].endswith("; now a job of cron runs, and the line is paused.")
        await answer(runs)
        await trio.sleep(2.0)
        assert explained(held, ticket.job.id).sentences[0].endswith("; now the line is paused.")
        assert explained(held, ticket.job.id).bound is None
        await held.dispatcher.commands.resume()
        await answer(ticket)


async def test_while_the_upstream_is_busy_with_others_that_is_said(autojump_clock: MockClock) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.then(Busy())
        ticket = held.submit()
        await trio.sleep(0.05)
        assert explained(held, ticket.job.id).sentences[0].endswith("; now the engine is busy with another program.")
        await answer(ticket)


async def test_one_that_was_moved_is_told_of_others_as_they_were_to_it_in_its_old_lane(
    autojump_clock: MockClock,
) -> None:
    async with line() as held:
        await held.ask()
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit(client="cron") for _ in range(3)]
        slow = held.submit(client="slow", lane=Lane.BACKGROUND)
        await trio.sleep(1.5)
        await held.dispatcher.commands.move(slow.job.id, Lane.INTERACTIVE)
        for ticket in (*tickets, slow):
            await answer(ticket)
        assert explained(held, slow.job.id).sentences[0] == (
            "It waited 2.0 s; 2 jobs of cron went before it (a higher lane)."
        )


async def test_no_more_is_kept_than_there_are_finished_jobs(autojump_clock: MockClock) -> None:
    async with line(remembered_jobs=2) as held:
        tickets = [held.submit() for _ in range(4)]
        for ticket in tickets:
            await answer(ticket)
        assert [held.dispatcher.find(ticket.job.id) is None for ticket in tickets] == [True, True, False, False]
        assert len(held.dispatcher._board._explanations._ended) == 2


async def test_a_prompt_stands_in_no_explanation(autojump_clock: MockClock) -> None:
    async with line() as held:
        tickets = [held.submit("the secret word") for _ in range(3)]
        await wait_all_tasks_blocked()
        texts = [repr(held.dispatcher.find(ticket.job.id)) for ticket in tickets] + [repr(held.dispatcher.status())]
        for ticket in tickets:
            await answer(ticket)
        texts += [repr(held.dispatcher.find(ticket.job.id)) for ticket in tickets] + [repr(held.dispatcher.status())]
        assert "explanation" in texts[0]
        assert not any("secret" in text for text in texts)


# --- by themselves ---


def pick(
    job: str = "p",
    *,
    client: str = "p",
    lane: Lane = Lane.NORMAL,
    model: str = "a",
    rule: Rule = Rule.ONLY_ONE,
    at: float = 20.0,
    load: float | None = None,
) -> Pick:
    return Pick(job, client, lane, key(model), rule, at, load=load)


CASE = Case("j", "me", Lane.NORMAL, RunnerKey("a", 8192), State.QUEUED, 10.0, 90.0, 80.0, started=False, remote=False)


@pytest.mark.parametrize(
    ("one", "rule"),
    [
        (pick(at=9.0), Rule.HAD_SLOT),
        (pick(rule=Rule.STRAND_FIRST), Rule.STRAND_FIRST),
        (pick(rule=Rule.GUEST, lane=Lane.INTERACTIVE), Rule.GUEST),
        (pick(lane=Lane.INTERACTIVE, model="b", load=3.0), Rule.HIGHER_LANE),
        (pick(lane=Lane.BACKGROUND), Rule.LANE_BURST),
        (pick(client="me"), Rule.FIRST_COME),
        (pick(), Rule.FAIR_SHARE),
        (pick(model="b", rule=Rule.NEW_MODEL, load=3.0), Rule.NEW_MODEL),
        (pick(model="b", load=3.0), Rule.TURN_OVER),
        (pick(model="b"), Rule.TURN_GOES_ON),
    ],
)
def test_why_another_went_first_depends_on_who_asks(one: Pick, rule: Rule) -> None:
    assert rule_before(CASE, one) is rule


def test_a_context_that_has_grown_makes_no_other_model_of_it() -> None:
    assert rule_before(CASE, replace(pick(), key=RunnerKey("a", 4096))) is Rule.FAIR_SHARE


def test_it_is_judged_by_the_lane_in_which_it_was_at_each_pick() -> None:
    moved = replace(CASE, moves=((30.0, Lane.BACKGROUND), (50.0, Lane.INTERACTIVE)))
    rules = [rule_before(moved, pick(at=at)) for at in (29.0, 30.0, 49.0, 50.0)]
    assert rules == [Rule.HIGHER_LANE, Rule.LANE_BURST, Rule.LANE_BURST, Rule.FAIR_SHARE]


@pytest.mark.parametrize(("since", "seconds"), [(10.0, 3.0), (18.0, 2.0), (20.0, 0.0), (25.0, 0.0)])
def test_of_a_hold_it_waited_only_what_was_after_it_came(since: float, seconds: float) -> None:
    one = replace(pick(at=20.0), hold=3.0, held_for="loop")
    assert costs([one], [], since) == Costs(hold_seconds=seconds, held_for="loop" if seconds else None)


def says(driver: Driver, job: Job) -> str:
    explanations = Explanations(driver.scheduler, driver.line, str, 10)
    return explanations.of_live(job, driver.now, remote=False).sentences[0]


def test_while_it_is_asked_what_is_loaded_that_is_said() -> None:
    driver = Driver(resident=(key("a"),))
    driver.wait(61.0)
    job = driver.submit()
    assert driver.asking
    assert says(driver, job).endswith("; now the engine is asked what it has loaded.")


def test_while_memory_is_freed_that_is_said() -> None:
    driver = Driver(resident=(key("a"),))
    driver.pause(unload=True)
    job = driver.submit()
    assert says(driver, job).endswith("; now the engine frees its memory, and the line is paused.")
    driver.resume()
    assert says(driver, job).endswith("; now the engine frees its memory.")


def test_only_what_came_after_the_job_was_lost_for_it() -> None:
    early = pick(at=8.0, load=3.0)
    early.started, early.prompt = 11.0, PromptWork(100, 0, 2.0)
    before = pick(at=2.0, load=3.0)
    before.started, before.prompt = 5.0, PromptWork(100, 0, 2.0)
    assert costs([early, before], [], since=10.0) == Costs(1, 1.0, 1, 2.0)


def test_the_last_one_before_counts_only_if_it_still_had_the_slot() -> None:
    log, turn = Picks(), Turn(resident=frozenset({key("a")}))
    log.picked(made_job("over"), key("a"), Rule.ONLY_ONE, turn, 1.0)
    log.attempt_ended(made_job("over"), None, 9.0)
    log.picked(made_job("later"), key("a"), Rule.ONLY_ONE, turn, 95.0)
    assert list(during(CASE, log)) == []
    log = Picks()
    log.picked(made_job("runs"), key("a"), Rule.ONLY_ONE, turn, 1.0)
    log.picked(made_job("during"), key("a"), Rule.ONLY_ONE, turn, 50.0)
    assert [one.job for one in during(CASE, log)] == ["during", "runs"]


async def test_a_long_wait_lists_the_last_picks_and_counts_all(autojump_clock: MockClock) -> None:
    async with line() as held:
        held.upstream.default = Say(first_after=1.0)
        tickets = [held.submit(client="cron") for _ in range(SHOWN + 10)]
        for ticket in tickets:
            await answer(ticket)
        found = explained(held, tickets[-1].job.id)
        assert len(found.picks) == SHOWN
        assert found.picks[-1].job == tickets[-1].job.id
        assert f"{SHOWN + 9} jobs" in found.sentences[0]
