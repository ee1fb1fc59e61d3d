"""A seat: one upstream as the scheduler sees it.

It has one slot. Whatever differs from one upstream to another belongs to its seat; the jobs that wait do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from llm_queue.core.contexts import ContextSizes
from llm_queue.core.events import Outcome, UnloadEnded
from llm_queue.core.jobs import Job
from llm_queue.core.keys import RunnerKey
from llm_queue.core.pause import Pause
from llm_queue.core.turn import Hold, Turn
from llm_queue.core.verdict import RetryLimits
from llm_queue.errors import LoadFailed, LoopDetected, ModelNotFound, QueueError, UpstreamUnreachable

PROBE_DELAYS: Final = (0.1, 1.0)
"""Seconds between probes of an upstream that is away: the first, doubling up to the last. They cost nothing."""

BUSY_DELAYS: Final = (0.1, 2.0)
"""Seconds before a busy upstream is tried again: the first, doubling up to the last."""

REFUSE_AFTER_FAILED_LOAD: Final = 30.0
"""Seconds for which a key that could not be loaded is refused: each try evicts a model that works."""

STALE_AFTER: Final = 60.0
"""Seconds without upstream work after which what is resident is asked for before it is relied on: keep-alive runs out,
and programs that bypass the line load what they like."""


@dataclass(slots=True)
class Occupant:
    """What holds the slot since ``since``: a job, and whether its key is being loaded or the job runs."""

    job: Job
    key: RunnerKey
    loading: bool
    since: float


@dataclass(slots=True)
class Outage:
    """The upstream cannot be reached. ``reason`` is for people.

    ``probe_at`` is when it is asked next, and None while a probe is under way; ``delay`` is the pause after the next
    failed probe. Once it is ``given_up``, jobs no longer wait for its end. It is a ``loop`` when the upstream was found
    to be ourselves: that ends by no waiting.
    """

    since: float
    reason: str
    delay: float = PROBE_DELAYS[0]
    probe_at: float | None = None
    failed_probes: int = 0
    given_up: bool = False
    loop: bool = False

    @property
    def error(self) -> QueueError:
        """What jobs that do not wait for its end are told."""
        return LoopDetected(self.reason) if self.loop else UpstreamUnreachable(self.reason)

    def gives_up_at(self, limits: RetryLimits, *, seen: bool) -> float:
        """When jobs wait no longer for its end; ``seen`` is true if the upstream ever was there."""
        return self.since + (limits.outage_wait if seen else limits.first_outage_wait)


class Seat:
    """The slot of one upstream, and what is known of that upstream: whether it is there, what it has loaded, what it
    refuses. All times are in seconds.

    ``id`` tells the seat's events and actions from those of others. ``slot`` is what holds the slot. ``outage`` is None
    while the upstream is there, and ``seen`` is true once it ever was; ``outages`` counts those since then.
    ``asking`` is true while it is asked what it has loaded, and ``unloading`` while it is made to unload that.
    ``pause`` is None unless nothing may start.
    """

    def __init__(self, contexts: ContextSizes, now: float, *, id: int = 0) -> None:  # noqa: A002 - its field's name
        self.id = id
        self.contexts = contexts
        self.turn = Turn()
        self.slot: Occupant | None = None
        self.outage: Outage | None = Outage(since=now, reason="not asked yet", probe_at=now)
        self.seen = False
        self.outages = 0
        self.asking = False
        self.unloading = False
        self.pause: Pause | None = None
        self.busy_until: float | None = None
        self._busy_delay = BUSY_DELAYS[0]
        self._probing = False
        self._known_at = now
        self._refused: dict[RunnerKey, tuple[float, QueueError]] = {}

    @property
    def resident(self) -> frozenset[RunnerKey]:
        """The keys that the upstream has loaded."""
        return self.turn.resident

    @property
    def open(self) -> bool:
        """True if a load or an attempt may start."""
        return self.pause is None and self.free

    @property
    def free(self) -> bool:
        """True if nothing is in flight, and the upstream takes work."""
        in_flight = self.slot is not None or self.asking or self.unloading
        return not in_flight and self.outage is None and self.busy_until is None

    @property
    def hold(self) -> Hold | None:
        """For whom the slot is kept free, if it is."""
        return self.turn.hold if self.open else None

    # --- what is loaded ---

    def stale(self, now: float) -> bool:
        """True if what is resident must be asked for before it is relied on."""
        return now - self._known_at > STALE_AFTER

    def worked(self, now: float) -> None:
        """An attempt has ended, so what is resident is known."""
        self._known_at = now

    def know_resident(self, reported: Iterable[RunnerKey] | None, now: float) -> None:
        """The upstream says that it has ``reported`` loaded (None: it did not say, and the old answer stands)."""
        self._known_at = now
        if reported is not None:
            self.turn.now_resident(self.contexts.translate(reported))

    def loaded(self, key: RunnerKey, reported: Iterable[RunnerKey] | None) -> None:
        """A load of ``key`` succeeded, and the upstream says that it has ``reported`` loaded (None: it did not say)."""
        self.turn.now_resident(self.contexts.loaded(key, reported or ()))

    def unloaded(self, key: RunnerKey) -> None:
        """The upstream has unloaded ``key``: the next job that needs it waits for a load of the line's own."""
        self.turn.now_resident(self.turn.resident - {key})

    # --- paused by hand ---

    def order_pause(self, now: float, *, unload: bool) -> None:
        """Nothing may start; ``unload``: what is loaded is to be unloaded, as soon as nothing is in flight."""
        self.pause = self.pause or Pause(now)
        if unload:
            self.pause.order_unload()

    def begin_unload(self) -> bool:
        """True if what is loaded must be unloaded now; it counts as begun."""
        if self.pause is None or not self.pause.unload or not self.free:
            return False
        self.unloading = True
        return True

    def unload_ended(self, event: UnloadEnded, now: float) -> None:
        """It was unloaded or not. If the upstream was away or busy, it is tried again when that is over."""
        self.unloading = False
        self.know_resident(event.left, now)
        if event.outcome is Outcome.BUSY:
            self.back_off(now)
        elif event.outcome is not Outcome.UNREACHABLE and self.pause is not None:
            self.pause.end_unload(event.error.discreet if event.error else "")

    # --- what it refuses ---

    def load_failed(self, key: RunnerKey, error: QueueError, now: float) -> tuple[QueueError, int | None]:
        """A load of ``key`` failed for good.

        Returns the error for those who wanted it, and, if the load was a raise, the context size that worked before:
        it is the model's limit from now on. If it was not a raise, the key is refused for a while. A loop says nothing
        of the model, and one that is not there evicts nothing and may come at any time.
        """
        if error.code in (LoopDetected.code, ModelNotFound.code):
            return error, None
        last_good = self.contexts.failed(key)
        if last_good is not None:
            advice = f"{error.message} (context {key.num_ctx}; {last_good} worked before: ask for no more)"
            return error.saying(advice), last_good
        self._refused = {key: entry for key, entry in self._refused.items() if now < entry[0]}
        self._refused[key] = (now + REFUSE_AFTER_FAILED_LOAD, error)
        return error, None

    def refusal(self, job: Job, now: float) -> QueueError | None:
        """Why a job need not wait, because its model cannot be loaded at the size that it wants; else None."""
        assert job.model is not None
        limit = self.contexts.limit(job.model)
        if limit is not None and job.wanted_ctx > limit:
            return LoadFailed(
                f"A context of {job.wanted_ctx} could not be loaded for this model: ask for numCtx up to {limit}."
            )
        until, error = self._refused.get(self.contexts.key(job.model, job.wanted_ctx), (now, None))
        return error if now < until else None

    # --- busy and away ---

    def back_off(self, now: float) -> None:
        """The upstream serves a program that bypasses the line: try again later, and later each time."""
        self.busy_until = now + self._busy_delay
        self._busy_delay = min(self._busy_delay * 2, BUSY_DELAYS[1])

    def end_back_off(self, now: float) -> None:
        """It may be tried again if it is time."""
        if self.busy_until is not None and now >= self.busy_until:
            self.busy_until = None

    def took_work(self) -> None:
        """It was not busy: the next back-off begins with the shortest delay."""
        self._busy_delay = BUSY_DELAYS[0]

    def begin_outage(self, now: float, reason: str, *, loop: bool = False) -> None:
        """The upstream is away, or is ourselves (``loop``). It counts if it was there before."""
        self.turn.unbind()
        if self.outage is None:
            self.outage = Outage(since=now, reason=reason, probe_at=now, loop=loop)
            self.outages += self.seen

    def look_for_loop(self, error: QueueError | None, now: float) -> None:
        """An upstream that is ourselves serves nobody: those who wait need not find out one by one."""
        if error is not None and error.code == LoopDetected.code:
            self.begin_outage(now, error.message, loop=True)

    def probe_is_due(self, now: float) -> bool:
        """True if a probe must be sent now; it counts as sent. There is never more than one under way."""
        outage = self.outage
        if outage is None or outage.probe_at is None or now < outage.probe_at:
            return False
        outage.probe_at = None
        due, self._probing = not self._probing, True
        return due

    def probe_failed(self, error: QueueError, now: float) -> None:
        """A probe got no answer: the next one follows after the delay, which doubles."""
        self._probing = False
        assert self.outage is not None
        self.outage.reason = error.message
        self.outage.loop = error.code == LoopDetected.code
        self.outage.failed_probes += 1
        self.outage.probe_at = now + self.outage.delay
        self.outage.delay = min(self.outage.delay * 2, PROBE_DELAYS[1])

    def probe_succeeded(self, reported: Iterable[RunnerKey], now: float) -> None:
        """The upstream is there, with ``reported`` loaded: take that over rather than load it again."""
        self._probing = False
        self.outage = None
        self.seen = True
        self.turn.now_resident(frozenset())  # it may have been started anew
        self.turn.now_resident(self.contexts.adopt(reported))
        self._known_at = now
