"""What the soak would notice: a watchman that cannot be alarmed is none."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.soak import caller
from tests.soak.caller import Client, is_late_error
from tests.soak.canaries import canary, foreign, leaks
from tests.soak.kinds import CHAT, EMBEDDINGS, KINDS, MESSAGES, OLLAMA_CHAT, RESPONSES, Kind
from tests.soak.ledger import Ledger
from tests.soak.plans import Plan, Planner
from tests.soak.wire import Heard

OWN, OTHER = canary(1, 1), canary(2, 1)


def event(name: str, job: str, **fields: Any) -> str:
    return json.dumps({"event": name, "level": "info", "job": job, **fields})


def test_a_canary_is_found_wherever_it_is_and_only_the_foreign_ones_are_complained_of() -> None:
    assert foreign(f'{{"content": "{OWN} and {OTHER}"}}'.encode(), OWN) == [OTHER]
    assert foreign(OWN.encode(), OWN) == []
    assert leaks(f"…{OWN[:9]}")
    assert not leaks("a canary")


@pytest.mark.parametrize(
    ("lines", "said", "problem"),
    [
        ([f"something about {OWN}"], [], "a prompt or an answer in the service's output"),
        (["Traceback (most recent call last):"], [], "an error of its own"),
        ([event("done", "a"), event("failed", "a")], [], "a job ended twice"),
        ([event("done", "a")], [{"job": "a", "outcome": "failed"}], "is succeeded in the log"),
        ([event("cancelled", "a")], [{"job": "a", "outcome": "answered"}], "is cancelled in the log"),
        ([], [{"job": "a", "outcome": "answered"}], "does not know the end"),
        ([], [{"complaint": "x"}], "a caller"),
        ([event("done", "a")], [{"job": "a", "outcome": "answered"}], ""),
        ([event("timed_out", "a")], [{"job": "a", "outcome": "failed"}], ""),
    ],
)
@pytest.mark.parametrize("callers_first", [False, True])
def test_the_ledger_notices(lines: list[str], said: list[dict[str, str]], problem: str, callers_first: bool) -> None:
    ledger = Ledger()
    for line in [] if callers_first else lines:
        ledger.service_said(line)
    for one in said:
        ledger.caller_said(json.dumps(one))
    for line in lines if callers_first else []:
        ledger.service_said(line)
    ledger.close()
    assert len(ledger.problems) == bool(problem)
    assert all(problem in found for found in ledger.problems)


def plan(kind: Kind, *, streamed: bool = False, **fields: Any) -> Plan:
    return Plan(kind, streamed, OWN, b"", 0, text=f"{OWN} x {OWN}", **fields)


def judge(asked: Plan, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    complaints: list[str] = []
    monkeypatch.setattr(caller, "tell", lambda what: complaints.append(what["complaint"]))
    client = Client(0, Planner(1, 1, [CHAT], faults=0, hang_ups=0), Counter())
    heard = Heard(status, {}, bytearray(body), b"x", ended=True)
    outcome = client._judge(asked, heard)
    client._look_for_others(asked, heard)
    return outcome, complaints


def chat_answer(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.mark.parametrize(
    ("asked", "status", "body", "outcome", "complaint"),
    [
        (plan(CHAT), 200, chat_answer(f"{OWN} x {OWN}"), "answered", ""),
        (plan(CHAT), 200, chat_answer(f"{OTHER} x {OTHER}"), "answered", "belongs to"),
        (plan(CHAT), 200, chat_answer(f"{OWN} x"), "answered", "another answer"),
        (plan(CHAT), 200, b"{", "failed", "none of its dialect"),
        (plan(CHAT, may_fail=True), 500, b'{"error": {"message": "x"}}', "failed", "a 500"),
        (plan(CHAT), 400, b'{"error": {"message": "x"}}', "failed", "for nothing"),
        (plan(CHAT, may_fail=True), 400, b'{"error": {"message": "x"}}', "failed", ""),
        (plan(MESSAGES, may_fail=True), 400, b'{"error": {"message": "x"}}', "failed", "none of its dialect"),
        (plan(OLLAMA_CHAT, may_fail=True), 400, b'{"error": {"message": "x"}}', "failed", "none of its dialect"),
        (plan(CHAT, must_fail=True), 200, chat_answer(f"{OWN} x {OWN}"), "answered", "cannot be"),
        (plan(EMBEDDINGS), 200, b'{"data": [{"embedding": [1, 2, 3, 4]}]}', "answered", "another answer"),
        (
            plan(CHAT, streamed=True),
            200,
            b'data: {"choices": [{"delta": {"content": "kan"}}]}\n\n',
            "failed",
            "neither",
        ),
        (plan(CHAT, streamed=True), 200, b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n', "failed", "both"),
        (plan(RESPONSES, streamed=True), 200, b'data: {"type": "response.failed"}\n\n', "failed", ""),
        (
            *(plan(CHAT, streamed=True), 200),
            *(b'data: {"choices": [{"delta": {"content": "no"}}]}\n\ndata: [DONE]\n\n', "answered", "another stream"),
        ),
    ],
)
def test_a_caller_complains(
    asked: Plan, status: int, body: bytes, outcome: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    became, complaints = judge(asked, status, body, monkeypatch)
    assert became == outcome
    assert bool(complaints) == bool(complaint)
    assert all(any(word in said for word in (complaint, "another")) for said in complaints)


def test_the_same_seed_asks_the_same() -> None:
    def asked(seed: int, client: int) -> list[Plan]:
        planner = Planner(seed, client, list(KINDS.values()), faults=0.2, hang_ups=0.1)
        return [planner.next() for _ in range(300)]

    assert asked(1, 1) == asked(1, 1)
    assert asked(1, 1) != asked(2, 1)
    assert not {one.canary for one in asked(1, 1)} & {one.canary for one in asked(1, 2)}
    with_it = [one.canary.encode() in one.data for one in asked(1, 1)]
    assert sum(with_it) > 250  # a prompt of one dialect may be just a directive


LATE = b'   {"type": "error", "error": {"type": "timeout_error", "message": "no"}}\n'


@pytest.mark.parametrize(
    ("body", "streamed", "late"),
    [
        (LATE, False, True),
        (LATE.lstrip(), False, False),  # its status was still to be had
        (LATE, True, False),
        (LATE[:30], False, False),
        (b'   {"type": "message", "content": []}', False, False),
    ],
)
def test_an_error_that_came_too_late_for_a_status_of_its_own_is_known(body: bytes, streamed: bool, late: bool) -> None:
    assert is_late_error(plan(MESSAGES, streamed=streamed), Heard(200, {}, bytearray(body))) is late
