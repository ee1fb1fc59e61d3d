"""Breaks the core on purpose, one rule at a time, and sees that the tests notice: ``python -m tests.core.mutants``.

Each mutant is one change to a copy of the package. Exits 1 if one survives or is stale. A stale mutant, one whose text
is no longer in the code, fails ``test_mutants.py`` first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import llm_queue

PACKAGE = Path(llm_queue.__file__).parent
ROOT = Path(__file__).parents[2]
TESTS = ["tests/core", "tests/simulate"]


class Mutant(NamedTuple):
    """Replaces ``old``, which occurs once in ``file``, a path below ``llm_queue/``, by ``new``."""

    breaks: str
    file: str
    old: str
    new: str

    @property
    def occurrences(self) -> int:
        """How often ``old`` is in the file: 1, or the mutant is stale."""
        path = PACKAGE / self.file
        return path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0


MUTANTS = [
    Mutant("a turn never ends", "core/order.py", "over = turn.used >= self.turn_length(turn)", "over = False"),
    Mutant(
        "a load does not begin a new turn",
        "core/turn.py",
        "        self.used = 0.0\n",
        "",
    ),
    Mutant(
        "a new model waits for the whole turn",
        "core/order.py",
        "if here and new_first and turn.used_at(now) >= self._first_turn_length(turn):",
        "if here and False:",
    ),
    Mutant("a new model goes at once", "core/order.py", "turn.used_at(now) >= self._first_turn_length(turn)", "True"),
    Mutant("a model is new for ever", "core/costs.py", "self._tried.add(model)", "pass"),
    Mutant(
        "a model is new until a load of it succeeds",
        "core/order.py",
        "        turn.costs.load_ended(key.model)\n        if succeeded:\n",
        "        if succeeded:\n            turn.costs.load_ended(key.model)\n",
    ),
    Mutant(
        "a hold keeps a new model waiting",
        "core/order.py",
        "if untried else self.turn_length(turn)",
        "if False else self.turn_length(turn)",
    ),
    Mutant(
        "held time brings a new model no nearer",
        "core/order.py",
        "turn.used_at(now) >= self._first",
        "turn.used >= self._first",
    ),
    Mutant(
        "a turn is capped by the wait alone",
        "core/rules.py",
        "return max(cost, min(self.turn_factor * cost, self.switch_wait))",
        "return min(self.turn_factor * cost, self.switch_wait)",
    ),
    Mutant(
        "keys that were never served overtake",
        "core/order.py",
        "min(here or wanted, key=lambda key: queues[key].wanted_since)",
        "min(here or wanted, key=lambda key: -queues[key].wanted_since)",
    ),
    Mutant(
        "a merge forgets how long a key has waited",
        "core/order.py",
        "min(merged.wanted_since, queue.wanted_since)",
        "self._tick()",
    ),
    Mutant(
        "the turn's end asks only keys that need a load",
        "core/order.py",
        "here = [] if over else [key for key in wanted if key in turn.resident]",
        "here = [key for key in wanted if (key in turn.resident) is not over]",
    ),
    Mutant(
        "a hold has no bound",
        "core/holds.py",
        "until = min(habit.left_at + HELD_FOR * why.cost, why.turn_ends)",
        "until = now + HELD_FOR * why.cost",
    ),
    Mutant(
        "a hold outlasts the turn",
        "core/holds.py",
        "min(habit.left_at + HELD_FOR * why.cost, why.turn_ends)",
        "habit.left_at + HELD_FOR * why.cost",
    ),
    Mutant("a hold lasts as long as a switch", "core/holds.py", "HELD_FOR: Final = 3 / 4", "HELD_FOR: Final = 1"),
    Mutant(
        "held for who thinks long",
        "core/habits.py",
        "return pause <= HELD_PAUSE * switch_cost and (",
        "return (",
    ),
    Mutant(
        "held for who thinks for a whole switch", "core/habits.py", "HELD_PAUSE: Final = 1 / 2", "HELD_PAUSE: Final = 1"
    ),
    Mutant("a backlog waits for who runs little", "core/habits.py", "pause <= run or not backlog", "True"),
    Mutant("one job is a backlog", "core/order.py", "waiting_of(job.client) > 1", "waiting_of(job.client) > 0"),
    Mutant("held while a higher lane waits", "core/holds.py", "habit.lane > why.lane or ", ""),
    Mutant("a cold start costs nothing", "core/costs.py", "min(self.losses) if", "0.0 if"),
    Mutant("a long job is a cold start", "core/costs.py", "min(self.losses) if", "max(self.losses) if"),
    Mutant(
        "a cold start costs more than its load", "core/costs.py", "min(max(0.0, loss), self.load)", "max(0.0, loss)"
    ),
    Mutant(
        "held for a larger context",
        "core/order.py",
        "return loop[1] != chosen.model and key in turn.resident",
        "return key in turn.resident",
    ),
    Mutant(
        "held while draining",
        "core/scheduler.py",
        "now, may_hold=not self.draining)\n        if job is None",
        "now, may_hold=True)\n        if job is None",
    ),
    Mutant("held time is not counted to the turn", "core/turn.py", "        self.used += seconds\n", ""),
    Mutant(
        "an outage is held time", "core/turn.py", "min(now, before.until) - self.held_since", "now - self.held_since"
    ),
    Mutant("a load is not bound", "core/turn.py", "        self.bound = bound\n", "        self.bound = None\n"),
    Mutant("the bound job waits for ever", "core/order.py", "passed_over < self.rules.lane_burst", "passed_over >= 0"),
    Mutant(
        "the burst count is not reset by a pick",
        "core/order.py",
        "        lane.passed_over = 0\n        lane.waiting -= 1",
        "        lane.waiting -= 1",
    ),
    Mutant(
        "the burst count is reset by every arrival",
        "core/order.py",
        "        if not lane.waiting:\n            lane.passed_over = 0",
        "        lane.passed_over = 0",
    ),
    Mutant("lower lanes never age", "core/order.py", "self._lanes[lower].passed_over += 1", "pass"),
    Mutant(
        "a new model keeps its own late lane waiting",
        "core/order.py",
        "new_first=loads)",
        "new_first=True)",
    ),
    Mutant(
        "one late lane blocks another",
        "core/order.py",
        "for late in self._overdue(lanes):",
        "for late in self._overdue(lanes)[:1]:",
    ),
    Mutant(
        "no fair share",
        "core/fairness.py",
        "self._order.push((client.tag, self._placed), client.name)",
        "self._order.push((0.0, self._placed), client.name)",
    ),
    Mutant(
        "a newcomer has credit",
        "core/fairness.py",
        "max(self._level, self._away.pop(job.client, 0.0))",
        "self._away.pop(job.client, 0.0)",
    ),
    Mutant(
        "coming back wipes out the past", "core/fairness.py", "        if tag > self._floor:\n", "        if tag < 0:\n"
    ),
    Mutant(
        "who took much and left holds up newcomers",
        "core/fairness.py",
        "max(self._floor, min(self._level, most))",
        "max(self._floor, self._level)",
    ),
    Mutant(
        "newcomers start at the floor", "core/fairness.py", "max(self._floor, min(self._level, most))", "self._floor"
    ),
    Mutant(
        "shares count for nothing", "core/fairness.py", "client.tag += seconds / client.share", "client.tag += seconds"
    ),
    Mutant(
        "a share counts the wrong way",
        "core/fairness.py",
        "tag += seconds / client.share",
        "tag += seconds * client.share",
    ),
    Mutant(
        "the level knows no shares",
        "core/fairness.py",
        "self._level += seconds / self._shares",
        "self._level += seconds / len(self._clients)",
    ),
    Mutant(
        "who left still has its share of the level",
        "core/fairness.py",
        "self._shares - client.share if self._clients else 0.0",
        "self._shares",
    ),
    Mutant(
        "who left is billed without its share",
        "core/fairness.py",
        "self._away.get(client_name, 0.0)) + seconds / share)",
        "self._away.get(client_name, 0.0)) + seconds)",
    ),
    Mutant("a trace forgets shares", "core/trace.py", '    "fitted_ctx",\n    "share",\n', '    "fitted_ctx",\n'),
    Mutant(
        "a hold is billed without a share",
        "core/order.py",
        "queue.bill(hold.client, seconds, hold.share, served=False)",
        "queue.bill(hold.client, seconds, served=False)",
    ),
    Mutant(
        "loads are not billed",
        "core/order.py",
        "            queue.bill(job.client, seconds, job.share, served=False)\n        turn.costs.load_ended",
        "            pass\n        turn.costs.load_ended",
    ),
    Mutant("a removed job comes up again", "core/heap.py", "if self._entries.get(entry[2]) is entry:", "if True:"),
    Mutant(
        "a forecast changes the line",
        "core/fairness.py",
        "            self._clients[name] = self._clients[name].copy()\n",
        "            pass\n",
    ),
    Mutant(
        "a forecast changes the keys of jobs",
        "core/assigned.py",
        "        self._keys[job] = key\n",
        "        job.key = key\n",
    ),
    Mutant(
        "a forecast changes what switches cost",
        "core/turn.py",
        "replace(self, costs=self.costs.copy(), strands=strands)",
        "replace(self, strands=strands)",
    ),
    Mutant(
        "a forecast forgets how long a run has lasted",
        "core/forecast.py",
        "max(self.at, since + expected)",
        "self.at + expected",
    ),
    Mutant(
        "a forecast knows no loads",
        "core/forecast.py",
        "self._pass(self.turn.costs.load(key.model), since)",
        "self._pass(0.0, since)",
    ),
    Mutant(
        "a forecast changes what is known of prompts",
        "core/turn.py",
        "{model: each.copy() for model, each in self.strands.items()}",
        "dict(self.strands)",
    ),
    Mutant("a forecast knows no prompts", "core/forecast.py", "self.order.foresee(", "self.order.bill("),
    Mutant(
        "a strand costs something before anything was lost",
        "core/strands.py",
        "        if not self.lost:\n            return 0.0\n",
        "",
    ),
    Mutant("there is room for one", "core/strands.py", "others if self.room is None else min(self.room, others)", "1"),
    Mutant(
        "the room never grows",
        "core/strands.py",
        "            self.room = max(self.room, others + 1)\n",
        "            pass\n",
    ),
    Mutant(
        "the room is the last that was seen",
        "core/strands.py",
        "self.room = max(self.room, others + 1)",
        "self.room = others + 1",
    ),
    Mutant(
        "the first prompt after a load is a miss",
        "core/strands.py",
        "        if others is None or unsure:",
        "        others = len(self._ran) if others is None else others\n        if unsure:",
    ),
    Mutant(
        "a load throws no prompt out",
        "core/strands.py",
        "self._ran = {self._before_load: None} if self.restored and self._before_load is not None else {}",
        "pass",
    ),
    Mutant(
        "what is found after an unreported run tells something",
        "core/strands.py",
        "        if others is None or unsure:",
        "        if others is None:",
    ),
    Mutant("no load is known to restore", "core/strands.py", "self.restored = not missed", "self.restored = False"),
    Mutant(
        "every load that finds something restores",
        "core/strands.py",
        "first_since_load = strand == self._before_load and self._ran.keys() <= {strand}",
        "first_since_load = self._before_load is not None",
    ),
    Mutant(
        "a model that went keeps its prompts",
        "core/turn.py",
        "            self.reloaded(model)\n        self.resident",
        "            pass\n        self.resident",
    ),
    Mutant(
        "an outage forgets no prompt",
        "core/seat.py",
        "        self.turn.now_resident(frozenset())  # it may have been started anew\n",
        "",
    ),
    Mutant("what all share is lost as well", "core/strands.py", "self.kept - self.left)", "self.kept)"),
    Mutant("who breaks its own prompt is protected", "core/strands.py", "self.tokens * self.share", "self.tokens"),
    Mutant(
        "a new strand throws nothing out",
        "core/strands.py",
        "[strand, *cached] if full else [strand]",
        "[strand]",
    ),
    Mutant(
        "a strand costs what it throws out, room or not",
        "core/strands.py",
        "[strand, *cached] if full else [strand]",
        "[strand, *cached]",
    ),
    Mutant("strands are kept for ever", "core/strands.py", "if len(self._known) > REMEMBERED:", "if False:"),
    Mutant(
        "a cold prompt counts to the turn of its strand",
        "core/strands.py",
        "if job is self.opening else 0.0)",
        "if False else 0.0)",
    ),
    Mutant("a turn of strands never begins", "core/strands.py", "            self.used = 0.0\n", "            pass\n"),
    Mutant("a turn of strands never ends", "core/choices.py", "if used >= rules.turn_length(cost):", "if False:"),
    Mutant(
        "people wait for turns that are long by the rules",
        "core/rules.py",
        "return min(self.turn_length(cost), max(cost, GUEST_PAUSE))",
        "return self.turn_length(cost)",
    ),
    Mutant("a guest begins a turn", "core/choices.py", "begins=not _pauses(fair, guests_pause)", "begins=True"),
    Mutant(
        "a bound job begins no turn of its strand",
        "core/order.py",
        "Choice(bound, Rule.BOUND, begins=True)",
        "Choice(bound, Rule.BOUND)",
    ),
    Mutant(
        "people wait for turns of strands",
        "core/fairness.py",
        "(*of_strands, self._first_guest(least_grade(pause)))",
        "of_strands",
    ),
    Mutant("everybody is a guest", "core/fairness.py", "self._first_guest(least_grade(pause))", "self.first()"),
    Mutant(
        "a guest is whoever paused long once",
        "core/habits.py",
        "return away if usual is None else usual",
        "return away",
    ),
    Mutant(
        "who has a job here may be a guest for another",
        "core/habits.py",
        "        if client in self._clients_here:\n            return 0.0\n",
        "",
    ),
    Mutant(
        "all endings are one",
        "core/habits.py",
        "runs=runs, key=key, lane=lane, share=share, ending=ending)",
        "runs=runs, key=key, lane=lane, share=share)",
    ),
    Mutant(
        "all labels are one",
        "core/order.py",
        "return job.client, job.model, job.label",
        'return job.client, job.model, ""',
    ),
    Mutant(
        "held for a strand that is not cached",
        "core/order.py",
        "return loaded == key and (loop[0], loop[2]) in cached",
        "return loaded == key",
    ),
    Mutant(
        "held for a strand beyond the keys' turn",
        "core/order.py",
        "turn_ends = min(now + left, self._keys_turn_ends(turn, now))",
        "turn_ends = now + left",
    ),
    Mutant(
        "held for a strand beyond the strands' turn",
        "core/order.py",
        "turn_ends = min(now + left, self._keys_turn_ends(turn, now))",
        "turn_ends = self._keys_turn_ends(turn, now)",
    ),
    Mutant(
        "a hold for a strand keeps another model waiting",
        "core/order.py",
        "self._free_meanwhile(lanes[0], turn, first, now) or hold",
        "hold",
    ),
    Mutant(
        "held time is not counted to the turn of strands",
        "core/turn.py",
        "            self.strands[before.key.model].used += seconds\n",
        "            pass\n",
    ),
    Mutant(
        "a load loses no prompt", "core/turn.py", "costs += [self.costs.load(model) + loss] if loss else []", "pass"
    ),
    Mutant(
        "a prompt that a load made cold counts to the turn", "core/turn.py", "if cold else 0.0)", "if False else 0.0)"
    ),
    Mutant(
        "what was not answered says what is cached",
        "core/scheduler.py",
        "event.prompt if outcome is Outcome.SUCCEEDED else None",
        "event.prompt",
    ),
    Mutant(
        "a surprise load keeps the prompts",
        "core/scheduler.py",
        "            seat.turn.reloaded(occupant.key.model)\n",
        "            pass\n",
    ),
    Mutant(
        "a cancelled job is forgotten in the line",
        "core/scheduler.py",
        "            self._drop(job)\n            self._end(job, State.CANCELLED",
        "            self._end(job, State.CANCELLED",
    ),
    Mutant(
        "the slot is free when the abort is sent",
        "core/scheduler.py",
        "            self._actions.append(Abort(job, error, self.seat.id))",
        "            self._actions.append(Abort(job, error, self.seat.id))\n            self.seat.slot = None",
    ),
    Mutant(
        "repeated after the caller saw a part",
        "core/verdict.py",
        "outcome is Outcome.REFUSED or job.committed",
        "outcome is Outcome.REFUSED",
    ),
    Mutant(
        "repeated though the upstream refused",
        "core/verdict.py",
        "outcome is Outcome.REFUSED or job.committed",
        "job.committed",
    ),
    Mutant(
        "the end of a loop is waited for",
        "core/scheduler.py",
        "outage.given_up or outage.loop or",
        "outage.given_up or",
    ),
    Mutant("an outage counts as an attempt", "core/scheduler.py", "            job.attempts -= 1\n", ""),
    Mutant(
        "a job that was too long runs again with the context that was too small",
        "core/scheduler.py",
        "            job.wanted_ctx = job.fitted_ctx = event.needed_ctx\n",
        "            job.fitted_ctx = event.needed_ctx\n",
    ),
    Mutant(
        "repeated after it was cancelled",
        "core/verdict.py",
        "job.cancel_requested or outcome is Outcome.CANCELLED",
        "outcome is Outcome.CANCELLED",
    ),
    Mutant("repeated once too often", "core/verdict.py", "job.attempts < max_attempts", "job.attempts <= max_attempts"),
    Mutant(
        "a failed load is tried again at once",
        "core/seat.py",
        "self._refused[key] = (now + REFUSE_AFTER_FAILED_LOAD, error)",
        "pass",
    ),
    Mutant(
        "a failed load fails its own job only",
        "core/scheduler.py",
        "other is job or self._order.key_of(other) == key or too_large",
        "other is job",
    ),
    Mutant("a failed raise spares those who want more", "core/scheduler.py", " or too_large:", ":"),
    Mutant("a failed raise is no limit", "core/contexts.py", "self._limit[key.model] = current", "pass"),
    Mutant("nothing is adopted", "core/contexts.py", "if self.floor <= key.num_ctx <= self.ceiling:", "if False:"),
    Mutant(
        "an outage never ends for who comes late",
        "core/scheduler.py",
        "self.waiting_jobs()) if outage.given_up else",
        "self.waiting_jobs()) if outage.given_up and not self.seat.seen else",
    ),
    Mutant(
        "max wait is looked at only at the pick",
        "core/scheduler.py",
        "            times.append(self._patience.first().expires_at)",
        "            pass",
    ),
    Mutant(
        "an ended job blocks all max waits",
        "core/scheduler.py",
        "        self._patience.discard(job)\n        self.counts",
        "        self.counts",
    ),
    Mutant(
        "max wait goes on after the pick",
        "core/scheduler.py",
        "        job.picked = True\n        self._patience.discard(job)\n",
        "",
    ),
    Mutant(
        "a busy upstream is asked without a pause",
        "core/seat.py",
        "self.busy_until = now + self._busy_delay",
        "self.busy_until = now",
    ),
    Mutant(
        "a stop leaves the line as it is",
        "core/scheduler.py",
        "        for job in list(self.waiting_jobs()):\n            self._cancel(job, error, now)\n",
        "",
    ),
    Mutant(
        "a paused line goes on",
        "core/seat.py",
        "return self.pause is None and self.free",
        "return self.free",
    ),
    Mutant(
        "a drain does not end a pause",
        "core/scheduler.py",
        "            case DrainBegan():\n                self.draining, self.seat.pause = True, None",
        "            case DrainBegan():\n                self.draining = True",
    ),
    Mutant(
        "a pause in a drain is taken",
        "core/scheduler.py",
        "        if self.draining:\n            return  # it must end\n",
        "",
    ),
    Mutant(
        "a pause keeps a hold",
        "core/scheduler.py",
        "        if self.seat.turn.hold is not None:\n",
        "        if False:\n",
    ),
    Mutant(
        "an unload begins while something is in flight",
        "core/seat.py",
        "not self.pause.unload or not self.free",
        "not self.pause.unload or self.outage is not None or self.unloading",
    ),
    Mutant(
        "work begins while something is unloaded",
        "core/seat.py",
        "self.asking or self.unloading\n",
        "self.asking\n",
    ),
    Mutant(
        "an unload that failed is tried again and again",
        "core/pause.py",
        "self.unload, self.unloaded, self.kept = False, not kept, kept",
        "self.unload, self.unloaded, self.kept = bool(kept), not kept, kept",
    ),
    Mutant(
        "an unload is given up at an outage",
        "core/seat.py",
        "elif event.outcome is not Outcome.UNREACHABLE and self.pause is not None:",
        "elif self.pause is not None:",
    ),
    Mutant(
        "a busy upstream is made to unload without a pause",
        "core/seat.py",
        "        if event.outcome is Outcome.BUSY:\n            self.back_off(now)\n        elif",
        "        if event.outcome is Outcome.BUSY:\n            pass\n        elif",
    ),
    Mutant(
        "what was unloaded is taken for loaded",
        "core/seat.py",
        "        self.unloading = False\n        self.know_resident(event.left, now)\n",
        "        self.unloading = False\n",
    ),
    Mutant(
        "what runs is moved",
        "core/scheduler.py",
        "        if waits:\n            job.change_lane(lane, now)\n",
        "        job.change_lane(lane, now)\n",
    ),
    Mutant(
        "a job that is moved is bound to its load no longer",
        "core/scheduler.py",
        "        if known:\n            self._order.remove(job)\n",
        "        if known:\n            self._order.remove(job)\n            self.seat.turn.release(job)\n",
    ),
    Mutant("starts are told in a pause", "core/forecast.py", "self._known = seat.pause is None", "self._known = True"),
]


def survives(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        # test_mutants.py would notice each mutant by its text alone
        unwanted = shutil.ignore_patterns("__pycache__", "test_mutants.py")
        shutil.copytree(PACKAGE, copy / "llm_queue", ignore=unwanted)
        for part in TESTS:
            shutil.copytree(ROOT / part, copy / part, ignore=unwanted)
        for part in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
            shutil.copy(ROOT / part, copy / part)
        path = copy / "llm_queue" / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", *TESTS, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
        environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutants", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return False  # it hangs: noticed
        if result.returncode not in (0, 1):
            raise SystemExit(f"the tests of {mutant.breaks!r} did not run:\n{result.stdout.decode()}")
        return result.returncode == 0


def verdict(mutant: Mutant) -> str:
    if mutant.occurrences != 1:
        return "STALE"
    return "SURVIVED" if survives(mutant) else "killed"


def main() -> int:
    chosen = [mutant for mutant in MUTANTS if not sys.argv[1:] or any(word in mutant.breaks for word in sys.argv[1:])]
    started, failed = time.monotonic(), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:
        for mutant, found in zip(chosen, workers.map(verdict, chosen), strict=True):
            failed += found != "killed"
            print(f"{found:10} {mutant.file:18} {mutant.breaks}", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} killed in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
