"""Why a job waits or waited, in words for people: plain functions of numbers and names.

Sentences are about one job, which they call "it".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from llm_queue.core.jobs import State
from llm_queue.core.reasons import Competition, Rule

MOST_GROUPS: Final = 3
"""Kinds of jobs that a sentence names; the others are counted."""

REASONS: Final[dict[Rule, str]] = {
    Rule.HAD_SLOT: "had the slot when it came",
    Rule.ONLY_ONE: "nobody else waited",
    Rule.BOUND: "the model had been loaded for it",
    Rule.SHARES_LOAD: "interactive, and could use the model that was just loaded",
    Rule.LANE_BURST: "a lower lane that had been passed over long enough",
    Rule.HIGHER_LANE: "a higher lane",
    Rule.TURN_GOES_ON: "another model was loaded, and its turn went on",
    Rule.TURN_OVER: "the turn was over, and another model had waited longer",
    Rule.NEW_MODEL: "another model had not been loaded before",
    Rule.STRAND_FIRST: "the engine still had the prompt of its conversation",
    Rule.GUEST: "its program asks seldom, so it does not wait for other conversations",
    Rule.FAIR_SHARE: "its program had used the slot less",
    Rule.FIRST_COME: "came earlier",
}
"""Why a job went before another one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of one client that went before it by one rule."""

    client: str
    rule: Rule
    jobs: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What went by before its start, in seconds, and how often: ``loads`` and cold prompts of others, and holds.

    ``held_for`` is for whom the slot was kept. ``own_load`` and ``own_prompt`` are what it paid itself (None: nothing).
    """

    loads: int = 0
    load_seconds: float = 0.0
    cold_prompts: int = 0
    cold_seconds: float = 0.0
    hold_seconds: float = 0.0
    held_for: str | None = None
    own_load: float | None = None
    own_prompt: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say of a job: its state, how long it waited, what went before it, and what waits now for what.

    ``now_waiting_for`` is what it waits for now, as :func:`waiting_for` says it; ``forgotten``: more may have gone
    before it than is remembered. ``code`` is that of its error.
    """

    state: State
    waited: float
    groups: tuple[Group, ...] = ()
    costs: Costs = Costs()
    started: bool = False
    now_waiting_for: str = ""
    forgotten: bool = False
    load_failed: bool = False
    code: str | None = None
    remote: bool = False


def sentences(facts: Facts) -> tuple[str, ...]:
    """One or two of them."""
    if facts.remote:
        return ("Its model runs elsewhere, so it went beside the line and waited for nobody.",)
    second = costs(facts.costs)
    return (first(facts), second) if second else (first(facts),)


def first(facts: Facts) -> str:
    """How it stands, and what went before it."""
    went = before(facts.groups, forgotten=facts.forgotten)
    length = seconds(facts.waited)
    match facts.state:
        case State.QUEUED:
            text = f"It has waited {length}"
            text += f", and {went}" if went else ", and nothing has gone before it"
            return text + (f"; now {facts.now_waiting_for}." if facts.now_waiting_for else ".")
        case State.EXPIRED:
            text = f"Its max wait was over after {length}"
        case State.CANCELLED if not facts.started:
            text = f"It was cancelled when it had waited {length}"
        case _ if facts.load_failed and not facts.started:
            text = f"Its model could not be loaded when it had waited {length}"
        case State.FAILED | State.TIMED_OUT if not facts.started:
            text = f"It never ran{_by(facts.code)}; it had waited {length}"
        case State.FAILED | State.TIMED_OUT:
            text = f"It waited {length}, ran, and failed{_by(facts.code)}"
        case State.RUNNING:
            waited = f"had waited {length}" if facts.waited >= _SOON else "started at once"
            text = f"It runs now, and {waited}"
        case _:
            text = f"It waited {length}" if facts.waited >= _SOON else "It started at once"
    return text + (f"; {went}." if went else ".")


def before(groups: Sequence[Group], *, forgotten: bool = False) -> str:
    """What went before it: "5 jobs went before it: 3 of cron (came earlier) and 2 of editor (a higher lane)"."""
    number = sum(group.jobs for group in groups)
    least = "at least " if forgotten else ""
    if not number:
        return ""
    if len(groups) == 1:
        return f"{least}{counted(number, 'job')} of {groups[0].client} went before it ({REASONS[groups[0].rule]})"
    rest = sum(group.jobs for group in groups[MOST_GROUPS:])
    named = [f"{group.jobs} of {group.client} ({REASONS[group.rule]})" for group in groups[:MOST_GROUPS]]
    named += [counted(rest, "other")] if rest else []
    return f"{least}{counted(number, 'job')} went before it: {listed(named)}"


def costs(paid: Costs) -> str:
    """What was lost before its start, and what it paid itself; "" if nothing."""
    lost = []
    if paid.loads:
        lost.append(f"{counted(paid.loads, 'load')} for others took {seconds(paid.load_seconds)}")
    if paid.cold_seconds >= _WORTH_SAYING:
        lost.append(f"{counted(paid.cold_prompts, 'prompt')} computed anew took {seconds(paid.cold_seconds)}")
    if paid.hold_seconds >= _SOON:
        lost.append(f"the slot was kept free for {paid.held_for or 'a program'} for {seconds(paid.hold_seconds)}")
    if paid.own_load is not None:
        lost.append(f"the load of its model took {seconds(paid.own_load)}")
    if paid.own_prompt is not None and paid.own_prompt >= _WORTH_SAYING:
        lost.append(f"its own prompt had to be computed anew, which took {seconds(paid.own_prompt)}")
    text = listed(lost)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def waiting_for(
    *,
    loading: str | None = None,
    own: bool = False,
    running: str | None = None,
    unloading: bool = False,
    away: str | None = None,
    busy: bool = False,
    asking: bool = False,
    held_for: str | None = None,
    paused: bool = False,
) -> str:
    """What a job waits for: a load that ``own`` or a job of the client ``loading`` caused, a job of ``running`` that
    runs, an upstream that is ``unloading``, ``away``, ``busy`` with others or ``asking`` (asked what it has loaded), or
    a client whose turn is kept; and that the line is ``paused``. "" for nothing that is known.
    """
    found = ""
    if own:
        found = "its model is being loaded"
    elif loading is not None:
        found = f"a model is being loaded for {loading}"
    elif running is not None:
        found = f"a job of {running} runs"
    elif unloading:
        found = "the engine frees its memory"
    elif away is not None:
        found = f"it waits for the engine ({away})"
    elif busy:
        found = "the engine is busy with another program"
    elif asking:
        found = "the engine is asked what it has loaded"
    elif held_for is not None:
        found = f"the slot is kept free for {held_for}, which is about to ask again"
    if paused:
        return f"{found}, and the line is paused" if found else "the line is paused"
    return found


@dataclass(frozen=True, slots=True)
class TurnNow:
    """The turn in seconds: what is left of it until the job's model may be next, how long one is, and what a switch to
    another model costs.

    ``loading``: a load goes on, and all this is as it will be at its end. ``strands_left`` is what is left of the turn
    of conversations. The slot is kept free for ``held_for`` (None: it is not) for ``held`` seconds at most.
    """

    left: float
    length: float
    cost: float
    loading: bool = False
    strands_left: float = 0.0
    held_for: str | None = None
    held: float = 0.0


def bound(competition: Competition, turn: TurnNow, *, resident: bool, expires_in: float | None) -> str:
    """What bounds the wait of a job, with today's numbers: the bounds of docs/scheduling.md.

    ``resident``: its model is loaded. ``expires_in`` is how many seconds of its max wait are left (None: it has none).
    """
    parts = []
    if competition.higher:
        parts.append(f"higher lanes go first, but at most {counted(competition.passes + 2, 'more time')}")
    parts += _bounds_of_loaded(competition, turn) if resident else [_bound_of_unloaded(competition, turn)]
    if competition.earlier:
        parts.append(f"{counted(competition.earlier, 'job')} of its own program came earlier")
    if competition.clients > 1:
        parts.append(f"it takes turns with {counted(competition.clients - 1, 'other program')}, by slot time")
    if expires_in is not None:
        parts.append(f"its max wait ends in {seconds(expires_in)}")
    text = "; ".join(parts) or "it is next"
    return f"{text[0].upper()}{text[1:]}."


def bound_to_load(passes: int) -> str:
    """The same for the job for which the last load was: interactive ones may go before it ``passes`` more times."""
    if not passes:
        return "It is next."
    return f"Its model was loaded for it, so at most {counted(passes, 'interactive job')} of that model may go first."


def _bound_of_unloaded(competition: Competition, turn: TurnNow) -> str:
    """Programs of the loaded models may ask again until their turn is over, also if no job of theirs waits now."""
    left, length = seconds(turn.left), seconds(turn.length)
    waits = ["the load that goes on"] if turn.loading else []
    if turn.left >= _SOON and competition.first_turn is None:
        waits.append(f"the turn after it ({length})" if turn.loading else f"the rest of this turn ({left} of {length})")
    elif turn.left >= _SOON:
        waits.append(f"{left} of the turn after it" if turn.loading else f"{left} more of this turn")
    waits.append("the job that runs then" if waits else "the job that runs")
    if competition.unloaded:
        waits.append(f"{counted(competition.unloaded, 'more turn')} of {length} with a load and a job each")
    new = "" if competition.first_turn is None else "its model was not loaded before, so "
    return f"{new}at most {', '.join(waits)}, and one load of {seconds(turn.cost)}"


def _bounds_of_loaded(competition: Competition, turn: TurnNow) -> list[str]:
    parts = ["the load that goes on and the job that it is for come first"] if turn.loading else []
    if competition.unloaded:
        parts.append(
            f"its model is {'being ' if turn.loading else ''}loaded, with {seconds(turn.left)} of its turn left; after "
            f"that at most {counted(competition.unloaded, 'turn')} of {seconds(turn.length)} with a load and a job "
            f"each, and one load of {seconds(turn.cost)}"
        )
    if competition.loaded:
        parts.append(f"it takes turns with {counted(competition.loaded, 'other loaded model')}, job by job")
    if competition.strands_turn is not None and turn.strands_left >= _SOON:
        parts.append(
            "the engine has not kept its prompt, so at most the rest of the turn of conversations "
            f"({seconds(turn.strands_left)} of {seconds(competition.strands_turn)}) and the job that runs then; after "
            "that, slot time decides"
        )
    elif turn.held_for is not None:
        parts.append(f"the slot is kept free for {turn.held_for}, for {seconds(turn.held)} at most")
    return parts


# --- small words ---

_SOON: Final = 0.05
"""Seconds below which nobody waits."""

_WORTH_SAYING: Final = 0.3
"""Seconds that a prompt takes, from which on it is worth a word."""


def seconds(length: float) -> str:
    """A length of time: 0.42 s, 3.2 s, 48 s, 3 min 20 s."""
    if length < 0.95:
        return f"{length:.2f} s"
    if length < 9.95:
        return f"{length:.1f} s"
    whole = round(length)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def counted(number: int, thing: str) -> str:
    """1 job, 2 jobs."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def listed(parts: Iterable[str]) -> str:
    """a, b and c."""
    *most, last = [*parts] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _by(code: str | None) -> str:
    return f" ({code})" if code else ""
