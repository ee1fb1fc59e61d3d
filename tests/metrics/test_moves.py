"""Every metric moves when what it says happens, and says how much of it did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import prometheus_client.parser
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from trio.testing import MockClock

from llm_queue.core.jobs import Lane
from llm_queue.dispatch.moments import JobAccepted, JobEnded
from llm_queue.dispatch.status import JobReport
from llm_queue.errors import LineFull, QueueError
from llm_queue.metrics import families
from llm_queue.metrics.counted import CLIENTS, MODELS
from llm_queue.metrics.families import FAMILIES
from llm_queue.metrics.page import OPENMETRICS, TEXT, Metrics, prefers_openmetrics
from llm_queue.testing import Break, Busy, Hang, Refuse, Say, ScriptedUpstream
from llm_queue.testing.scripted import scripted_model
from tests.harness import MODEL, REMOTE, Harness, answer, line

SECOND = scripted_model("second")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(metrics: Metrics) -> Samples:
    """Every sample, as a scraper reads it."""
    text = metrics.page("")[1].decode()
    found: Samples = {}
    for family in prometheus_client.parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a series is there twice"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def of(samples: Samples, family: families.Family) -> Samples:
    names = {family.name, *(f"{family.name}_{end}" for end in ("bucket", "sum", "count"))}
    return {key: number for key, number in samples.items() if key[0] in names}


@asynccontextmanager
async def measured(**settings: Any) -> AsyncIterator[tuple[Harness, Metrics]]:
    async with line(ScriptedUpstream(known=[MODEL, SECOND]), **settings) as held:
        metrics = Metrics(held.dispatcher)
        held.dispatcher.observers.add(metrics)
        yield held, metrics


def a_report(job: str = "by-hand", **fields: Any) -> JobReport:
    known: dict[str, Any] = {
        "job": job, "request_id": "", "client": "cron", "lane": "normal", "model": "scripted", "num_ctx": 8192,
        "state": "succeeded", "attempts": 1, "wait_s": 1.0, "load_s": 0.0, "run_s": 2.0,
    }  # fmt: skip
    return JobReport(**(known | fields))


async def test_every_metric_moves(autojump_clock: MockClock) -> None:
    moved: set[str] = set()
    async with measured(switch_wait=60) as (held, metrics):
        last = samples_of(metrics)

        def look() -> None:
            nonlocal last
            now = samples_of(metrics)
            moved.update(family.name for family in FAMILIES if of(now, family) != of(last, family))
            last = now

        await held.ask(model=SECOND)
        held.upstream.default = Say(first_after=0.5)
        for _ in range(9):
            await held.ask(client="loop", unknown_lane=True)
        look()
        waiting = held.submit(model=SECOND, client="other")  # held up for the loop
        await answer(waiting)
        remote = held.submit(model=REMOTE)
        running = held.submit(client="cron")
        queued = [held.submit() for _ in range(2)]
        held.dispatcher.rejected(LineFull(retry_after=1), "cron")
        await trio.sleep(0.2)
        look()
        for ticket in (remote, running, *queued):
            await answer(ticket)
        held.upstream.then(Break(after=0.1))
        await held.ask()
        held.upstream.resident_keys = []  # a program that bypasses the line
        await held.ask()
        held.upstream.then_load(Refuse())
        with suppress(QueueError):
            await held.ask(model=SECOND)
        look()
        held.upstream.down = True
        late = held.submit()
        await trio.sleep(1)
        look()
        held.upstream.down = False
        await answer(late)
        held.upstream.then(Say(cached_tokens=3, prompt_seconds=0.5), Busy())
        await held.ask()
        await held.ask()
        look()
    assert moved == {family.name for family in FAMILIES} - {families.BUILD.name}


async def test_the_numbers_are_those_of_what_has_happened(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        held.upstream.then(Break(after=1.0), Say("two words", first_after=2.0, seconds_per_token=1.0, prompt_tokens=7))
        await held.ask(client="cron", lane=Lane.BACKGROUND)
        held.upstream.then(Hang())
        ticket = held.submit(client="cron")
        await trio.sleep(3)
        ticket.close()
        await trio.testing.wait_all_tasks_blocked()
        await held.ask(model=SECOND, client="editor", lane=Lane.INTERACTIVE)
        seen = samples_of(metrics)
        status = held.dispatcher.status()
    assert value(seen, "llm_queue_jobs_total", lane="background", state="succeeded") == 1
    assert value(seen, "llm_queue_jobs_total", lane="normal", state="cancelled") == 1
    assert value(seen, "llm_queue_jobs_total", lane="normal", state="succeeded") == 0
    assert value(seen, "llm_queue_attempts_total", outcome="broken") == 1
    assert value(seen, "llm_queue_attempts_total", outcome="succeeded") == 2
    assert value(seen, "llm_queue_attempts_total", outcome="timed_out") == 0
    assert value(seen, "llm_queue_run_seconds_sum", model="scripted") == pytest.approx(4.0)
    assert value(seen, "llm_queue_run_seconds_count", model="scripted") == 1
    assert value(seen, "llm_queue_first_token_seconds_sum", model="scripted") == pytest.approx(3.0)
    assert value(seen, "llm_queue_load_seconds_sum", model="second") == pytest.approx(1.0)
    assert value(seen, "llm_queue_prompt_tokens_total", model="scripted") == 7
    assert value(seen, "llm_queue_completion_tokens_total", model="scripted") == 2
    assert value(seen, "llm_queue_switches_total") == 1
    assert value(seen, "llm_queue_client_jobs_total", client="cron") == 2
    assert value(seen, "llm_queue_client_slot_seconds_total", client="cron", use="run") == pytest.approx(8.0)
    assert value(seen, "llm_queue_client_slot_seconds_total", client="editor", use="load") == pytest.approx(1.0)
    assert value(seen, "llm_queue_wait_seconds_count", lane="interactive") == 1
    assert value(seen, "llm_queue_retries_total") == status.retries == 1
    assert value(seen, "llm_queue_up") == 1


async def test_who_waits_and_who_runs_is_said_by_lane_and_as_vllm_says_it(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        held.upstream.default = Say(first_after=1.0)
        first = held.submit()
        rest = [held.submit(lane=Lane.BACKGROUND), held.submit(model=SECOND), held.submit(model=REMOTE)]
        await trio.sleep(0.5)
        loading = samples_of(metrics)
        await trio.sleep(1.0)
        running = samples_of(metrics)
        for ticket in (first, *rest):
            await answer(ticket)
        done = samples_of(metrics)
    for seen in (loading, running):
        assert value(seen, "llm_queue_waiting_jobs", lane="background") == 1
        assert value(seen, "llm_queue_waiting_jobs", lane="normal") == 1
        assert value(seen, "vllm:num_requests_waiting", model_name="scripted") == 1
        assert value(seen, "vllm:num_requests_waiting", model_name="second") == 1
        assert value(seen, "vllm:num_requests_running", model_name="scripted") == 1
        assert value(seen, "vllm:num_requests_running", model_name="second") == 0
    assert value(loading, "llm_queue_slot_jobs", phase="loading") == 1
    assert value(running, "llm_queue_slot_jobs", phase="running") == 1
    assert value(running, "llm_queue_slot_jobs", phase="loading") == 0
    for name in ("vllm:num_requests_waiting", "vllm:num_requests_running"):
        assert {number for (one, _), number in done.items() if one == name} == {0}


async def test_a_job_whose_turn_is_taken_after_its_load_waits_again(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        held.upstream.default = Say(first_after=1.0)
        loads = held.submit(lane=Lane.BACKGROUND)
        await trio.sleep(0.5)
        urgent = held.submit(lane=Lane.INTERACTIVE)
        await trio.sleep(1.0)
        seen = samples_of(metrics)
        for ticket in (loads, urgent):
            await answer(ticket)
    assert value(seen, "llm_queue_waiting_jobs", lane="background") == 1
    assert value(seen, "vllm:num_requests_waiting", model_name="scripted") == 1
    assert value(seen, "vllm:num_requests_running", model_name="scripted") == 1


async def test_a_job_that_is_repeated_waits_again(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        held.upstream.then(Break(after=2.0), Say(first_after=2.0))
        breaks = held.submit(lane=Lane.BACKGROUND)
        await trio.sleep(2.0)
        urgent = held.submit(lane=Lane.INTERACTIVE)
        await trio.sleep(2.0)
        seen = samples_of(metrics)
        for ticket in (breaks, urgent):
            await answer(ticket)
    assert value(seen, "llm_queue_attempts_total", outcome="broken") == 1
    assert value(seen, "vllm:num_requests_waiting", model_name="scripted") == 1
    assert value(seen, "vllm:num_requests_running", model_name="scripted") == 1


async def test_a_hold_is_slot_time_of_whom_it_is_for(autojump_clock: MockClock) -> None:
    async with measured(switch_wait=60) as (held, metrics):
        await held.ask(model=SECOND)
        held.upstream.default = Say(first_after=0.5)
        for _ in range(9):
            await held.ask(client="loop")
        await held.ask(model=SECOND, client="other")
        seen = samples_of(metrics)
    held_seconds = value(seen, "llm_queue_held_seconds_total")
    assert held_seconds > 0
    of_loop = value(seen, "llm_queue_client_slot_seconds_total", client="loop", use="hold")
    assert of_loop == pytest.approx(held_seconds, abs=0.001)


async def test_what_goes_beside_the_line_is_not_counted_as_the_line_s(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        await held.ask(client="editor")
        await held.ask(model=REMOTE, client="cron")
        await held.ask(client="editor")
        seen = samples_of(metrics)
    assert value(seen, "llm_queue_remote_jobs_total", state="succeeded") == 1
    assert value(seen, "llm_queue_switches_total") == 0
    assert value(seen, "llm_queue_completion_tokens_total", model=REMOTE.name) == 1
    assert not any(("client", "cron") in labels for _, labels in seen)
    assert sum(number for (name, _), number in seen.items() if name == "llm_queue_jobs_total") == 2


async def test_a_job_that_never_had_the_slot_has_no_wait(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        held.upstream.default = Say(first_after=9.0)
        running = held.submit()
        waiting = held.submit(max_wait=2.0)
        with pytest.raises(QueueError):
            await answer(waiting)
        await answer(running)
        seen = samples_of(metrics)
    assert value(seen, "llm_queue_jobs_total", lane="normal", state="expired") == 1
    assert value(seen, "llm_queue_wait_seconds_count", lane="normal") == 1


async def test_however_many_names_callers_choose_the_page_stays_small(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        await held.ask()
        before = len(samples_of(metrics))
        for number in range(1000):
            job, name = f"job-{number}", f'na"me\n{number}'
            metrics(JobAccepted(job, name, Lane.NORMAL, name, 9, unknown_lane=False))
            metrics(JobEnded(a_report(job, client=name, model=name, prompt_tokens=1, completion_tokens=1), None))
        seen = samples_of(metrics)
    clients = {dict(labels)["client"] for _, labels in seen if "client" in dict(labels)}
    models = {dict(labels)["model"] for _, labels in seen if "model" in dict(labels)}
    assert len(clients) == CLIENTS + 1
    assert len(models) == MODELS + 1
    assert "other" in clients & models
    assert len(seen) < before + 10 * (CLIENTS + MODELS)


async def test_a_name_that_lost_its_place_has_no_series_left(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        for number in range(MODELS + CLIENTS):
            await held.ask(client=f"client-{number}")
        for _ in range(4):
            await held.ask(client="busy")
        seen = samples_of(metrics)
    clients = {dict(labels)["client"] for _, labels in seen if "client" in dict(labels)}
    assert "busy" in clients
    assert len(clients) == CLIENTS + 1
    assert MODEL.name in {dict(labels).get("model") for _, labels in seen}


async def test_two_services_share_nothing(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics), measured() as (_, others):
        await held.ask(client="cron")
        assert value(samples_of(metrics), "llm_queue_jobs_accepted_total") == 1
        assert value(samples_of(others), "llm_queue_jobs_accepted_total") == 0


async def test_openmetrics_is_what_its_own_parser_reads(autojump_clock: MockClock) -> None:
    async with measured() as (held, metrics):
        await held.ask(client="cron")
        media_type, body = metrics.page("application/openmetrics-text")
        read: Any = openmetrics_families  # it has no types
        names = {family.name for family in read(body.decode())}
    assert media_type == OPENMETRICS
    assert body.endswith(b"# EOF\n")
    assert names == {family.name.removesuffix("_total") for family in FAMILIES}


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Q=0.2, text/plain; q=0.1", True),
        ("text/plain, application/openmetrics-text; q=0.9", False),
        ("application/openmetrics-text; q=0", False),
        ("application/openmetrics-text; q=many", False),
        ("application/openmetrics-text; version=no-version", True),
    ],
)
async def test_the_format_is_the_one_that_is_asked_for(
    accept: str, openmetrics: bool, autojump_clock: MockClock
) -> None:
    async with measured() as (_, metrics):
        assert metrics.page(accept)[0] == (OPENMETRICS if openmetrics else TEXT)


@given(st.text())
def test_any_accept_header_is_answered(accept: str) -> None:
    assert prefers_openmetrics(accept) in (True, False)
