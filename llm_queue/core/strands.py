"""Strands: whose computed prompts an engine still has, and what it costs to throw them out.

A strand is a client and a label: one conversation, or all of one program that begin alike. Engines keep the prompts of
a few of them and say of each prompt how much they found. From these counts alone it is learned how many strands there
is room for, and what going to another one loses; nothing of a prompt is known here. What is not reported is not
learned, and until something was seen to be lost, no strand costs anything.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from llm_queue.core.jobs import Job
from llm_queue.core.prompts import TELLING_TOKENS, PromptWork

Strand = tuple[str, str]
"""A client and a label."""

REMEMBERED: Final = 64
"""Strands that are known per model; the one that ran longest ago is forgotten first."""

SHARES: Final = 3
"""Shares of a prompt that were found, remembered per strand: the median is the usual one, and a program that breaks its
own beginning is known after two tries."""

PACES: Final = 8
"""Prompts whose seconds per token are remembered per model."""


def strand_of(job: Job) -> Strand:
    """The strand that a job belongs to."""
    return job.client, job.label


@dataclass(frozen=True, slots=True)
class StrandPrompts:
    """The prompts of one strand: how many ``tokens`` the last one had, which ``shares`` of it were found when nothing
    harmful came between, and how many tokens were ``left`` at the last miss. ``answers`` are the seconds that its last
    answers took after the prompt.
    """

    tokens: int
    shares: tuple[float, ...] = ()
    left: int = 0
    answers: tuple[float, ...] = ()

    @property
    def share(self) -> float:
        """The share that is usually found; all of it while nothing is known."""
        return median((*self.shares, *(1.0,) * SHARES)[:SHARES])

    @property
    def kept(self) -> float:
        """The tokens that are found if nothing harmful comes between."""
        return self.tokens * self.share

    @property
    def loss(self) -> float:
        """The tokens that are computed again if something does."""
        return max(0.0, self.kept - self.left)


class Strands:
    """The strands of one model at one upstream, and the turn of those that are cached. Times are in seconds.

    ``room`` is for how many of them the upstream has room (None: no end was seen). ``lost`` is true once a prompt was
    not found that usually is. ``restored`` is true while a load is known to bring back the last prompt before it.
    ``used`` is the slot time of the turn. ``opening`` is the job that begins a turn: chosen, or at work.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.lost = False
        self.restored = False
        self.used = 0.0
        self.opening: Job | None = None
        self._known: OrderedDict[Strand, StrandPrompts] = OrderedDict()
        self._ran: dict[Strand, None] = {}
        self._before_load: Strand | None = None
        self._unsure: set[Strand] = set()
        self._paces: deque[float] = deque(maxlen=PACES)

    def copy(self) -> Strands:
        """Others, the same so far."""
        twin = Strands()
        twin.room, twin.lost, twin.used, twin.opening = self.room, self.lost, self.used, self.opening
        twin._known, twin._ran, twin._paces = self._known.copy(), self._ran.copy(), self._paces.copy()
        twin.restored, twin._before_load, twin._unsure = self.restored, self._before_load, self._unsure.copy()
        return twin

    def __len__(self) -> int:
        return len(self._known)

    # --- what is cached, and what it costs ---

    @property
    def cached(self) -> list[Strand]:
        """The strands whose prompts the upstream still has: those that ran since the load, the last ``room``."""
        ran = list(self._ran)
        return ran if self.room is None else ran[-self.room :]

    def cost(self, strand: Strand) -> float:
        """Seconds that going to this strand loses: its own loss or, if there is no room left, the largest of a cached
        one. It is 0 for a cached one, and until something was lost.
        """
        if not self.lost:
            return 0.0
        cached = self.cached
        if strand in cached:
            return 0.0
        full = self.room is not None and len(cached) >= self.room
        return max(map(self._loss, [strand, *cached] if full else [strand]))

    @property
    def largest_loss(self) -> float:
        """Seconds that a load of another model loses at most: the largest loss among those that ran since the load,
        but for the one that is restored.
        """
        ran = list(self._ran)
        return max(map(self._loss, ran[:-1] if self.restored else ran), default=0.0) if self.lost else 0.0

    def _loss(self, strand: Strand) -> float:
        known = self._known.get(strand)
        return 0.0 if known is None else known.loss * self._pace

    @property
    def _pace(self) -> float:
        return median(self._paces) if self._paces else 0.0

    # --- the turn of the cached ones ---

    def serve(self, job: Job) -> None:
        """``job`` runs. If it was chosen to begin a turn, the turn begins."""
        if job is self.opening:
            self.used = 0.0
        else:
            self.opening = None

    def bill(self, job: Job, seconds: float, prompt_seconds: float) -> None:
        """``job`` had the slot for ``seconds``, of which ``prompt_seconds`` went to its prompt. The cold prompt that
        begins a turn does not count to it.
        """
        self.used += seconds - (min(seconds, prompt_seconds) if job is self.opening else 0.0)
        self.opening = None

    # --- what is learned ---

    def loaded(self) -> None:
        """The model was loaded: nothing is cached, but for the last prompt where loads bring that back."""
        self._before_load = next(reversed(self._ran), self._before_load)
        self._ran = {self._before_load: None} if self.restored and self._before_load is not None else {}
        self._unsure = set(self._ran)

    def ran_unreported(self, strand: Strand) -> None:
        """A job of this strand ran, and nobody said what became of its prompt, or of those of others: what they find
        next tells nothing.
        """
        if strand in self._known:
            self._moved(strand)
        self._unsure, self._before_load = set(self._ran), None

    def ran(self, strand: Strand, prompt: PromptWork, seconds: float = 0.0) -> None:
        """A job of this strand was answered after ``seconds``, and this is what its prompt took."""
        known = self._known.get(strand)
        now = StrandPrompts(prompt.tokens) if known is None else self._compare(strand, known, prompt)
        answers = (*now.answers, max(0.0, seconds - prompt.seconds))[-SHARES:]
        self._known[strand] = replace(now, answers=answers)
        self._moved(strand)
        self._before_load = None
        computed = prompt.tokens - prompt.cached
        if computed >= TELLING_TOKENS:
            self._paces.append(prompt.seconds / computed)

    def _others(self, strand: Strand) -> int | None:
        """How many strands ran since this one did; None if it has not run since the load."""
        return len(self._ran) - 1 - list(self._ran).index(strand) if strand in self._ran else None

    def _compare(self, strand: Strand, known: StrandPrompts, prompt: PromptWork) -> StrandPrompts:
        others, unsure = self._others(strand), strand in self._unsure
        first_since_load = strand == self._before_load and self._ran.keys() <= {strand}
        self._unsure.discard(strand)
        now = replace(known, tokens=prompt.tokens)
        comparable = min(known.tokens, prompt.tokens)  # a conversation that began anew cannot find more than it has
        usual = comparable * known.share
        telling = usual >= TELLING_TOKENS
        missed = telling and prompt.cached < usual / 2
        if telling and first_since_load:
            self.restored = not missed
        if others is None or unsure:  # the load has lost it, whatever room there is; or nobody knows what has
            self.lost = self.lost or (missed and not unsure)
            return now
        if others and missed:
            self.lost = True
            self.room = others if self.room is None else min(self.room, others)
            return replace(now, left=prompt.cached)
        if others and telling and self.room is not None:
            self.room = max(self.room, others + 1)
        share = min(1.0, prompt.cached / max(1, comparable))
        return replace(now, shares=(*known.shares, share)[-SHARES:])

    def _moved(self, strand: Strand) -> None:
        self._known.move_to_end(strand)
        self._ran.pop(strand, None)
        self._ran[strand] = None
        if len(self._known) > REMEMBERED:
            forgotten, _ = self._known.popitem(last=False)
            self._ran.pop(forgotten, None)

    # --- looking ahead ---

    def prompt_seconds(self, strand: Strand) -> float:
        """Seconds that the next prompt of this strand will take, if it is as long as the last one."""
        known = self._known.get(strand, _NONE)
        found = known.kept if strand in self.cached else min(known.left, known.kept)
        return (known.tokens - found) * self._pace

    def run_seconds(self, strand: Strand) -> float | None:
        """Seconds that the next run of this strand will take, with its prompt; None if it never ran."""
        known = self._known.get(strand, _NONE)
        return median(known.answers) + self.prompt_seconds(strand) if known.answers else None

    def foresee(self, strand: Strand) -> None:
        """A job of this strand will have run, as is expected. Nothing is learned of it but that."""
        self._known.setdefault(strand, _NONE)
        self._moved(strand)


_NONE: Final = StrandPrompts(0)
