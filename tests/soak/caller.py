"""A process of many clients. It tells its parent what became of each request, one JSON object per line."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any, Final

from llm_queue.testing.fake_ollama.answer import vectors_of
from tests.soak.canaries import foreign
from tests.soak.kinds import KINDS, as_text
from tests.soak.plans import Plan, Planner
from tests.soak.wire import Closed, Heard, Line

MOST_TOLD: Final = 20
"""Complaints that are told in full; the rest is counted."""

BACK_OFF: Final = 0.3
"""Seconds after which a client that was refused asks again."""


class Client:
    """One client with one connection."""

    def __init__(self, port: int, planner: Planner, tally: Counter[str]) -> None:
        self._line = Line(port)
        self._planner = planner
        self._tally = tally

    async def one(self) -> None:
        """The next request, from its first byte to what became of it."""
        plan = self._planner.next()
        await asyncio.sleep(plan.think)
        heard = Heard()
        self._tally["sent"] += 1
        try:
            await self._line.open()
            reused = not self._line.fresh
            if plan.hang_up:
                await self._leave(plan, heard)
            else:
                await self._line.send(plan.data)
                await self._line.hear(heard, slow=plan.slow)
        except Closed as closed:
            self._line.close()
            if plan.hang_up:
                self._tally["hung up"] += 1
            elif reused and not heard.raw_head:
                self._tally["stale"] += 1  # an idle connection was closed as we wrote: any client asks again
            elif plan.may_fail and is_late_error(plan, heard):
                self._tally["failed"] += 1
                tell({"job": heard.headers["x-llm-queue-job"], "outcome": "failed"})
            else:
                self._complain(plan, heard, f"was closed without an end: {closed}")
            self._look_for_others(plan, heard)
            return
        except TimeoutError:
            self._line.close(reset=True)
            self._complain(plan, heard, "never had an answer")
            return
        self._look_for_others(plan, heard)
        job = heard.headers.get("x-llm-queue-job", "")
        if plan.hang_up and not heard.ended:
            self._tally["hung up"] += 1
            return
        outcome = self._judge(plan, heard)
        if heard.status in (429, 503):
            await asyncio.sleep(BACK_OFF)
        self._tally[outcome] += 1
        if not job:
            self._tally[f"rejected {heard.status}"] += 1
        tell({"job": job, "outcome": outcome} if job else {"rejected": heard.status})

    async def _leave(self, plan: Plan, heard: Heard) -> None:
        """Send some or all of it, and leave where the plan says."""
        line, data, head = self._line, plan.data, plan.head
        reset = len(data) % 2 == 0
        match plan.hang_up:
            case "in the head":
                await line.send(data[: head // 2])
            case "in the body":
                await line.send(data[: (head + len(data)) // 2])
            case _:
                await line.send(data)
        match plan.hang_up:
            case "at the head":
                await line.hear(heard, pieces=0)
            case "in the answer":
                await line.hear(heard, pieces=1)
            case "by a half-close":
                await asyncio.sleep(plan.patience)
                line.half_close()
                await asyncio.sleep(0.05)
            case _:
                await asyncio.sleep(plan.patience)
        if not heard.ended:
            line.close(reset=reset)

    def _judge(self, plan: Plan, heard: Heard) -> str:
        """``answered`` or ``failed``; complains of what must not be."""
        body = bytes(heard.body)
        try:
            if heard.status != 200:
                well = plan.kind.error(json.loads(body))
                if not well:
                    self._complain(plan, heard, "had an error that is none of its dialect")
                if heard.status == 500:
                    self._complain(plan, heard, "had a 500")
                if not plan.may_fail and heard.status not in (429, 502, 503, 504):
                    self._complain(plan, heard, "had an error for nothing")
                return "failed"
            return self._judge_stream(plan, heard, body) if plan.streamed else self._judge_whole(plan, heard, body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._complain(plan, heard, f"had an answer that is none of its dialect: {error!r}")
            return "failed"

    def _judge_whole(self, plan: Plan, heard: Heard, body: bytes) -> str:
        text = plan.kind.whole(json.loads(body))
        expected = plan.text if plan.kind.steered else as_text(vectors_of([plan.text])[0])
        if text != expected:
            self._complain(plan, heard, "had another answer than its own")
        if plan.must_fail and plan.kind.steered:
            self._complain(plan, heard, "had an answer that there cannot be")
        return "answered"

    def _judge_stream(self, plan: Plan, heard: Heard, body: bytes) -> str:
        kind = plan.kind
        assert kind.piece is not None
        events = list(kind.events(body))
        text = "".join(kind.piece(event) for event in events if isinstance(event, dict))
        failed = any(kind.error(event) for event in events)
        ended = bool(events) and kind.last(events[-1])
        if failed == ended:
            self._complain(plan, heard, f"had a stream with {'both' if ended else 'neither'} an error and an end")
        if not plan.text.startswith(text) or (ended and text != plan.text):
            self._complain(plan, heard, "had another stream than its own")
        if ended and plan.must_fail:
            self._complain(plan, heard, "had an answer that there cannot be")
        return "answered" if ended and not failed else "failed"

    def _look_for_others(self, plan: Plan, heard: Heard) -> None:
        others = foreign(heard.raw_head + bytes(heard.body), plan.canary)
        self._tally["looked through"] += 1
        self._tally["own canaries"] += plan.canary.encode() in heard.body
        if others:
            self._complain(plan, heard, f"had what belongs to {sorted(set(others))[:3]}")

    def _complain(self, plan: Plan, heard: Heard, what: str) -> None:
        self._tally["complaints"] += 1
        if self._tally["complaints"] <= MOST_TOLD:
            form = "streamed" if plan.streamed else "whole"
            said = {
                "status": heard.status,
                "asked": plan.data[-600:].decode(),
                "got": bytes(heard.body[-600:]).decode(),
            }
            tell({"complaint": f"{plan.kind.name}, {form}: {what}", **said})


def is_late_error(plan: Plan, heard: Heard) -> bool:
    """True if the headers of a whole answer had left when its job failed: white space, the error, and no end."""
    body = bytes(heard.body)
    if plan.streamed or heard.status != 200 or not body.startswith(b" "):
        return False
    try:
        return plan.kind.error(json.loads(body))
    except ValueError:
        return False


def tell(what: dict[str, Any]) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(what) + "\n")


async def run(given: argparse.Namespace) -> Counter[str]:
    """All clients, until the time is up or enough was asked."""
    tally: Counter[str] = Counter()
    last_moment = time.monotonic() + given.seconds
    kinds = [KINDS[name] for name in given.kind]

    async def client(number: int) -> None:
        own = given.first_client + number
        planner = Planner(given.seed, own, kinds, faults=given.faults, hang_ups=given.hang_ups)
        asking = Client(given.port, planner, tally)
        while time.monotonic() < last_moment and (not given.requests or tally["sent"] < given.requests):
            await asking.one()
        asking._line.close()

    async with asyncio.TaskGroup() as clients:
        for number in range(given.clients):
            clients.create_task(client(number))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first-client", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--requests", type=int, default=0, help="0: as many as there is time for")
    parser.add_argument("--faults", type=float, required=True)
    parser.add_argument("--hang-ups", type=float, required=True)
    parser.add_argument("--kind", action="append", choices=list(KINDS), required=True)
    tally = asyncio.run(run(parser.parse_args()))
    tell({"tally": tally})
    sys.stdout.flush()


if __name__ == "__main__":
    main()
